//! One finished request or connection, as a proxy reported it. Plain data.

use std::time::Duration;

use crate::attribute::{Reporter, Workload};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http,
    Grpc,
    Tcp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status; 0 when there was none, and for TCP.
    pub status: u16,
    pub grpc_status: Option<u16>,
    /// The proxy could not reach or use the upstream.
    pub upstream_failed: bool,
    /// The client went away first.
    pub client_left: bool,
}

/// What a record is about: records with equal keys are one edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    pub reporter: Reporter,
    pub source: Workload,
    pub destination: Workload,
    /// The host that was asked for; empty when not known.
    pub service: Box<str>,
    pub protocol: Protocol,
}

impl EdgeKey {
    /// The edge that takes what is beyond the budget.
    pub fn other() -> Self {
        let other = || Workload {
            name: "other".into(),
            ..Workload::default()
        };
        Self {
            reporter: Reporter::Source,
            source: other(),
            destination: other(),
            service: "other".into(),
            protocol: Protocol::Http,
        }
    }
}

/// One request or connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub key: EdgeKey,
    pub outcome: Outcome,
    /// From the first byte of the request to the last of the answer.
    pub latency: Option<Duration>,
    pub mtls: bool,
    /// Bytes from source to destination, and back.
    pub sent: u64,
    pub received: u64,
}
