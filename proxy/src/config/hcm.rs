//! The HTTP connection manager: how HTTP is spoken with the downstream and what happens to each request before routing.
//! See <https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto>.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::{
    filter::HttpFilter,
    log::AccessLog,
    route::RouteConfig,
    scalar::{Fraction, Http2},
};

#[derive(Clone, Debug)]
pub struct Hcm {
    pub stat_prefix: Arc<str>,
    pub codec: Codec,
    pub routes: RouteSource,
    /// In order; the router comes after them and is not among them.
    pub filters: Vec<HttpFilter>,
    pub router: Router,
    pub access_log: Vec<Arc<AccessLog>>,
    /// A log line at this interval during a request.
    pub log_interval: Option<Duration>,
    pub tracing: Option<Tracing>,
    pub upgrades: Vec<Upgrade>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub address: ClientAddress,
    /// Clients here are internal; nobody, if there are none.
    pub internal: Box<[ipnet::IpNet]>,
    pub client_cert: ClientCert,
    pub path: PathRules,
    pub authority: AuthorityRules,
    pub headers: HeaderRules,
    pub http1: Http1,
    pub http2: Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Debug)]
pub enum RouteSource {
    Inline(Arc<RouteConfig>),
    /// The name of a route configuration that comes by RDS.
    Rds(Arc<str>),
}

/// Options of the router filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// Do not add `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Lower-cased, such as `websocket`.
    pub protocol: Box<str>,
    pub enabled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection without a request. `None` is for ever, here and below.
    pub idle: Option<Duration>,
    /// A request without a byte in either direction.
    pub stream_idle: Option<Duration>,
    /// The whole request until its last byte has arrived.
    pub request: Option<Duration>,
    pub request_headers: Option<Duration>,
    pub max_connection: Option<Duration>,
    pub max_stream: Option<Duration>,
    /// Between the two GOAWAYs, or between `connection: close` and the end.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(3600)),
            stream_idle: Some(Duration::from_secs(300)),
            request: None,
            request_headers: None,
            max_connection: None,
            max_stream: None,
            drain: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_request_headers_bytes: usize,
    pub max_headers_count: usize,
    pub max_requests_per_connection: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_headers_bytes: 60 << 10,
            max_headers_count: 100,
            max_requests_per_connection: None,
        }
    }
}

/// How the client's address is found, and what is told to the upstream of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    /// The connection's peer is the client; append it to `x-forwarded-for`.
    pub use_remote: bool,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub append_forwarded_port: bool,
}

/// What becomes of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCert {
    pub forward: ForwardClientCert,
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// What to do with `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorityRules {
    pub strip_port: StripPort,
    pub strip_trailing_dot: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StripPort {
    #[default]
    No,
    /// If it is the listener's own port.
    Matching,
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRules {
    /// Written to `server` as `server_transformation` says.
    pub server_name: HeaderValue,
    pub server_transformation: ServerHeader,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub request_id_in_response: bool,
    /// Appended to `via`.
    pub via: Option<HeaderValue>,
    pub add_user_agent: bool,
    /// Set `x-forwarded-proto` and the scheme to this.
    pub scheme: Option<Scheme>,
    pub underscores: Underscores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    /// As the upstream's transport is.
    MatchUpstream,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// What to do with header names that contain `_`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Underscores {
    #[default]
    Allow,
    RejectRequest,
    DropHeader,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http1 {
    pub accept_http_10: bool,
    /// Keep the case of header names as the sender wrote them.
    pub preserve_case: bool,
    /// Write header names in Proper-Case.
    pub proper_case: bool,
    pub enable_trailers: bool,
}

#[derive(Clone, Debug)]
pub struct Tracing {
    pub provider: TracingProvider,
    /// For requests with `x-client-trace-id`.
    pub client: Fraction,
    /// For requests that bring no decision of their own.
    pub random: Fraction,
    /// Upper bound over the two.
    pub overall: Fraction,
    pub max_path_length: usize,
    pub tags: Vec<Tag>,
    pub spawn_upstream_span: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TracingProvider {
    /// None named: trace headers pass and are made, spans go nowhere.
    None,
    /// OTLP over gRPC to this cluster.
    OpenTelemetry { cluster: Arc<str>, service: Arc<str> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: Box<str>,
    pub value: TagValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    Literal(Box<str>),
    RequestHeader {
        name: HeaderName,
        default: Box<str>,
    },
    /// Of the proxy's process, with a default.
    Environment {
        name: Box<str>,
        default: Box<str>,
    },
}
