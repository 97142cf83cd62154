//! How an endpoint is chosen among those of a destination.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    kube::schema::{number, rule},
    scalar::Span,
};

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "oneOf" = rule::one_of(&["simple", "consistentHash", "backendUtilization"]),
    "not" = rule::both("localityLbSetting", "zoneAwareLbSetting")
))]
pub struct LoadBalancer {
    /// An algorithm without settings.
    pub simple: Option<SimpleBalancer>,
    /// The same endpoint for requests that are alike in something.
    pub consistent_hash: Option<ConsistentHash>,
    /// By the load that endpoints report about themselves.
    pub backend_utilization: Option<BackendUtilization>,
    /// How much goes to which locality.
    pub locality_lb_setting: Option<LocalityBalancer>,
    /// Keeps traffic in the client's zone as far as the zone can carry it.
    pub zone_aware_lb_setting: Option<ZoneAwareBalancer>,
    /// Gives new endpoints little at first.
    pub warmup: Option<Warmup>,
    /// Deprecated: `warmup.duration`.
    #[schemars(transform = rule::positive)]
    pub warmup_duration_secs: Option<Span>,
}

/// How much a new endpoint gets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["duration"]))]
pub struct Warmup {
    /// Until it gets its full share.
    #[schemars(transform = rule::positive)]
    pub duration: Option<Span>,
    /// What it gets at first, as a percentage of its share. None: 10.
    #[schemars(range(min = 0, max = 100))]
    pub minimum_percent: Option<f64>,
    /// How the share grows: 1 (the default) evenly, more: slowly at first.
    #[schemars(range(min = 0))]
    pub aggression: Option<f64>,
}

/// `LEAST_CONN` is a deprecated name of `LEAST_REQUEST`; `PASSTHROUGH` goes where the client wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    Unspecified,
    RoundRobin,
    LeastRequest,
    LeastConn,
    Random,
    Passthrough,
}

/// What makes requests alike, and how they are mapped to endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("allOf" = [
    {"oneOf": rule::one_of(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"])},
    {"oneOf": rule::one_of(&["ringHash", "maglev"])},
]))]
pub struct ConsistentHash {
    /// The value of this header.
    pub http_header_name: Option<String>,
    /// The value of a cookie, which is set when the client has none.
    pub http_cookie: Option<HashCookie>,
    /// The client's address.
    pub use_source_ip: Option<bool>,
    /// The value of this query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Maps by a ring.
    pub ring_hash: Option<RingHash>,
    /// Maps by Maglev's table.
    pub maglev: Option<Maglev>,
    /// Deprecated: `ringHash.minimumRingSize`.
    #[serde(deserialize_with = "number::optional_u64")]
    pub minimum_ring_size: Option<u64>,
}

/// A cookie that keeps a client with its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct HashCookie {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long the client keeps it; 0s: until the browser ends. None: the cookie is never set, only read.
    pub ttl: Option<Span>,
    /// What else is said when the cookie is set, such as `SameSite`.
    #[schemars(length(max = 64))]
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct CookieAttribute {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Its value. None: the name alone.
    pub value: String,
}

/// A ring on which endpoints have many places.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// The least number of places. None: 1024.
    #[serde(deserialize_with = "number::optional_u64")]
    pub minimum_ring_size: Option<u64>,
}

/// Maglev's table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// Its size, a prime number. None: 65537.
    #[serde(deserialize_with = "number::optional_u64")]
    pub table_size: Option<u64>,
}

/// Weights by the load that endpoints report in their answers (ORCA).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendUtilization {
    /// How much answers with errors count as load, in percent.
    pub error_utilization_penalty_percent: Option<u32>,
    /// Names of the reported metrics that make up the load.
    pub metric_names_for_computing_utilization: Vec<String>,
    /// A weight is forgotten when the endpoint has not reported for so long.
    pub weight_expiration_period: Option<Span>,
    /// A new endpoint's reports count after so long.
    pub weight_stabilization_period: Option<Span>,
    /// How often weights are computed.
    pub weight_update_period: Option<Span>,
}

/// How much goes to which locality.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityBalancer {
    /// Shares of localities, by that of the client.
    pub distribute: Vec<Distribute>,
    /// Where a region's traffic goes when the region has no healthy endpoint.
    pub failover: Vec<Failover>,
    /// Labels that endpoints should have in common with the client, the most important one first.
    pub failover_priority: Vec<String>,
    /// false: localities do not count here.
    pub enabled: Option<bool>,
}

/// Shares of localities.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribute {
    /// The client's locality, as region/zone/subzone; `*` stands for any.
    pub from: String,
    /// Percentages by locality; they add up to 100.
    pub to: BTreeMap<String, u32>,
}

/// From region to region.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// The client's region.
    pub from: String,
    /// The region that takes its traffic.
    pub to: String,
}

/// Keeps traffic in the client's zone as far as the zone can carry it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareBalancer {
    /// false: zones do not count here.
    pub enabled: Option<bool>,
    /// Where a region's traffic goes when the region has no healthy endpoint.
    pub failover: Vec<Failover>,
    /// Labels that endpoints should have in common with the client, the most important one first.
    pub failover_priority: Vec<String>,
    /// With fewer endpoints than these, zones do not count. None: 6.
    #[serde(deserialize_with = "number::optional_u64")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub min_cluster_size: Option<u64>,
}
