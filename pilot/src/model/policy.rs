//! What a DestinationRule says: how a client's proxy treats a destination.

use std::time::Duration;

use super::{Host, Labels, Origin, Percent, Selector, Visibility, endpoint::Locality};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DestinationPolicy {
    pub origin: Origin,
    pub host: Host,
    pub visibility: Visibility,
    /// Only for clients of its namespace with these labels.
    pub selector: Option<Selector>,
    pub policy: TrafficPolicy,
    pub subsets: Vec<Subset>,
}

impl DestinationPolicy {
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// What counts for one port and one subset: subset's port, subset, rule's port, rule, each setting on its own.
    pub fn effective(&self, port: u16, subset: Option<&str>) -> PortPolicy {
        let rule = self.policy.for_port(port);
        match subset.and_then(|name| self.subset(name)) {
            Some(subset) => subset.policy.for_port(port).or(&rule),
            None => rule,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subset {
    pub name: String,
    pub labels: Labels,
    pub policy: TrafficPolicy,
}

/// Settings for all ports, and those of single ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficPolicy {
    pub all: PortPolicy,
    /// A port's settings replace `all` as a whole, as in Istio: what they leave out has its default.
    pub ports: Vec<(u16, PortPolicy)>,
}

impl TrafficPolicy {
    pub fn for_port(&self, port: u16) -> PortPolicy {
        self.ports
            .iter()
            .find(|(number, _)| *number == port)
            .map_or(&self.all, |(_, policy)| policy)
            .clone()
    }
}

/// `None` everywhere means: not said here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortPolicy {
    pub balancer: Option<Balancer>,
    pub pool: Option<ConnectionPool>,
    pub outliers: Option<Outliers>,
    pub tls: Option<ClientTls>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub retry_budget: Option<RetryBudget>,
    pub tunnel: Option<Tunnel>,
}

impl PortPolicy {
    /// These settings, and `other`'s where nothing is said.
    pub fn or(self, other: &Self) -> Self {
        Self {
            balancer: self.balancer.or_else(|| other.balancer.clone()),
            pool: self.pool.or_else(|| other.pool.clone()),
            outliers: self.outliers.or_else(|| other.outliers.clone()),
            tls: self.tls.or_else(|| other.tls.clone()),
            proxy_protocol: self.proxy_protocol.or(other.proxy_protocol),
            retry_budget: self.retry_budget.or_else(|| other.retry_budget.clone()),
            tunnel: self.tunnel.or_else(|| other.tunnel.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// How many retries there may be, as a share of the requests under way; instead of a fixed number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    pub percent: Option<Percent>,
    pub min_concurrency: Option<u32>,
    /// Requests that began so long ago count, instead of those under way.
    pub interval: Option<Duration>,
}

/// TCP goes through an HTTP proxy, which is the destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// By POST instead of CONNECT.
    pub post: bool,
    /// Where it leads to: `host:port`.
    pub target: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Balancer {
    pub algorithm: Algorithm,
    pub locality: Option<LocalityBalancing>,
    pub warmup: Option<Warmup>,
}

/// How a new endpoint's share grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Warmup {
    pub duration: Duration,
    /// Of its share, at first.
    pub least: Option<Percent>,
    /// In thousandths.
    pub aggression: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    RoundRobin,
    /// Istio's default too.
    #[default]
    LeastRequest,
    Random,
    /// To the address that the client wanted.
    Passthrough,
    Hash {
        on: HashKey,
        table: HashTable,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    Header(String),
    Cookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<(String, String)>,
    },
    SourceIp,
    Query(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashTable {
    Ring { minimum: u64 },
    Maglev { size: u64 },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalityBalancing {
    pub enabled: bool,
    /// From a locality, the weights of localities.
    pub distribute: Vec<(Locality, Vec<(Locality, u32)>)>,
    /// From a region to a region.
    pub failover: Vec<(String, String)>,
    /// Labels that an endpoint shares with the client, most important first.
    pub failover_priority: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionPool {
    pub max_connections: Option<u32>,
    pub connect_timeout: Option<Duration>,
    pub keepalive: Option<Keepalive>,
    pub max_connection_duration: Option<Duration>,
    pub tcp_idle_timeout: Option<Duration>,
    pub max_pending: Option<u32>,
    pub max_requests: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub max_retries: Option<u32>,
    pub http_idle_timeout: Option<Duration>,
    pub h2_upgrade: Option<bool>,
    pub use_client_protocol: bool,
    pub max_concurrent_streams: Option<u32>,
    pub http2_keepalive: Option<Pings>,
}

/// Pings on HTTP/2 connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pings {
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outliers {
    /// `None`: 5, as Envoy. `Some(0)`: off.
    pub consecutive_5xx: Option<u32>,
    pub consecutive_gateway_errors: Option<u32>,
    pub split_local_origin: bool,
    pub consecutive_local_origin_failures: Option<u32>,
    pub interval: Option<Duration>,
    pub base_ejection_time: Option<Duration>,
    pub max_ejection_percent: Option<Percent>,
    pub min_health_percent: Option<Percent>,
    /// Statuses that are errors, instead of all from 500; empty: not said.
    pub http_errors: Vec<u32>,
}

/// How the client's proxy speaks TLS to the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    /// A Secret of the client's namespace, for gateways and selected sidecars.
    pub credential: Option<String>,
    pub certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
    pub ca_crl: Option<String>,
    pub subject_alt_names: Vec<String>,
    pub sni: Option<String>,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientTlsMode {
    #[default]
    Disable,
    /// TLS, the server is verified.
    Simple,
    /// TLS with a certificate of the user's.
    Mutual,
    /// TLS with the mesh's certificate.
    MeshMutual,
}
