//! What a VirtualService says: which requests go where, and what happens to them on the way.

use std::{collections::BTreeMap, time::Duration};

use super::{GatewayRef, Host, Key, Labels, Origin, Percent, StringMatch, ValueMatch, Visibility};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualService {
    pub origin: Origin,
    /// Resolved, no host twice. Empty in one that others delegate to: by itself it does nothing.
    pub hosts: Vec<Host>,
    /// Without `gateways` it is the mesh; empty where there are no hosts.
    pub gateways: Vec<GatewayRef>,
    pub visibility: Visibility,
    /// In order: the first that matches counts.
    pub http: Vec<HttpRoute>,
    pub tls: Vec<TlsRoute>,
    pub tcp: Vec<TcpRoute>,
}

impl VirtualService {
    /// Does it speak of sidecars' own traffic?
    pub fn applies_to_mesh(&self) -> bool {
        self.gateways.contains(&GatewayRef::Mesh)
    }

    /// Every destination, of every protocol.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let http = self.http.iter().flat_map(HttpRoute::destinations);
        let tls = self.tls.iter().flat_map(|route| &route.destinations);
        let tcp = self.tcp.iter().flat_map(|route| &route.destinations);
        http.chain(tls.chain(tcp).map(|weighted| &weighted.destination))
    }
}

/// Where to: a service (full name), perhaps one of its subsets, perhaps one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    pub host: Host,
    pub subset: Option<String>,
    /// `None`: the port the request came for, or the service's only port.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRoute {
    /// Empty when unnamed.
    pub name: String,
    /// The VirtualService that it was taken from by delegation.
    pub delegate: Option<Origin>,
    /// One of them must match; empty matches everything.
    pub matches: Vec<HttpMatch>,
    pub action: HttpAction,
    pub timeout: Option<Duration>,
    /// `None`: the mesh's default.
    pub retries: Option<Retries>,
    pub fault: Option<Fault>,
    pub mirrors: Vec<Mirror>,
    pub cors: Option<Cors>,
    pub headers: HeaderChanges,
}

impl HttpRoute {
    /// Destinations of the route and of its mirrors.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let routed = match &self.action {
            HttpAction::Forward { destinations, .. } => destinations.as_slice(),
            _ => &[],
        };
        routed
            .iter()
            .map(|weighted| &weighted.destination)
            .chain(self.mirrors.iter().map(|mirror| &mirror.destination))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HttpAction {
    /// Never empty; weights are as written, and a single destination may have weight 0 (meaning all).
    Forward {
        destinations: Vec<HttpDestination>,
        rewrite: Option<Rewrite>,
    },
    Redirect(Redirect),
    Respond(DirectResponse),
    /// The routes of another VirtualService stand here; never in a snapshot (see `snapshot::delegate`).
    Delegate {
        to: Key,
        rewrite: Option<Rewrite>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpDestination {
    pub destination: Destination,
    pub weight: u32,
    pub headers: HeaderChanges,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    pub name: String,
    /// Stock Envoys count the requests under this name; empty: they do not.
    pub stat_prefix: String,
    pub uri: Option<StringMatch>,
    /// Only `Exact` and `Prefix` of `uri` can ignore case.
    pub ignore_uri_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    /// Names in lower case.
    pub headers: BTreeMap<String, ValueMatch>,
    /// None of these may match.
    pub without_headers: BTreeMap<String, ValueMatch>,
    pub query: BTreeMap<String, ValueMatch>,
    /// The port the request came for.
    pub port: Option<u16>,
    /// Only for proxies whose workload has these labels; for the mesh's gateway only.
    pub source_labels: Labels,
    pub source_namespace: Option<String>,
    /// Narrower than the VirtualService's; empty: all of those.
    pub gateways: Vec<GatewayRef>,
}

impl HttpMatch {
    /// Does it take every request that comes for the port (given gateways and sources)?
    pub fn takes_any_request(&self) -> bool {
        let any_uri = match &self.uri {
            None => true,
            Some(StringMatch::Prefix(prefix)) => prefix == "/",
            Some(StringMatch::Regex(regex)) => regex == ".*" || regex == "/.*",
            Some(StringMatch::Exact(_)) => false,
        };
        any_uri
            && self.scheme.is_none()
            && self.method.is_none()
            && self.authority.is_none()
            && self.headers.is_empty()
            && self.without_headers.is_empty()
            && self.query.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// Replaces the matched prefix, or the whole path of an exact match.
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub uri_regex: Option<RegexRewrite>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegexRewrite {
    pub pattern: String,
    /// With `\1` for the first group.
    pub replacement: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redirect {
    pub uri: Option<String>,
    /// Replaces only the matched prefix.
    pub uri_prefix: Option<String>,
    pub authority: Option<String>,
    pub port: Option<RedirectPort>,
    pub scheme: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedirectPort {
    Number(u16),
    /// The usual port of the protocol.
    FromProtocol,
    /// The port the request came for.
    FromRequest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// 0 switches retries off.
    pub attempts: u32,
    pub per_try_timeout: Option<Duration>,
    pub backoff: Option<Duration>,
    /// Envoy's names of conditions (`connect-failure`, `5xx`, …); empty: the mesh's default.
    pub on: Vec<String>,
    /// Status codes from `retryOn`.
    pub statuses: Vec<u16>,
    pub retry_remote_localities: bool,
    pub ignore_previous_hosts: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delay {
    pub duration: Duration,
    pub percent: Percent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Abort {
    pub status: AbortStatus,
    pub percent: Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortStatus {
    Http(u16),
    /// The number of the gRPC status.
    Grpc(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    pub destination: Destination,
    pub percent: Percent,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cors {
    pub origins: Vec<StringMatch>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub max_age: Option<Duration>,
    pub credentials: Option<bool>,
    /// `unmatchedPreflights: IGNORE` answers them here instead of passing them on.
    pub forward_unmatched: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    pub request: HeaderOperations,
    pub response: HeaderOperations,
}

impl HeaderChanges {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderOperations {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsRoute {
    /// One of them must match; never empty.
    pub matches: Vec<TlsMatch>,
    /// Never empty.
    pub destinations: Vec<WeightedDestination>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsMatch {
    /// Server names; never empty.
    pub sni_hosts: Vec<Host>,
    pub destination_subnets: Vec<ipnet::IpNet>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Option<String>,
    pub gateways: Vec<GatewayRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpRoute {
    /// One of them must match; empty matches everything.
    pub matches: Vec<TcpMatch>,
    pub destinations: Vec<WeightedDestination>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpMatch {
    pub destination_subnets: Vec<ipnet::IpNet>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Option<String>,
    pub gateways: Vec<GatewayRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedDestination {
    pub destination: Destination,
    pub weight: u32,
}
