//! A cluster: a named group of endpoints and how to speak to them.
//! See <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto>.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{
    endpoint::Assignment,
    scalar::{Http2, Keepalive, Object},
    transport::UpstreamTls,
};

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: Arc<str>,
    pub kind: Kind,
    pub balance: Balance,
    /// New hosts get their share little by little.
    pub slow_start: Option<SlowStart>,
    pub connect_timeout: Duration,
    /// Inline endpoints; empty for EDS and original destination.
    pub assignment: Arc<Assignment>,
    pub breakers: Breakers,
    pub outlier: Option<Outlier>,
    /// TLS to endpoints that no row of `transport_matches` takes; `None` is plaintext.
    pub transport: Option<Arc<UpstreamTls>>,
    pub transport_matches: Vec<TransportMatch>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub http: UpstreamHttp,
    /// Connect from this address.
    pub bind_source: Option<IpAddr>,
    pub keepalive: Option<Keepalive>,
    /// Bytes buffered per direction and connection.
    pub buffer_limit: usize,
    /// Below this percentage of healthy hosts all hosts count as healthy; 0 switches it off.
    pub panic_threshold: u32,
    /// Weigh localities by their weights.
    pub locality_weighted: bool,
    pub close_on_health_failure: bool,
    /// The services it stands for, from `metadata.filter_metadata.istio.services`.
    pub services: Vec<Arc<ServiceName>>,
    pub subset: Option<Arc<str>>,
    pub object: Option<Arc<Object>>,
}

impl Cluster {
    /// TLS to an endpoint with these labels; `None` is plaintext.
    pub fn transport_for(&self, labels: &BTreeMap<Arc<str>, Arc<str>>) -> Option<&Arc<UpstreamTls>> {
        self.transport_matches
            .iter()
            .find(|row| {
                row.labels
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            })
            .map_or(self.transport.as_ref(), |row| row.transport.as_ref())
    }

    /// Every TLS setting it may use.
    pub fn transports(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.transport.iter().chain(
            self.transport_matches
                .iter()
                .filter_map(|row| row.transport.as_ref()),
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Static,
    StrictDns(Dns),
    LogicalDns(Dns),
    /// Endpoints come by EDS under this name.
    Eds {
        service: Arc<str>,
    },
    /// The connection's own destination before redirection.
    OriginalDst {
        use_header: Option<http::HeaderName>,
        port: Option<u16>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dns {
    /// When the answer has no TTL that is to be used.
    pub refresh: Duration,
    pub respect_ttl: bool,
    pub family: Family,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            respect_ttl: false,
            family: Family::Auto,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastRequest { choices: u32 },
    Random,
    RingHash { min: u64, max: u64 },
    Maglev { size: u64 },
    ClusterProvided,
}

/// How the share of a host that is new grows to its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// Never zero.
    pub window: Duration,
    /// Above 0. 1 is a straight line; more gives more at the beginning.
    pub aggression: f64,
    /// It begins with this part of its weight.
    pub least: f64,
}

impl SlowStart {
    /// The part of its weight that a host has after this time; `None`: all of it.
    pub fn part(&self, age: Duration) -> Option<f64> {
        let done = age.as_secs_f64() / self.window.as_secs_f64();
        (done < 1.0).then(|| done.powf(1.0 / self.aggression).max(self.least))
    }
}

/// Circuit breakers by priority.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Breakers {
    pub default: Thresholds,
    pub high: Thresholds,
}

/// Upper bounds of one cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    pub connections: u32,
    pub pending: u32,
    pub requests: u32,
    pub retries: u32,
    /// Instead of `retries`.
    pub retry_budget: Option<RetryBudget>,
}

/// How many retries there may be for so many requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Of the requests, in percent.
    pub percent: f64,
    /// So many are always possible.
    pub least: u32,
    /// The requests are those that began within this time; `None`: those under way.
    pub interval: Option<Duration>,
}

impl RetryBudget {
    /// The number of retries that there may be at a time.
    pub fn limit(&self, requests: u32) -> u32 {
        // The cast saturates.
        let share = (f64::from(requests) * self.percent / 100.0) as u32;
        share.max(self.least)
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            retry_budget: None,
        }
    }
}

/// When a host is taken out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// 0 switches the rule off, here and below.
    pub consecutive_5xx: u32,
    pub consecutive_gateway: u32,
    pub consecutive_local: u32,
    /// Count what this side saw (connect failures, timeouts, resets) apart from the answers.
    pub split_local: bool,
    pub interval: Duration,
    pub base_ejection: Duration,
    pub max_ejection: Duration,
    /// At most this share of the hosts, in percent; one host may always be taken out.
    pub max_percent: u32,
    /// Answers that are errors, in place of those from 500 on; they count as 5xx, never as a gateway's.
    pub errors: Option<Statuses>,
}

/// A set of HTTP statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 10]);

impl Statuses {
    /// `false`: that is no status.
    pub fn insert(&mut self, status: u16) -> bool {
        match self.0.get_mut(usize::from(status) / 64) {
            Some(word) if (100..600).contains(&status) => {
                *word |= 1 << (status % 64);
                true
            }
            _ => false,
        }
    }

    pub fn contains(&self, status: u16) -> bool {
        self.0
            .get(usize::from(status) / 64)
            .is_some_and(|word| word & (1 << (status % 64)) != 0)
    }
}

/// The form in which an endpoint is told who the client is, before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

#[derive(Clone, Debug)]
pub struct TransportMatch {
    pub name: Arc<str>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub transport: Option<Arc<UpstreamTls>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamHttp {
    pub protocol: Protocol,
    /// A pooled connection without a request; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    pub max_connection: Option<Duration>,
    /// `None`: no bound.
    pub max_requests: Option<u32>,
    pub max_response_headers_count: usize,
    pub http2: Http2,
    pub preserve_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    /// As the downstream speaks.
    UseDownstream,
    /// As ALPN decides.
    Auto,
}

/// A service by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// `reviews.default.svc.cluster.local`
    pub host: Arc<str>,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
}
