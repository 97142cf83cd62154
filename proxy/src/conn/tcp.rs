//! TCP: an upstream for a connection, and bytes both ways. Where the client said nothing before the chain had to be
//! chosen, the first byte from either side decides: the server's makes it TCP for good (and is remembered for its
//! address), the client's is looked at again.

use std::{
    borrow::Cow,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Conn, belongs_elsewhere,
    copy::{End, Traffic, copy},
    edge,
    io::{Io, Prefixed},
    learn_manner, refused, tunnel,
};
use crate::{
    cluster::{
        NoHost, Picked, Upstream,
        connect::{ConnectError, Connected, connect},
    },
    config::{
        chain::TcpProxy,
        cluster::Protocol,
        flag::{Flag, Flags},
        log::LogType,
    },
    http::dial::dial,
    listen::{
        grace::Manner,
        peek::{Peeked, answer},
    },
    observe::{
        AccessRecord, Reporter, RequestProtocol,
        record::{self, Ends, Sizes, Times, WireProtocol},
        stats::{Edge, Local, TcpStats},
    },
    tls::client::Purpose,
    worker::{Active, Endless},
};

/// The rest of a first message that has begun must come within this time.
const REST: Duration = Duration::from_secs(5);

/// One connection's account.
struct Session<'a> {
    conn: &'a Rc<Conn>,
    stats: Local<TcpStats>,
    start: Instant,
    wall: SystemTime,
    traffic: Traffic,
    flags: Flags,
    details: Cow<'static, str>,
    cluster: Arc<str>,
    edge: Option<Edge>,
    connected: Option<(std::net::SocketAddr, std::net::SocketAddr)>,
    failure: Option<Box<str>>,
    attempts: u32,
}

/// Serves a TCP connection. One whose client had been `silent`, and whose first bytes belong to another chain, comes back
/// with them unread.
pub async fn serve(
    conn: &Rc<Conn>,
    proxy: &TcpProxy,
    mut io: Io,
    silent: bool,
) -> Option<(Prefixed, Peeked)> {
    let _counted = (Active::new(&conn.worker), Endless::new(&conn.worker));
    let worker = &conn.worker;
    let stats = worker.stats.tcp(&proxy.stat_prefix);
    let name = proxy.clusters.pick(worker.random()).clone();
    let mut session = Session {
        conn,
        stats,
        start: Instant::now(),
        wall: SystemTime::now(),
        traffic: Traffic::default(),
        flags: Flags::none(),
        details: Cow::Borrowed(""),
        cluster: name,
        edge: None,
        connected: None,
        failure: None,
        attempts: 0,
    };
    session.stats.downstream_cx_total.inc();
    session.stats.downstream_cx_active.inc();
    let back = session.run(proxy, &mut io, silent).await;
    session.stats.downstream_cx_active.dec();
    if let Some(peeked) = back {
        return io.into_plain().map(|stream| (stream, peeked));
    }
    session.finish(proxy);
    None
}

