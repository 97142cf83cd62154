//! DestinationRule: how connections to a service are made, once a route has chosen it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::PortSelector;
use crate::{
    kube::{Kind, Resource, schema::rule, security::LabelSelector},
    scalar::{Percent, Span},
};

mod balancer;
mod pool;
mod tls;

pub use balancer::*;
pub use pool::*;
pub use tls::*;

/// Settings for connections to a host, and names for parts of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct DestinationRule {
    /// The service's name, with or without a wildcard as first label; a short one is completed with the object's own namespace.
    #[schemars(length(min = 1))]
    pub host: String,
    /// What holds for all of the host's ports and subsets.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the host's workloads, for routes to choose.
    pub subsets: Vec<Subset>,
    /// Namespaces that see this object: `.` (its own), `*` (all) or names. None: what the mesh's settings say.
    pub export_to: Vec<String>,
    /// The clients, by labels of their workloads, for which this holds. None: all.
    pub workload_selector: Option<LabelSelector>,
}

impl Resource for DestinationRule {
    const KIND: Kind = Kind::DestinationRule;
}

/// A part of the host's workloads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Subset {
    /// What routes call it.
    pub name: String,
    /// Labels that its workloads have. None: all workloads.
    pub labels: BTreeMap<String, String>,
    /// What holds for this subset, in place of what holds for the host.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How connections are made, balanced and given up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint that fails is left alone for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Encryption towards the destination.
    pub tls: Option<ClientTls>,
    /// What holds for single ports; nothing of the policy above holds for those.
    #[schemars(length(max = 4096))]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Sends TCP connections through an HTTP proxy, to which the destination leads.
    pub tunnel: Option<Tunnel>,
    /// Tells the destination the client's address before anything else is sent.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Bounds retries as a share of the requests under way.
    pub retry_budget: Option<RetryBudget>,
}

/// As the policy of all ports, for one of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The service's port.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests there may be.
    pub connection_pool: Option<ConnectionPool>,
    /// When an endpoint that fails is left alone for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Encryption towards the destination.
    pub tls: Option<ClientTls>,
}

impl PortTrafficPolicy {
    /// As a policy for all ports, so that both are read by the same code.
    pub fn as_policy(&self) -> TrafficPolicy {
        TrafficPolicy {
            load_balancer: self.load_balancer.clone(),
            connection_pool: self.connection_pool.clone(),
            outlier_detection: self.outlier_detection.clone(),
            tls: self.tls.clone(),
            ..TrafficPolicy::default()
        }
    }
}

/// An HTTP proxy on the way.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["targetHost", "targetPort"]))]
pub struct Tunnel {
    /// The method that opens the tunnel: `CONNECT` (the default) or `POST`.
    #[schemars(extend("enum" = ["", "CONNECT", "POST"]))]
    pub protocol: String,
    /// Where the tunnel leads to: a host or an address.
    pub target_host: String,
    /// Its port.
    #[schemars(transform = rule::port)]
    pub target_port: u32,
}

/// The PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// The form of the header: `V1` is text, `V2` is binary.
    pub version: ProxyProtocolVersion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    #[default]
    V1,
    V2,
}

/// How many retries there may be at a time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// The share of requests under way that may be retries. None: 20.
    pub percent: Option<Percent>,
    /// So many are always possible. None: 3.
    pub min_retry_concurrency: Option<u32>,
    /// The time over which requests are counted. None: those under way.
    pub budget_interval: Option<Span>,
}

/// When an endpoint that fails is left alone for a while.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated: `consecutive5xxErrors`.
    pub consecutive_errors: Option<u32>,
    /// Counts failures before an answer (such as refused connections) apart from errors that the endpoint answered.
    pub split_external_local_origin_errors: bool,
    /// Failures without an answer, in a row, that put the endpoint out; counts only with `splitExternalLocalOriginErrors`.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Answers 502, 503 and 504 in a row that put the endpoint out. 0: never.
    pub consecutive_gateway_errors: Option<u32>,
    /// Answers 5xx in a row that put the endpoint out. None: 5; 0: never.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Statuses that count as errors, in place of all 5xx.
    #[schemars(inner(range(min = 100, max = 599)))]
    pub outlier_detection_http_error_codes: Vec<u32>,
    /// How often endpoints are looked at. None: every 10s.
    #[schemars(transform = rule::positive)]
    pub interval: Option<Span>,
    /// How long an endpoint is out, times how often it has been. None: 30s.
    #[schemars(transform = rule::positive)]
    pub base_ejection_time: Option<Span>,
    /// The share of endpoints that may be out at a time. None: 10.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i64>,
    /// Below this share of healthy endpoints all of them are used. None: 0.
    #[schemars(range(min = 0, max = 100))]
    pub min_health_percent: Option<i64>,
}
