//! How many connections and requests there may be towards a destination, or into a workload.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{kube::schema::rule, scalar::Span};

/// Bounds of connections and requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("anyOf" = rule::any_of(&["tcp", "http"])))]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: Option<TcpPool>,
    /// Of HTTP requests.
    pub http: Option<HttpPool>,
}

/// Bounds of connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// So many at a time, of each proxy. None or 0: no bound.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_connections: Option<i64>,
    /// Until a connection must be there. None: what the mesh's settings say.
    #[schemars(transform = rule::positive)]
    pub connect_timeout: Option<Span>,
    /// Looks after idle connections by the kernel's means.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How long a connection may live.
    #[schemars(transform = rule::positive)]
    pub max_connection_duration: Option<Span>,
    /// How long a connection may carry nothing. None: 1h; 0s: forever.
    pub idle_timeout: Option<Span>,
}

/// Probes of the kernel on idle connections; what is not said is the system's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// So many without an answer mean that the connection is dead.
    pub probes: Option<u32>,
    /// The first one comes after so long.
    #[schemars(transform = rule::positive)]
    pub time: Option<Span>,
    /// Between two of them.
    #[schemars(transform = rule::positive)]
    pub interval: Option<Span>,
}

/// Bounds of HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("not" = {
    "required": ["useClientProtocol", "h2UpgradePolicy"],
    "properties": {"useClientProtocol": {"enum": [true]}, "h2UpgradePolicy": {"enum": ["UPGRADE"]}},
}))]
pub struct HttpPool {
    /// Requests that may wait for a connection. None or 0: no bound.
    #[serde(rename = "http1MaxPendingRequests")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub http1_max_pending_requests: Option<i64>,
    /// Requests at a time. None or 0: no bound.
    #[serde(rename = "http2MaxRequests")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub http2_max_requests: Option<i64>,
    /// Requests of one connection, one after another. None or 0: no bound; 1: no keep-alive.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_requests_per_connection: Option<i64>,
    /// Retries at a time. None or 0: no bound.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_retries: Option<i64>,
    /// How long a connection may be without a request. None: 1h.
    #[schemars(transform = rule::positive)]
    pub idle_timeout: Option<Span>,
    /// HTTP/1.1 requests are sent as HTTP/2.
    pub h2_upgrade_policy: Option<H2Upgrade>,
    /// Requests are sent in the protocol in which the client asked.
    pub use_client_protocol: bool,
    /// Requests at a time on one HTTP/2 connection.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_concurrent_streams: Option<i64>,
    /// Looks after idle HTTP/2 connections by pings.
    #[serde(rename = "http2KeepAlive")]
    pub http2_keep_alive: Option<Http2Keepalive>,
}

/// Pings on HTTP/2 connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2Keepalive {
    /// Between two of them.
    #[schemars(transform = rule::positive)]
    pub interval: Option<Span>,
    /// A ping that is not answered for so long means that the connection is dead.
    #[schemars(transform = rule::positive)]
    pub timeout: Option<Span>,
}

/// `DEFAULT`: as the mesh's settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2Upgrade {
    Default,
    DoNotUpgrade,
    Upgrade,
}