impl Session<'_> {
    /// Runs the connection; what comes back says why it must go to another chain.
    async fn run(&mut self, proxy: &TcpProxy, io: &mut Io, silent: bool) -> Option<Peeked> {
        if let Some(policy) = refused(self.conn) {
            self.stats.rbac_denied.inc();
            self.details = policy.into();
            return None;
        }
        let worker = &self.conn.worker;
        let Some(upstream) = worker.clusters.get(&self.cluster, &worker.store, &worker.stats) else {
            self.flags.add(Flag::NoCluster);
            self.stats.downstream_cx_no_route.inc();
            return None;
        };
        let (picked, connected) = self.connect(&upstream, proxy).await?;
        let mut up = connected.io;
        if silent && let Some(peeked) = self.first_byte(io, &mut up).await {
            return Some(peeked);
        }
        self.connected = Some((connected.address, connected.local));
        let principal = connected.tls.as_ref().and_then(|tls| tls.peer_uris.first());
        if self.conn.peer_workload.borrow().namespace.is_empty()
            && let Some(peer) = self.conn.principal()
        {
            *self.conn.peer_workload.borrow_mut() = Arc::new(edge::of_principal(peer));
        }
        let key = edge::key(
            self.conn,
            &upstream.cluster,
            Some(&picked),
            principal,
            RequestProtocol::Tcp,
        );
        self.edge = key.map(|key| worker.stats.edge(key));
        if let Some(edge) = &self.edge {
            edge.tcp(Flags::none()).opened.inc();
        }
        let stats = &upstream.stats;
        stats.upstream_cx_active.inc();
        match copy(io, &mut up, proxy.idle_timeout, &self.traffic).await {
            End::Closed => {}
            End::Idle => self.stats.idle_timeout.inc(),
            End::Downstream(error) => {
                tracing::debug!(%error, "downstream failed");
                self.flags.add(Flag::DownstreamConnectionTermination);
            }
            End::Upstream(error) => {
                tracing::debug!(%error, "upstream failed");
                self.flags.add(Flag::UpstreamConnectionTermination);
            }
        }
        stats.upstream_cx_active.dec();
        stats.upstream_cx_destroy.inc();
        stats.upstream_cx_tx_bytes_total.add(self.traffic.received.get());
        stats.upstream_cx_rx_bytes_total.add(self.traffic.sent.get());
        None
    }

    /// Connects to an endpoint, trying others where the first ones fail.
    async fn connect(&mut self, upstream: &Rc<Upstream>, proxy: &TcpProxy) -> Option<(Picked, Connected)> {
        let worker = &self.conn.worker;
        let hash = proxy
            .hash_source_ip
            .then(|| crate::decide::hash::address(self.conn.facts.remote.ip()));
        let mut tried = Vec::new();
        for _ in 0..proxy.connect_attempts.max(1) {
            self.attempts += 1;
            let picked = match upstream.pick(&worker.stats, self.conn.origin, hash, worker.random(), &tried) {
                Ok(picked) => {
                    let facts = &self.conn.facts;
                    picked.on_behalf_of((facts.remote, facts.local), &worker.stats)
                }
                Err(NoHost::Unhealthy | NoHost::NoOrigin) => {
                    self.flags.add(Flag::NoHealthyUpstream);
                    upstream.stats.upstream_cx_none_healthy.inc();
                    return None;
                }
            };
            let http2 = upstream.cluster.http.protocol == Protocol::Http2;
            let purpose = match &proxy.tunnel {
                Some(_) if http2 => Purpose::Http2,
                _ => Purpose::Tcp,
            };
            let result = match dial(worker, upstream, &picked, purpose) {
                Ok(dial) => {
                    upstream.stats.upstream_cx_total.inc();
                    picked.host.stats.cx_total.inc();
                    let result = match (connect(&dial).await, &proxy.tunnel) {
                        (Ok(connected), Some(tunnel)) => {
                            tunnel::open(connected, tunnel, http2, dial.timeout).await
                        }
                        (result, _) => result,
                    };
                    result.map_err(|error| count_failure(upstream, &error))
                }
                Err(error) => Err(error.to_string()),
            };
            match result {
                Ok(connected) => {
                    picked.seen(crate::balance::outlier::Seen::Connected);
                    return Some((picked, connected));
                }
                Err(error) => {
                    picked.host.stats.cx_connect_fail.inc();
                    picked.seen(crate::balance::outlier::Seen::ConnectFailed);
                    tracing::debug!(cluster = %self.cluster, %error, "no upstream connection");
                    self.failure = Some(error.into_boxed_str());
                    tried.extend(picked.index());
                }
            }
        }
        self.flags.add(Flag::UpstreamConnectionFailure);
        if proxy.connect_attempts > 1 {
            self.flags.add(Flag::UpstreamRetryLimitExceeded);
        }
        None
    }

    /// Waits for the first byte of either side. The client's bytes are looked at as those of any other connection.
    async fn first_byte(&self, io: &mut Io, up: &mut Io) -> Option<Peeked> {
        let (mut from_client, mut from_server) =
            (BytesMut::with_capacity(2048), BytesMut::with_capacity(2048));
        let address = self.conn.facts.local;
        tokio::select! {
            read = io.read_buf(&mut from_client) => {
                if !matches!(read, Ok(1..)) {
                    return None;
                }
            }
            read = up.read_buf(&mut from_server) => {
                if matches!(read, Ok(1..)) {
                    self.conn.worker.learn_first(address, true);
                    self.learn_from_first_byte();
                }
                up.unread(from_server.freeze());
                return None;
            }
        }
        self.conn.worker.learn_first(address, false);
        let inspect = self.conn.listener.inspect;
        let mut peeked = Peeked::default();
        while !answer(&from_client, inspect, &mut peeked) {
            let more = tokio::time::timeout(REST, io.read_buf(&mut from_client)).await;
            if !matches!(more, Ok(Ok(1..))) {
                break;
            }
        }
        peeked.bytes = from_client.freeze();
        if inspect.tls {
            learn_manner(&self.conn.worker, self.conn.facts.direct_remote, &peeked);
        }
        io.unread(std::mem::take(&mut peeked.bytes));
        belongs_elsewhere(self.conn, &peeked).then_some(peeked)
    }

    /// The server spoke before the client did. What the client says then shows whether it is one without TLS, which need
    /// not be waited for the next time, or was only late.
    fn learn_from_first_byte(&self) {
        if !self.conn.listener.inspect.tls {
            return;
        }
        let (worker, source) = (self.conn.worker.clone(), self.conn.facts.direct_remote.ip());
        self.traffic.first.set(Some(Box::new(move |byte| {
            worker.sources.learn(source, Manner::of(byte), Instant::now());
        })));
    }

    fn finish(&self, proxy: &TcpProxy) {
        let (received, sent) = (self.traffic.received.get(), self.traffic.sent.get());
        self.stats.downstream_cx_rx_bytes_total.add(received);
        self.stats.downstream_cx_tx_bytes_total.add(sent);
        if let Some(edge) = &self.edge {
            let cells = edge.tcp(self.flags);
            cells.closed.inc();
            // As in Istio, "received" is what the destination got from the source.
            cells.received.add(received);
            cells.sent.add(sent);
        }
        if proxy.access_log.is_empty() {
            return;
        }
        let plan = self.conn.worker.tcp_plan(proxy);
        let ends = match &self.edge {
            Some(edge) => record_ends(edge),
            None => empty_ends(self.conn),
        };
        let end = self.start.elapsed();
        self.conn.worker.recorder.record(
            &plan,
            AccessRecord {
                moment: LogType::TcpConnectionEnd,
                start: self.wall,
                times: Times {
                    end,
                    ..Times::default()
                },
                protocol: WireProtocol::Tcp,
                http: None,
                flags: self.flags,
                details: Cow::Borrowed(""),
                termination: (!self.details.is_empty()).then(|| self.details.clone()),
                sizes: Sizes {
                    request_body: received,
                    response_body: sent,
                    ..Sizes::default()
                },
                downstream: self.conn.facts.clone(),
                upstream: Some(Box::new(record::Upstream {
                    cluster: self.cluster.clone(),
                    host: self.connected.map(|(host, _)| host),
                    local: self.connected.map(|(_, local)| local),
                    attempts: self.attempts,
                    connection_id: None,
                    protocol: None,
                    transport_failure: self.failure.clone(),
                    tls: None,
                })),
                route_name: None,
                virtual_host: None,
                filter_chain: Some(self.conn.chain.name.clone()),
                trace: None,
                ends,
                object: None,
            },
        );
    }
}

