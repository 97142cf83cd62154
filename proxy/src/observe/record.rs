//! What happened to one request or connection: the value from which the access log, the access-log service and the
//! explanation of a failure are made. The worker fills it at the end of an exchange, only when something wants it
//! ([`super::access_log::Plan`]), and hands it to its ring; nobody formats anything on the worker.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::config::{log::LogType, scalar::Object};

use super::{
    Flags,
    labels::{Reporter, Service, Workload},
    trace::TraceContext,
};

/// The protocol as the access log prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireProtocol {
    Http10,
    #[default]
    Http11,
    Http2,
    Tcp,
}

impl WireProtocol {
    /// As `%PROTOCOL%`; a TCP connection has none.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Http10 => Some("HTTP/1.0"),
            Self::Http11 => Some("HTTP/1.1"),
            Self::Http2 => Some("HTTP/2"),
            Self::Tcp => None,
        }
    }
}

/// Points in time, counted from the record's start. `None`: it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The last byte of the request came.
    pub request_end: Option<Duration>,
    pub first_upstream_tx: Option<Duration>,
    pub last_upstream_tx: Option<Duration>,
    pub first_upstream_rx: Option<Duration>,
    pub last_upstream_rx: Option<Duration>,
    pub first_downstream_tx: Option<Duration>,
    pub last_downstream_tx: Option<Duration>,
    /// Connecting to the upstream; `None` when a pooled connection was used.
    pub connect_start: Option<Duration>,
    pub connect_end: Option<Duration>,
    pub upstream_handshake_end: Option<Duration>,
    pub downstream_handshake_end: Option<Duration>,
    /// The exchange was over.
    pub end: Duration,
}

/// What TLS proved and negotiated on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: Cow<'static, str>,
    pub cipher: Cow<'static, str>,
    pub server_name: Option<Arc<str>>,
    pub alpn: Option<Arc<str>>,
    /// URI names of the peer's verified certificate; empty without one.
    pub peer_uris: Vec<Arc<str>>,
    pub local_uris: Vec<Arc<str>>,
    pub peer_subject: Option<Arc<str>>,
    /// SHA-256 of the peer's certificate, in hexadecimal; empty without one.
    pub peer_hash: Box<str>,
    /// The leaf certificates, DER.
    pub peer_leaf: Option<Arc<[u8]>>,
    pub local_leaf: Option<Arc<[u8]>>,
}

/// The side towards the client: one value per connection, shared by its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downstream {
    pub connection_id: u64,
    /// Who the client is, after proxies it came through were taken into account.
    pub remote: SocketAddr,
    /// The other end of the socket.
    pub direct_remote: SocketAddr,
    /// Where the client wanted to go (the original destination when redirected).
    pub local: SocketAddr,
    /// Of TLS or, without termination, of the inspected hello.
    pub server_name: Option<Arc<str>>,
    pub tls: Option<TlsFacts>,
}

/// The side towards the server: the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub cluster: Arc<str>,
    pub host: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub attempts: u32,
    pub connection_id: Option<u64>,
    pub protocol: Option<WireProtocol>,
    /// Why the connection failed, where it did.
    pub transport_failure: Option<Box<str>>,
    pub tls: Option<Arc<TlsFacts>>,
}

/// The two ends, as the metrics label them.
#[derive(Clone, Debug)]
pub struct Ends {
    pub reporter: Reporter,
    pub source: Arc<Workload>,
    pub source_principal: Option<Arc<str>>,
    pub destination: Arc<Workload>,
    pub destination_principal: Option<Arc<str>>,
    pub service: Arc<Service>,
}

/// Sizes in bytes. For a connection the bodies are everything that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub request_headers: u64,
    pub request_body: u64,
    pub response_headers: u64,
    pub response_body: u64,
    /// As they went over the upstream connection.
    pub upstream_sent: u64,
    pub upstream_received: u64,
}

/// The HTTP part of a record; a TCP connection has none.
#[derive(Clone, Debug, Default)]
pub struct HttpFacts {
    pub method: http::Method,
    pub scheme: Cow<'static, str>,
    pub authority: Box<str>,
    /// Path and query as they went upstream.
    pub path: Box<str>,
    /// As they came, when something rewrote them.
    pub original_path: Option<Box<str>>,
    /// 0: no answer was made.
    pub status: u16,
    pub grpc_status: Option<u32>,
    pub grpc_message: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    /// Values of the headers that the plan asked for, in its order ([`super::access_log::Wanted`]).
    pub request_headers: Vec<Option<Box<str>>>,
    pub response_headers: Vec<Option<Box<str>>>,
    pub response_trailers: Vec<Option<Box<str>>>,
}

