//! VirtualService: hosts, and where their HTTP, TLS and TCP traffic goes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{
    kube::{Kind, Resource, schema::rule},
    scalar::{Percent, Span},
};

mod matching;
mod treatment;

pub use matching::*;
pub use treatment::*;

/// Routes of hosts: which requests go where, and what happens to them on the way.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::at_least_one(&["http", "tls", "tcp"])]))]
pub struct VirtualService {
    /// The hosts that clients ask for: names with or without a wildcard as first label, short names of services, addresses.
    /// None: other VirtualServices delegate to this one.
    pub hosts: Vec<String>,
    /// Gateways (name or namespace/name) that serve these routes; `mesh` stands for all sidecars. None: the sidecars.
    pub gateways: Vec<String>,
    /// Routes of HTTP traffic; the first one that matches is taken.
    #[schemars(length(max = 4096))]
    pub http: Vec<HttpRoute>,
    /// Routes of TLS traffic that is not decrypted, by server name.
    #[schemars(length(max = 4096))]
    pub tls: Vec<TlsRoute>,
    /// Routes of traffic that is neither HTTP nor TLS.
    #[schemars(length(max = 4096))]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see this object: `.` (its own), `*` (all) or names. None: what the mesh's settings say.
    pub export_to: Vec<String>,
}

impl Resource for VirtualService {
    const KIND: Kind = Kind::VirtualService;
}

/// Requests that one of `match` describes, and what is done with them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = http_route_rules()),
    transform = mirror_percent_by_its_old_name
)]
pub struct HttpRoute {
    /// A name for logs and metrics.
    pub name: String,
    /// Descriptions of requests, of which one must fit. None: all requests.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Where requests go, by weight.
    #[schemars(length(max = 256))]
    pub route: Vec<HttpDestination>,
    /// Sends the client to another address.
    pub redirect: Option<Redirect>,
    /// Answers the request without a backend.
    pub direct_response: Option<DirectResponse>,
    /// Another VirtualService whose routes are taken here.
    pub delegate: Option<Delegate>,
    /// Changes path or host before the request is sent on.
    pub rewrite: Option<Rewrite>,
    /// The time until the answer must be there, retries included. None or 0s: no limit.
    pub timeout: Option<Span>,
    /// When and how often a failed request is tried again.
    pub retries: Option<Retry>,
    /// Delays and errors made on purpose, for tests.
    pub fault: Option<Fault>,
    /// Gets a copy of the requests; its answers are ignored.
    pub mirror: Option<Destination>,
    /// Several that get copies.
    pub mirrors: Vec<Mirror>,
    /// How many of the requests are copied to `mirror`.
    pub mirror_percentage: Option<PercentValue>,
    /// Deprecated: `mirrorPercentage`.
    #[serde(alias = "mirror_percent")]
    #[schemars(range(max = 100))]
    pub mirror_percent: Option<u32>,
    /// Which web pages of other origins may ask.
    pub cors_policy: Option<Cors>,
    /// Changes of headers.
    pub headers: Option<Headers>,
}

fn http_route_rules() -> serde_json::Value {
    json!([
        rule::cel(
            "(has(self.route) && size(self.route) > 0 ? 1 : 0) + (has(self.redirect) ? 1 : 0) \
             + (has(self.directResponse) ? 1 : 0) + (has(self.delegate) ? 1 : 0) == 1",
            "exactly one of route, redirect, directResponse or delegate must be set",
        ),
        rule::cel(
            "!((has(self.redirect) || has(self.directResponse)) && (has(self.rewrite) || has(self.fault)))",
            "rewrite and fault cannot stand beside redirect or directResponse, which send nothing on",
        ),
        rule::cel(
            "!(has(self.mirror) && has(self.mirrors) && size(self.mirrors) > 0)",
            "only one of mirror or mirrors can be set",
        ),
        some_weight(),
    ])
}

/// Where there is a choice, something must be chosen.
fn some_weight() -> serde_json::Value {
    rule::cel(
        "!has(self.route) || size(self.route) < 2 || self.route.exists(r, has(r.weight) && r.weight > 0)",
        "the weights of all destinations are 0; one must be greater",
    )
}

fn mirror_percent_by_its_old_name(schema: &mut schemars::Schema) {
    rule::also_named(schema, "mirrorPercent", "mirror_percent");
}

/// A service, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    /// The service's name; a short one is completed with the object's own namespace.
    pub host: String,
    /// A subset that the service's DestinationRule defines.
    pub subset: String,
    /// The service's port; can be left out when it has only one.
    pub port: Option<PortSelector>,
}

/// A port by its number.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// 1 to 65535.
    #[schemars(transform = rule::port)]
    pub number: u32,
}

/// One of several destinations of HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpDestination {
    /// Where the requests go.
    pub destination: Destination,
    /// Its share, in proportion to the weights of the others.
    #[schemars(range(max = 2_147_483_647))]
    pub weight: u32,
    /// Changes of headers for this destination only.
    pub headers: Option<Headers>,
}

/// One of several destinations of connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct WeightedDestination {
    /// Where the connections go.
    pub destination: Destination,
    /// Its share, in proportion to the weights of the others.
    #[schemars(range(max = 2_147_483_647))]
    pub weight: u32,
}

/// A VirtualService without hosts whose routes are used here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace. None: that of this object.
    pub namespace: String,
}

/// TLS connections that one of `match` describes, and where they go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["match", "route"], "x-kubernetes-validations" = [some_weight()]))]
pub struct TlsRoute {
    /// Descriptions of connections, of which one must fit.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where connections go, by weight.
    #[schemars(length(min = 1, max = 256))]
    pub route: Vec<WeightedDestination>,
}

/// What a TLS connection looks like; all that is said must fit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["sniHosts"]))]
pub struct TlsMatch {
    /// Server names that the client asks for, within the hosts of this object.
    pub sni_hosts: Vec<String>,
    /// Addresses or ranges that the client wanted to reach.
    pub destination_subnets: Vec<String>,
    /// The port that the client wanted to reach.
    #[schemars(transform = rule::port_or_none)]
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways for which this holds, in place of the object's.
    pub gateways: Vec<String>,
    /// The namespace of the client's workload.
    pub source_namespace: String,
}

/// Connections that one of `match` describes, and where they go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["route"], "x-kubernetes-validations" = [some_weight()]))]
pub struct TcpRoute {
    /// Descriptions of connections, of which one must fit. None: all connections.
    #[serde(rename = "match")]
    pub matches: Vec<TcpMatch>,
    /// Where connections go, by weight.
    #[schemars(length(min = 1, max = 256))]
    pub route: Vec<WeightedDestination>,
}

/// What a connection looks like; all that is said must fit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpMatch {
    /// Addresses or ranges that the client wanted to reach.
    pub destination_subnets: Vec<String>,
    /// The port that the client wanted to reach.
    #[schemars(transform = rule::port_or_none)]
    pub port: Option<u32>,
    /// Labels of the client's workload.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways for which this holds, in place of the object's.
    pub gateways: Vec<String>,
    /// The namespace of the client's workload.
    pub source_namespace: String,
    /// Never had an effect.
    pub source_subnet: String,
}

/// A percentage in its message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PercentValue {
    /// 0 to 100; decimals are possible.
    pub value: Percent,
}
