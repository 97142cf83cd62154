//! Telemetry: what happens in the mesh, seen as a whole. Off the request path: killing it changes nothing there.
//!
//! The way of a record: a proxy's report → [`receive`] (access_log, otlp) → [`record`] with its [`attribute`]s →
//! [`enrich`] (the proven reporter, what the proxy left out) → [`rule`] (what counts, what is an error) → [`series`]: one
//! [`aggregate`]`::edge` for each pair of workloads, within `aggregate::cardinality` → [`sink`] (Prometheus) and
//! [`query`] (graph, top, traces) → [`dashboard`].
//!
//! Pure: [`attribute`], [`record`], [`enrich`], [`rule`], [`aggregate`], [`query`].

pub mod admin;
pub mod aggregate;
pub mod app;
pub mod attribute;
pub mod dashboard;
pub mod enrich;
pub mod metrics;
pub mod query;
pub mod receive;
pub mod record;
pub mod rule;
pub mod series;
pub mod settings;
pub mod sink;
