//! EnvoyFilter: changes of what is generated for Envoy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::workload::WorkloadSelector;
use crate::kube::{
    Kind, Resource,
    reference::TargetRef,
    schema::{Struct, rule},
};

/// Changes of the configuration that proxies get.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::at_most_one(&["workloadSelector", "targetRefs"])]))]
pub struct EnvoyFilter {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub workload_selector: Option<WorkloadSelector>,
    /// Gateways or services of waypoints, in place of `workloadSelector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// The changes, in their order.
    pub config_patches: Vec<EnvoyPatch>,
    /// Objects with a lower priority come first. None: 0.
    pub priority: i32,
}

impl Resource for EnvoyFilter {
    const KIND: Kind = Kind::EnvoyFilter;
}

/// A change.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyPatch {
    /// What is changed.
    pub apply_to: ApplyTo,
    /// Which of these.
    #[serde(rename = "match")]
    pub matches: Option<EnvoyMatch>,
    /// How.
    pub patch: Option<Patch>,
}

/// What is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ApplyTo {
    #[default]
    Invalid,
    Listener,
    FilterChain,
    NetworkFilter,
    HttpFilter,
    RouteConfiguration,
    VirtualHost,
    HttpRoute,
    Cluster,
    ExtensionConfig,
    Bootstrap,
    ListenerFilter,
}

/// Where a change applies; all that is said must fit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "oneOf" = rule::one_of(&["listener", "routeConfiguration", "cluster", "waypoint"]),
    "x-kubernetes-validations" = [rule::cel(
        "(has(self.context) && self.context == 'WAYPOINT') == has(self.waypoint)",
        "context WAYPOINT and waypoint go together",
    )]
))]
pub struct EnvoyMatch {
    /// Which side of which proxy.
    pub context: Option<PatchContext>,
    /// Which proxies.
    pub proxy: Option<ProxyMatch>,
    /// Which listeners.
    pub listener: Option<ListenerMatch>,
    /// Which routes.
    pub route_configuration: Option<RouteConfigurationMatch>,
    /// Which clusters.
    pub cluster: Option<ClusterMatch>,
    /// Which parts of a waypoint.
    pub waypoint: Option<WaypointMatch>,
}

/// Which side of which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PatchContext {
    Any,
    SidecarInbound,
    SidecarOutbound,
    Gateway,
    Waypoint,
}

/// Which proxies.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyMatch {
    /// A regular expression (RE2 syntax) for the proxy's version.
    pub proxy_version: String,
    /// Metadata that the proxy's node has.
    pub metadata: BTreeMap<String, String>,
}

/// Which listeners.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerMatch {
    /// The service's or the gateway's port.
    #[schemars(transform = rule::port_or_none)]
    pub port_number: u32,
    /// The name of that port.
    pub port_name: String,
    /// A chain in the listener.
    pub filter_chain: Option<FilterChainMatch>,
    /// The name of a listener filter.
    pub listener_filter: String,
    /// The listener's name.
    pub name: String,
}

/// Which filter chains.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterChainMatch {
    /// The chain's name.
    pub name: String,
    /// The server name that it matches.
    pub sni: String,
    /// The transport protocol that it matches.
    pub transport_protocol: String,
    /// The application protocols that it matches, with commas between them.
    pub application_protocols: String,
    /// A filter in the chain.
    pub filter: Option<FilterMatch>,
    /// The port that it matches.
    #[schemars(transform = rule::port_or_none)]
    pub destination_port: u32,
    /// The name of its transport socket.
    pub transport_socket: String,
}

/// Which filters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterMatch {
    /// The filter's name.
    pub name: String,
    /// An HTTP filter in it.
    pub sub_filter: Option<NameMatch>,
}

/// By name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NameMatch {
    /// The name.
    pub name: String,
}

/// Which routes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteConfigurationMatch {
    /// The service's or the gateway's port.
    #[schemars(transform = rule::port_or_none)]
    pub port_number: u32,
    /// The name of that port, at a gateway.
    pub port_name: String,
    /// The gateway, as namespace/name.
    pub gateway: String,
    /// A virtual host in the route configuration.
    pub vhost: Option<VirtualHostMatch>,
    /// The route configuration's name.
    pub name: String,
}

/// Which virtual hosts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualHostMatch {
    /// The virtual host's name, as host:port.
    pub name: String,
    /// One of its domains.
    pub domain_name: String,
    /// A route in it.
    pub route: Option<RouteMatch>,
}

/// Which routes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteMatch {
    /// The route's name.
    pub name: String,
    /// What the route does.
    pub action: Option<RouteActionMatch>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RouteActionMatch {
    Any,
    Route,
    Redirect,
    DirectResponse,
}

/// Which clusters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterMatch {
    /// The service's port.
    #[schemars(transform = rule::port_or_none)]
    pub port_number: u32,
    /// The service's full name.
    pub service: String,
    /// The service's subset.
    pub subset: String,
    /// The cluster's name.
    pub name: String,
}

/// Which parts of a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaypointMatch {
    /// The service's port.
    #[schemars(transform = rule::port)]
    pub port_number: Option<u32>,
    /// A filter.
    pub filter: Option<FilterMatch>,
    /// A route.
    pub route: Option<NameMatch>,
}

/// How something is changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Patch {
    /// What is done.
    pub operation: PatchOperation,
    /// What is added or merged, in Envoy's JSON mapping.
    pub value: Option<Struct>,
    /// Where an added filter goes.
    pub filter_class: Option<FilterClass>,
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PatchOperation {
    #[default]
    Invalid,
    Merge,
    Add,
    Remove,
    InsertBefore,
    InsertAfter,
    InsertFirst,
    Replace,
    MergeAndReplaceList,
}

/// Before which of the mesh's own filters an added one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FilterClass {
    Unspecified,
    Authn,
    Authz,
    Stats,
}
