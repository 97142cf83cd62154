//! One downstream connection, from the socket to its filter chain's terminal: facts → chain → network filters →
//! handshake → TCP or HTTP.

pub mod copy;
pub mod edge;
pub mod io;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod track;
mod tunnel;

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use self::{
    io::{Io, Prefixed},
    track::Note,
};
use crate::{
    config::{
        chain::{Chain, NetworkFilter, Terminal, Transport},
        listener::{Direction, Listener},
        transport::DownstreamTls,
    },
    decide::{
        self,
        chain::ChainFacts,
        facts::{Connection, PeerNames},
    },
    http,
    listen::{
        grace::{Manner, round_trip},
        origin::original_destination,
        peek::{GRACE, Peeked, peek},
    },
    observe::{
        Workload,
        record::{Downstream, TlsFacts},
        stats::{ListenerStats, Local},
    },
    sniff::http::Version,
    worker::Worker,
};

/// Without a limit of its own, a chain's TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// What is known of a connection. Shared by its requests.
pub struct Conn {
    pub worker: Rc<Worker>,
    pub listener: Arc<Listener>,
    pub chain: Arc<Chain>,
    pub facts: Arc<Downstream>,
    /// Where it wanted to go before redirection.
    pub origin: Option<SocketAddr>,
    /// The verified names of the peer.
    pub peer: Option<PeerNames>,
    /// The peer as it introduced itself; only believed from a proxy with a verified identity of the same namespace.
    pub peer_workload: RefCell<Arc<Workload>>,
    pub stats: Local<ListenerStats>,
    pub started: Instant,
}

impl Conn {
    pub fn direction(&self) -> Direction {
        self.listener.direction
    }

    /// The peer's proven SPIFFE identity.
    pub fn principal(&self) -> Option<&Arc<str>> {
        self.facts.tls.as_ref().and_then(|tls| tls.peer_uris.first())
    }

    /// As the rules see it.
    pub fn connection(&self) -> Connection<'_> {
        Connection {
            source: self.facts.remote,
            destination: self.facts.local,
            server_name: self.facts.server_name.as_deref(),
            tls: self.facts.tls.is_some(),
            peer: self.peer.as_ref(),
        }
    }
}

/// Counts an open connection while it lives.
struct Open {
    worker: Rc<Worker>,
    stats: Local<ListenerStats>,
    started: Instant,
}

