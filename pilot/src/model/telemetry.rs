//! What a Telemetry object says about access logs and traces of workloads.

use super::{Origin, Percent, Selector};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Telemetry {
    pub origin: Origin,
    /// `None`: the whole namespace; in the root namespace, the whole mesh.
    pub selector: Option<Selector>,
    pub access_logs: Vec<AccessLogRule>,
    pub tracing: Vec<TracingRule>,
}

/// Which side's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    #[default]
    Both,
    Client,
    Server,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessLogRule {
    pub side: Side,
    /// Names of the mesh's extension providers; empty: its default.
    pub providers: Vec<String>,
    pub disabled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TracingRule {
    pub side: Side,
    pub providers: Vec<String>,
    pub sampling: Option<Percent>,
    pub disabled: bool,
}
