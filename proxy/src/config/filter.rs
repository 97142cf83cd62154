//! Filters: what runs on a request (or a connection) between the listener and the router. One variant per filter that
//! exists here; a filter that does not is refused by [`super::read`], unless its configuration says it is optional.

use std::{ops::Range, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

use super::{
    bucket::Bucket,
    jwt::JwtAuthn,
    matcher::{HeaderMatch, StringMatch},
    metadata::MetadataMatch,
    route::Mutation,
    scalar::Fraction,
};

#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// The name in the configuration; routes override a filter by it.
    pub name: Arc<str>,
    /// Only runs where a route switches it on.
    pub disabled: bool,
    pub kind: HttpFilterKind,
}

#[derive(Clone, Debug)]
pub enum HttpFilterKind {
    Fault(Arc<Fault>),
    Rbac(Arc<HttpRbac>),
    /// The policy is the route's.
    Cors,
    LocalRateLimit(Arc<LocalRateLimit>),
    HeaderMutation(Arc<[Mutation]>, Arc<[Mutation]>),
    Jwt(Arc<JwtAuthn>),
}

/// Overrides of filters on a route, by the filter's name. Mostly empty.
#[derive(Clone, Debug, Default)]
pub struct PerFilter(pub Vec<(Arc<str>, FilterOverride)>);

impl PerFilter {
    /// The override of the filter with this name.
    pub fn get(&self, name: &str) -> Option<&FilterOverride> {
        self.0
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| value)
    }
}

#[derive(Clone, Debug)]
pub enum FilterOverride {
    Disabled,
    /// Switched on with the filter's own configuration.
    Enabled,
    Fault(Arc<Fault>),
    Rbac(Arc<HttpRbac>),
    Cors(Arc<CorsPolicy>),
    LocalRateLimit(Arc<LocalRateLimit>),
    HeaderMutation(Arc<[Mutation]>, Arc<[Mutation]>),
    /// The filter's requirement of this name.
    Jwt(Box<str>),
}

/// Delays and errors made on purpose.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    /// Only for requests that match all of these.
    pub headers: Vec<HeaderMatch>,
    /// Only for requests to this cluster.
    pub cluster: Option<Arc<str>>,
    /// Upper bound of faults at a time.
    pub max_active: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// `None`: from the request header `x-envoy-fault-delay-request` (milliseconds).
    pub fixed: Option<Duration>,
    pub chance: Fraction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    pub with: AbortWith,
    pub chance: Fraction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortWith {
    Status(StatusCode),
    Grpc(u32),
    /// From `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request`.
    Header,
}

/// Role-based access: the rules that decide, and rules that are only counted.
#[derive(Clone, Debug, Default)]
pub struct HttpRbac {
    pub rules: Option<Rbac>,
    pub shadow: Option<Rbac>,
}

#[derive(Clone, Debug)]
pub struct NetworkRbac {
    pub stat_prefix: Arc<str>,
    pub rules: Option<Rbac>,
    pub shadow: Option<Rbac>,
    /// Check again after this time (`CONTINUOUS`); otherwise once, on the first byte.
    pub continuous: bool,
}

#[derive(Clone, Debug)]
pub struct Rbac {
    pub action: RbacAction,
    /// In the order of their names.
    pub policies: Vec<Policy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RbacAction {
    Allow,
    Deny,
    /// Allows all; a match is only noted.
    Log,
}

/// Matches when one permission and one principal match.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: Arc<str>,
    pub permissions: Vec<Permission>,
    pub principals: Vec<Principal>,
}

#[derive(Clone, Debug)]
pub enum Permission {
    Any,
    All(Vec<Permission>),
    AnyOf(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatch),
    Path(StringMatch),
    DestinationIp(IpNet),
    DestinationPort(u16),
    DestinationPorts(Range<u32>),
    ServerName(StringMatch),
    Metadata(MetadataMatch),
}

#[derive(Clone, Debug)]
pub enum Principal {
    Any,
    All(Vec<Principal>),
    AnyOf(Vec<Principal>),
    Not(Box<Principal>),
    /// The proven name of the peer: a URI SAN, else a DNS SAN, else the subject. `None`: any proven name.
    Authenticated(Option<StringMatch>),
    /// The peer of the connection.
    DirectRemoteIp(IpNet),
    /// The client, as found from `x-forwarded-for` or the PROXY protocol.
    RemoteIp(IpNet),
    Header(HeaderMatch),
    Path(StringMatch),
    Metadata(MetadataMatch),
}

/// Cross-origin requests.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    pub origins: Vec<StringMatch>,
    pub allow_methods: Option<HeaderValue>,
    pub allow_headers: Option<HeaderValue>,
    pub expose_headers: Option<HeaderValue>,
    pub max_age: Option<HeaderValue>,
    pub allow_credentials: bool,
    pub allow_private_network: bool,
    /// Preflights of other origins go to the upstream.
    pub forward_unmatched_preflights: bool,
    pub enabled: Fraction,
}

/// A token bucket of this proxy alone.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// Its numbers are `<stat prefix>.http_local_rate_limit.*`.
    pub stat_prefix: Arc<str>,
    pub status: StatusCode,
    /// Shared by all workers. `None`: no limit.
    pub bucket: Option<Bucket>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    /// Added to a request that goes on because the limit is not enforced for it.
    pub unenforced: Arc<[Mutation]>,
    /// Added to the refusal.
    pub response: Arc<[Mutation]>,
    /// Tell callers what is left (`x-ratelimit-*`).
    pub tell: bool,
    /// Tell refused callers when to come again (`retry-after`).
    pub retry_after: bool,
    /// gRPC callers get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    pub max: u32,
    pub per_fill: u32,
    pub interval: Duration,
}