impl Open {
    fn new(worker: &Rc<Worker>, stats: &Local<ListenerStats>) -> Self {
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        worker.connections.set(worker.connections.get() + 1);
        Self {
            worker: worker.clone(),
            stats: stats.clone(),
            started: Instant::now(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.downstream_cx_active.dec();
        self.stats.downstream_cx_destroy.inc();
        self.stats
            .downstream_cx_length_ms
            .observe_time(self.started.elapsed());
        self.worker.connections.set(self.worker.connections.get() - 1);
    }
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, tcp: TcpStream, remote: SocketAddr) {
    let stats = worker.listener_stats(&listener);
    let open = Open::new(&worker, &stats);
    if let Err(error) = serve_inner(worker, listener, stats, tcp, remote).await {
        tracing::debug!(%remote, %error, "connection ended");
    }
    drop(open);
}

async fn serve_inner(
    worker: Rc<Worker>,
    mut listener: Arc<Listener>,
    stats: Local<ListenerStats>,
    mut tcp: TcpStream,
    remote: SocketAddr,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket_address = unmapped(tcp.local_addr()?);
    let remote = unmapped(remote);
    let origin = listener
        .inspect
        .original_dst
        .then(|| original_destination(&tcp, socket_address))
        .flatten();
    if listener.use_original_dst
        && let Some(origin) = origin
        && let Some(other) = worker.store.snapshot().listener_for(origin)
    {
        listener = other.clone();
    }
    let local = origin.unwrap_or(socket_address);
    let mut peeked = Peeked::default();
    if listener.inspect.needs_bytes() {
        peeked = look(&worker, &listener, &mut tcp, local, remote).await?;
        if peeked.ended && peeked.bytes.is_empty() {
            return Ok(());
        }
        if peeked.silent && !listener.continue_on_timeout {
            stats.downstream_pre_cx_timeout.inc();
            return Ok(());
        }
    }
    let (remote, local) = peeked
        .proxied
        .as_ref()
        .and_then(|header| header.addresses)
        .unwrap_or((remote, local));
    let bytes = std::mem::take(&mut peeked.bytes);
    let arrival = Arrival {
        worker,
        listener,
        stats,
        remote,
        local,
        origin,
    };
    let stream = Prefixed::new(bytes, tcp);
    // A silent client whose bytes, when they come, are TLS or HTTP after all, enters a second time.
    match enter(&arrival, stream, peeked).await? {
        Some((stream, peeked)) => enter(&arrival, stream, peeked).await.map(|_| ()),
        None => Ok(()),
    }
}

/// What is known of a connection before a chain is chosen.
struct Arrival {
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    stats: Local<ListenerStats>,
    remote: SocketAddr,
    local: SocketAddr,
    origin: Option<SocketAddr>,
}

/// Chooses the chain and serves the connection. What comes back is a connection that must choose again.
async fn enter(
    arrival: &Arrival,
    stream: Prefixed,
    peeked: Peeked,
) -> std::io::Result<Option<(Prefixed, Peeked)>> {
    let Arrival {
        worker,
        listener,
        stats,
        remote,
        local,
        origin,
    } = arrival;
    let Some(chain) = choose(listener, &peeked, *local, *remote) else {
        stats.no_filter_chain_match.inc();
        tracing::debug!(%remote, %local, listener = %listener.name, "no filter chain takes this connection");
        return Ok(None);
    };
    let server_name: Option<Arc<str>> = peeked
        .hello
        .as_ref()
        .and_then(|hello| hello.server_name.as_deref())
        .map(Arc::from);
    let mut facts = Downstream {
        connection_id: worker.next_id(),
        remote: *remote,
        direct_remote: *remote,
        local: *local,
        server_name: server_name.clone(),
        tls: None,
    };
    let io = match &chain.tls {
        None => Io::plain(stream),
        Some(settings) => {
            let stream = handshake(arrival, &chain, settings, stream).await?;
            let mut proven = tls::facts(stream.get_ref().1, server_name);
            if settings
                .validation
                .as_ref()
                .is_some_and(|own| own.accept_untrusted)
            {
                // Whatever the certificate says, nobody vouches for it.
                proven.peer_uris.clear();
            }
            facts.tls = Some(proven);
            Io::tls(TlsStream::Server(stream))
        }
    };
    let peer = facts.tls.as_ref().and_then(peer_names);
    let facts = Arc::new(facts);
    let _open = worker.open.open(Note {
        worker: worker.number,
        facts: facts.clone(),
        listener: listener.name.clone(),
        chain: chain.name.clone(),
        kind: track::kind(&chain.terminal),
        since: Instant::now(),
    });
    let conn = Rc::new(Conn {
        worker: worker.clone(),
        listener: listener.clone(),
        chain,
        facts,
        origin: origin.or(Some(*local)),
        peer,
        peer_workload: RefCell::default(),
        stats: stats.clone(),
        started: Instant::now(),
    });
    match conn.chain.terminal.clone() {
        Terminal::Http(hcm) => http::serve(conn, hcm, io).await,
        Terminal::Echo => tcp::echo(io).await,
        Terminal::Direct(bytes) => tcp::direct(io, &bytes).await,
        Terminal::Tcp(proxy) => return Ok(tcp::serve(&conn, &proxy, io, peeked.silent).await),
    }
    Ok(None)
}

/// What the peer's verified certificate says.
fn peer_names(tls: &TlsFacts) -> Option<PeerNames> {
    (!tls.peer_uris.is_empty() || tls.peer_subject.is_some()).then(|| PeerNames {
        uris: tls.peer_uris.iter().map(|uri| Box::from(&**uri)).collect(),
        dns: Vec::new(),
        subject: tls.peer_subject.as_deref().unwrap_or_default().into(),
        hash: tls.peer_hash.clone(),
    })
}

/// Takes TLS off.
async fn handshake(
    arrival: &Arrival,
    chain: &Chain,
    settings: &Arc<DownstreamTls>,
    stream: Prefixed,
) -> std::io::Result<tokio_rustls::server::TlsStream<Prefixed>> {
    let Arrival {
        worker,
        listener,
        stats,
        remote,
        local,
        ..
    } = arrival;
    let config = {
        let snapshot = worker.store.snapshot();
        worker.tls.server(settings, &snapshot.secrets, &worker.identity)
    };
    let config = config.map_err(|error| {
        stats.no_certificate.inc();
        tracing::warn!(%remote, listener = %listener.name, chain = %chain.name, %error, "TLS is not ready");
        std::io::Error::other(error)
    })?;
    let limit = chain.handshake_timeout.unwrap_or(HANDSHAKE);
    let accepted = tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream)).await;
    let stream = accepted
        .map_err(std::io::Error::from)
        .and_then(|result| result)
        .inspect_err(|error| {
            stats.ssl_connection_error.inc();
            tracing::info!(%remote, %local, listener = %listener.name, %error, "TLS handshake failed");
        })?;
    stats.ssl_handshake.inc();
    Ok(stream)
}

