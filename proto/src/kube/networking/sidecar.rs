//! Sidecar.

use serde::Deserialize;
use serde_json::Value;

use super::{gateway::Port, service_entry::WorkloadSelector};
use crate::{
    kube::{Kind, Resource},
    mesh::OutboundMode,
};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    pub workload_selector: Option<WorkloadSelector>,
    pub ingress: Vec<Value>,
    pub egress: Vec<EgressListener>,
    pub inbound_connection_pool: Option<Value>,
    pub outbound_traffic_policy: Option<SidecarOutbound>,
}

impl Resource for Sidecar {
    const KIND: Kind = Kind::Sidecar;
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    pub port: Option<Port>,
    pub bind: String,
    pub capture_mode: Option<CaptureMode>,
    pub hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    Default,
    Iptables,
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarOutbound {
    pub mode: OutboundMode,
    pub egress_proxy: Option<Value>,
}
