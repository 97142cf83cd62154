//! Sidecar: what a workload's proxy listens for, and how much of the mesh it sees.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ConnectionPool, Destination, ServerTls, gateway::Port, workload::WorkloadSelector};
use crate::{
    kube::{Kind, Resource, schema::rule},
    mesh::OutboundMode,
};

/// How the proxies of some workloads differ from the others of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub workload_selector: Option<WorkloadSelector>,
    /// What the proxy takes in for its workload. None: the ports of its services.
    #[schemars(length(max = 4096))]
    pub ingress: Vec<IngressListener>,
    /// What the workload may reach. None: all that its namespace sees.
    #[schemars(length(max = 4096))]
    pub egress: Vec<EgressListener>,
    /// Bounds of connections and requests to the workload.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to traffic for unknown destinations. None: what the mesh's settings say.
    pub outbound_traffic_policy: Option<SidecarOutbound>,
}

impl Resource for Sidecar {
    const KIND: Kind = Kind::Sidecar;
}

/// A port that the proxy takes in for its workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct IngressListener {
    /// The port.
    pub port: Option<Port>,
    /// The address to listen on.
    pub bind: String,
    /// How traffic gets to the proxy.
    pub capture_mode: Option<CaptureMode>,
    /// Where the proxy sends what it takes in: `127.0.0.1:port`, `0.0.0.0:port` or `unix://path`. None: the same port.
    pub default_endpoint: String,
    /// Encryption towards clients that are not of the mesh.
    pub tls: Option<ServerTls>,
    /// Bounds of connections and requests to this port.
    pub connection_pool: Option<ConnectionPool>,
}

/// Hosts that the workload may reach.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct EgressListener {
    /// The port for which this holds. None: all other ports.
    pub port: Option<Port>,
    /// The address to listen on, or `unix://` and a path.
    pub bind: String,
    /// How traffic gets to the proxy.
    pub capture_mode: Option<CaptureMode>,
    /// Hosts as namespace/host; `./*` are all of the own namespace, `*/*` all, `~/*` none.
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
}

/// `DEFAULT`: as the workload is set up; `IPTABLES`: redirected; `NONE`: the workload connects to the proxy itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    Default,
    Iptables,
    None,
}

/// What happens to traffic for unknown destinations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::cel(
    "!has(self.egressProxy) || (has(self.mode) && self.mode == 'ALLOW_ANY' && has(self.egressProxy.port))",
    "egressProxy needs a port, and mode ALLOW_ANY",
)]))]
pub struct SidecarOutbound {
    /// `ALLOW_ANY`: it goes where it wanted to; `REGISTRY_ONLY`: it is refused.
    pub mode: OutboundMode,
    /// It goes to this service in place of its destination.
    pub egress_proxy: Option<Destination>,
}