/// One request or one connection, finished.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// The moment it speaks of: usually the end of the request or connection.
    pub moment: LogType,
    pub start: SystemTime,
    pub times: Times,
    pub protocol: WireProtocol,
    pub http: Option<Box<HttpFacts>>,
    pub flags: Flags,
    /// `via_upstream`, `route_not_found`, `rbac_access_denied_matched_policy[…]`, …
    pub details: Cow<'static, str>,
    /// Why a connection was closed, for `%CONNECTION_TERMINATION_DETAILS%`.
    pub termination: Option<Cow<'static, str>>,
    pub sizes: Sizes,
    pub downstream: Arc<Downstream>,
    pub upstream: Option<Box<Upstream>>,
    pub route_name: Option<Arc<str>>,
    pub virtual_host: Option<Arc<str>>,
    pub filter_chain: Option<Arc<str>>,
    pub trace: Option<TraceContext>,
    pub ends: Ends,
    /// The user's object that decided.
    pub object: Option<Arc<Object>>,
}

impl AccessRecord {
    /// What the tracing, the log and a page call the time the whole thing took.
    pub fn duration(&self) -> Duration {
        self.times.end
    }
}

#[cfg(test)]
pub(crate) fn example() -> AccessRecord {
    use std::net::{IpAddr, Ipv4Addr};
    let address = |last, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 0, last)), port);
    AccessRecord {
        moment: LogType::DownstreamEnd,
        start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        times: Times {
            request_end: Some(Duration::from_millis(1)),
            first_upstream_tx: Some(Duration::from_millis(1)),
            last_upstream_tx: Some(Duration::from_millis(1)),
            first_upstream_rx: Some(Duration::from_millis(6)),
            last_upstream_rx: Some(Duration::from_millis(7)),
            first_downstream_tx: Some(Duration::from_millis(6)),
            last_downstream_tx: Some(Duration::from_millis(7)),
            end: Duration::from_millis(7),
            ..Times::default()
        },
        protocol: WireProtocol::Http11,
        http: Some(Box::new(HttpFacts {
            method: http::Method::GET,
            scheme: "http".into(),
            authority: "reviews:9080".into(),
            path: "/reviews/0".into(),
            original_path: Some("/r/0".into()),
            status: 200,
            grpc_status: None,
            grpc_message: None,
            request_id: Some("7d4f1b1e".into()),
            request_headers: vec![None, Some("curl/8".into())],
            response_headers: vec![Some("5".into())],
            response_trailers: Vec::new(),
        })),
        flags: Flags::none(),
        details: "via_upstream".into(),
        termination: None,
        sizes: Sizes {
            request_headers: 80,
            request_body: 3,
            response_headers: 90,
            response_body: 295,
            ..Sizes::default()
        },
        downstream: Arc::new(Downstream {
            connection_id: 42,
            remote: address(3, 51000),
            direct_remote: address(3, 51000),
            local: address(9, 9080),
            server_name: Some("outbound_.9080_._.reviews.default.svc.cluster.local".into()),
            tls: None,
        }),
        upstream: Some(Box::new(Upstream {
            cluster: "outbound|9080||reviews.default.svc.cluster.local".into(),
            host: Some(address(7, 9080)),
            local: Some(address(3, 40000)),
            attempts: 1,
            connection_id: Some(7),
            protocol: Some(WireProtocol::Http2),
            transport_failure: None,
            tls: None,
        })),
        route_name: Some("default".into()),
        virtual_host: None,
        filter_chain: None,
        trace: None,
        ends: Ends {
            reporter: Reporter::Source,
            source: Arc::new(Workload::from_metadata(
                "productpage-v1;default;productpage;v1;Kubernetes",
            )),
            source_principal: None,
            destination: Arc::new(Workload::from_metadata(
                "reviews-v1;default;reviews;v1;Kubernetes",
            )),
            destination_principal: Some("spiffe://cluster.local/ns/default/sa/reviews".into()),
            service: Arc::new(Service {
                host: "reviews.default.svc.cluster.local".into(),
                name: "reviews".into(),
                namespace: "default".into(),
            }),
        },
        object: Some(Arc::new(Object {
            text: "virtualservice default/reviews".into(),
            version: "12".into(),
        })),
    }
}
