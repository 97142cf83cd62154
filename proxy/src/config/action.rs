//! What a route does with a request: forward it, redirect it, or answer it.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use regex::bytes::Regex;

use super::{filter::PerFilter, matcher::HeaderMatch, route::Mutations, scalar::Fraction};

#[derive(Clone, Debug)]
pub enum Action {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    Direct(Direct),
}

#[derive(Clone, Debug)]
pub struct Forward {
    pub clusters: Clusters,
    /// The answer when the named cluster does not exist.
    pub cluster_not_found: StatusCode,
    pub path_rewrite: PathRewrite,
    pub host_rewrite: HostRewrite,
    /// Tell the old authority in `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// From the end of the request to the end of the answer, all attempts. `None` is for ever.
    pub timeout: Option<Duration>,
    /// Overrides the connection manager's stream idle timeout; `Some(None)` switches it off.
    pub idle_timeout: Option<Option<Duration>>,
    pub max_stream: Option<Duration>,
    /// For gRPC: take the timeout from `grpc-timeout`, at most this (`Some(None)`: unbounded).
    pub grpc_timeout_max: Option<Option<Duration>>,
    pub retry: Option<Arc<Retry>>,
    pub hash: Vec<HashPolicy>,
    pub mirrors: Vec<Mirror>,
    /// Overrides the connection manager's upgrades: protocol (lower case), enabled.
    pub upgrades: Vec<(Box<str>, bool)>,
    /// Uses the high-priority circuit breakers.
    pub high_priority: bool,
}

#[derive(Clone, Debug)]
pub enum Clusters {
    Single(Arc<str>),
    Weighted(Weighted),
    /// The cluster's name is in this request header.
    Header(HeaderName),
}

#[derive(Clone, Debug)]
pub struct Weighted {
    pub choices: Vec<Choice>,
    /// Sum of the weights, never 0.
    pub total: u64,
    /// Take the random number from this header, where present.
    pub random_header: Option<HeaderName>,
}

#[derive(Clone, Debug)]
pub struct Choice {
    pub cluster: Arc<str>,
    pub weight: u32,
    pub mutations: Mutations,
    pub host_rewrite: Option<HeaderValue>,
    pub per_filter: PerFilter,
}

#[derive(Clone, Debug)]
pub enum PathRewrite {
    None,
    /// Replaces what the route's prefix (or exact path) matched.
    Prefix(Box<str>),
    Regex(Substitution),
}

/// A regular expression and what each match is replaced with.
#[derive(Clone, Debug)]
pub struct Substitution {
    pub pattern: Regex,
    pub pieces: Vec<SubstitutionPiece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionPiece {
    Text(Box<str>),
    /// `\0` is the whole match.
    Group(usize),
}

#[derive(Clone, Debug)]
pub enum HostRewrite {
    None,
    Literal(HeaderValue),
    /// The name of the chosen endpoint.
    Endpoint,
    /// The value of this request header.
    Header(HeaderName),
    /// A substitution on the path.
    PathRegex(Substitution),
}

#[derive(Clone, Debug)]
pub struct Mirror {
    pub cluster: Arc<str>,
    pub fraction: Fraction,
    pub trace: Option<bool>,
    /// Keep the authority as it is, without `-shadow`.
    pub keep_host: bool,
}

#[derive(Clone, Debug)]
pub struct HashPolicy {
    pub source: HashSource,
    /// Stop here if this one gave a value.
    pub terminal: bool,
}

#[derive(Clone, Debug)]
pub enum HashSource {
    Header(HeaderName),
    Cookie {
        name: Box<str>,
        /// A client without the cookie gets one; this follows its value (`; Max-Age=60; HttpOnly`).
        made: Option<Box<str>>,
    },
    SourceIp,
    Query(Box<str>),
}

#[derive(Clone, Debug)]
pub struct Retry {
    pub on: RetryOn,
    /// Statuses for `retriable-status-codes`.
    pub statuses: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub headers: Vec<HeaderMatch>,
    /// Only requests that match one of these are retried, if there are any.
    pub request_headers: Vec<HeaderMatch>,
    /// Beyond the first attempt.
    pub retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Avoid hosts that were already tried.
    pub previous_hosts: bool,
    /// How often to pick again for that.
    pub host_attempts: u32,
    /// Prefer other priorities after this many tries of one.
    pub previous_priorities: Option<u32>,
}

/// Conditions for a retry, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(pub u32);

impl RetryOn {
    pub const SERVER_ERROR: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const CONNECT_FAILURE: Self = Self(1 << 2);
    pub const RETRIABLE_4XX: Self = Self(1 << 3);
    pub const REFUSED_STREAM: Self = Self(1 << 4);
    pub const GRPC_CANCELLED: Self = Self(1 << 5);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 6);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 7);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 8);
    pub const GRPC_INTERNAL: Self = Self(1 << 9);
    pub const STATUSES: Self = Self(1 << 10);
    pub const RESET: Self = Self(1 << 11);
    pub const HEADERS: Self = Self(1 << 12);
    pub const ENVOY_RATE_LIMITED: Self = Self(1 << 13);
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 14);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 15);

    /// The condition of this name in `retry_on`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "5xx" => Self::SERVER_ERROR,
            "gateway-error" => Self::GATEWAY_ERROR,
            "connect-failure" => Self::CONNECT_FAILURE,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            "internal" => Self::GRPC_INTERNAL,
            "retriable-status-codes" => Self::STATUSES,
            "reset" => Self::RESET,
            "retriable-headers" => Self::HEADERS,
            "envoy-ratelimited" => Self::ENVOY_RATE_LIMITED,
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT_FAILURE,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            _ => return None,
        })
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[derive(Clone, Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: RedirectPath,
    pub strip_query: bool,
}

#[derive(Clone, Debug)]
pub enum RedirectPath {
    Keep,
    /// The whole path; may bring its own query.
    Full(Box<str>),
    Prefix(Box<str>),
    Regex(Substitution),
}

#[derive(Clone, Debug)]
pub struct Direct {
    pub status: StatusCode,
    pub body: Bytes,
}

/// The statuses that `gateway-error` means.
pub const GATEWAY_ERRORS: Range<u16> = 502..505;
