//! Tracing: which trace a request belongs to, whether it is recorded, and what is told to the next hop.
//!
//! W3C trace context and B3 (one header or several) are understood; the request leaves with the formats it came with,
//! and with `traceparent` always, so an application that passes its headers on keeps its trace whole. Randomness and
//! sampling come in as numbers: everything in [`context`] is a pure function.

pub mod context;
mod export;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use context::{Formats, Incoming, Sampling, TraceContext, begin, extract, inject};
pub use export::encode;

/// Which side of an exchange a span describes (OTLP's kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// This proxy served the request (inbound, or a gateway).
    Server,
    /// This proxy sent it on (outbound).
    Client,
}

/// Where a connection manager's spans go and how they are named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The cluster of the collector.
    pub cluster: Arc<str>,
    /// `service.name` of the resource.
    pub service_name: Arc<str>,
}

/// One finished span, pushed into the worker's ring.
#[derive(Clone, Debug)]
pub struct Span {
    pub target: Arc<Target>,
    pub context: TraceContext,
    pub kind: SpanKind,
    /// The operation: the route's decorator, else the authority and path template.
    pub name: Arc<str>,
    pub start: SystemTime,
    pub duration: Duration,
    /// The answer was an error of the server (5xx or none).
    pub error: bool,
    pub tags: Vec<(Cow<'static, str>, String)>,
}