/// Would bytes that say this be served by another chain than the connection's?
pub fn belongs_elsewhere(conn: &Conn, peeked: &Peeked) -> bool {
    choose(&conn.listener, peeked, conn.facts.local, conn.facts.remote)
        .is_none_or(|chain| !Arc::ptr_eq(&chain, &conn.chain))
}

/// Reads ahead as far as the listener asks for it.
async fn look(
    worker: &Worker,
    listener: &Listener,
    tcp: &mut TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
) -> std::io::Result<Peeked> {
    // Where the silent case ends in a TCP proxy, the server gets its chance to speak after a short grace.
    let grace = if listener.continue_on_timeout && ends_in_tcp(listener, local, remote) {
        Some(match listener.inspect.tls {
            // A hello that is later than a server that speaks first ends as bytes in a plaintext chain.
            true => worker
                .sources
                .grace(remote.ip(), Instant::now(), || round_trip(tcp)),
            false if worker.speaks_first(local) => Duration::ZERO,
            false => GRACE,
        })
    } else {
        None
    };
    let peeked = peek(tcp, listener.inspect, listener.inspect_timeout, grace).await?;
    if listener.inspect.tls {
        learn_manner(worker, remote, &peeked);
    }
    Ok(peeked)
}

/// Remembers how this source begins, if these bytes show it.
pub fn learn_manner(worker: &Worker, remote: SocketAddr, peeked: &Peeked) {
    let manner = match peeked.bytes.first() {
        _ if peeked.hello.is_some() => Manner::Tls,
        Some(_) => Manner::Plain,
        None => return,
    };
    worker.sources.learn(remote.ip(), manner, Instant::now());
}

/// Does a connection that says nothing end in a TCP proxy? Where HTTP is spoken the server waits too.
fn ends_in_tcp(listener: &Listener, local: SocketAddr, remote: SocketAddr) -> bool {
    choose(listener, &Peeked::default(), local, remote)
        .is_some_and(|chain| chain.tls.is_none() && matches!(chain.terminal, Terminal::Tcp(_)))
}

fn choose(listener: &Listener, peeked: &Peeked, local: SocketAddr, remote: SocketAddr) -> Option<Arc<Chain>> {
    let offered: Vec<&[u8]> = match (&peeked.hello, peeked.http) {
        (Some(hello), _) => hello.application_protocols.iter().map(|name| &**name).collect(),
        (None, Some(Version::Http10)) => vec![b"http/1.0"],
        (None, Some(Version::Http11)) => vec![b"http/1.1"],
        (None, Some(Version::Http2)) => vec![b"h2c"],
        (None, None) => Vec::new(),
    };
    let facts = ChainFacts {
        destination: local,
        source: remote,
        direct_source: remote.ip(),
        server_name: peeked
            .hello
            .as_ref()
            .and_then(|hello| hello.server_name.as_deref()),
        transport: if peeked.hello.is_some() {
            Transport::Tls
        } else {
            Transport::Raw
        },
        application_protocols: &offered,
    };
    decide::chain(listener, &facts).cloned()
}

/// Runs the chain's network filters; `Some` is the policy that refused the connection.
pub fn refused(conn: &Conn) -> Option<String> {
    for filter in &conn.chain.filters {
        let NetworkFilter::Rbac(rbac) = filter;
        if let Some(rules) = &rbac.rules {
            let verdict = decide::permit::connection(rules, &conn.connection());
            if !verdict.allowed {
                return Some(decide::permit::details(rules, &verdict));
            }
        }
    }
    None
}

/// IPv4 in IPv6 is IPv4 to every rule.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}