/// The record's two ends of an edge.
pub fn record_ends(edge: &Edge) -> Ends {
    let key = edge.key();
    Ends {
        reporter: key.reporter,
        source: key.source.clone(),
        source_principal: key.source_principal.clone(),
        destination: key.destination.clone(),
        destination_principal: key.destination_principal.clone(),
        service: key.service.clone(),
    }
}

/// The ends of something that never reached an upstream.
pub fn empty_ends(conn: &Conn) -> Ends {
    use crate::config::listener::Direction;
    let inbound = conn.direction() == Direction::Inbound;
    let own = conn.worker.own.workload.clone();
    let peer = conn.peer_workload.borrow().clone();
    Ends {
        reporter: if inbound {
            Reporter::Destination
        } else {
            Reporter::Source
        },
        source: if inbound { peer } else { own.clone() },
        source_principal: if inbound {
            conn.principal().cloned()
        } else {
            conn.worker.principal()
        },
        destination: if inbound { own } else { Arc::default() },
        destination_principal: None,
        service: Arc::default(),
    }
}

/// Counts a failed connection; returns its text.
pub fn count_failure(upstream: &Upstream, error: &ConnectError) -> String {
    upstream.stats.upstream_cx_connect_fail.inc();
    match error {
        ConnectError::Timeout { .. } => upstream.stats.upstream_cx_connect_timeout.inc(),
        ConnectError::Tls { .. } => upstream.stats.upstream_cx_ssl_connection_error.inc(),
        ConnectError::Tcp { .. } | ConnectError::Http { .. } => {}
    }
    error.to_string()
}

/// Sends every byte back.
pub async fn echo(mut io: Io) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = io.read(&mut buffer).await {
        if io.write_all(&buffer[..count]).await.is_err() || io.flush().await.is_err() {
            return;
        }
    }
}

/// Sends these bytes and closes.
pub async fn direct(mut io: Io, bytes: &Bytes) {
    if io.write_all(bytes).await.is_ok() && io.flush().await.is_ok() {
        let _ = io.shutdown().await;
    }
}
