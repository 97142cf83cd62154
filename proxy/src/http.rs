//! HTTP on a downstream connection: the codec by ALPN or by the first bytes, one exchange per request, and the end of the
//! connection when it is idle, too old, or the process drains.
//!
//! | File | What it does |
//! | --- | --- |
//! | `plan` | what a worker keeps per connection manager |
//! | `exchange` | one request from its head to its last byte; the account of it |
//! | `head` | the request's head made canonical: authority, path, forwarding headers |
//! | `filter` | the filters before the router |
//! | `router` | attempts: endpoint, connection, answer, retry |
//! | `dial` | how to connect to a chosen endpoint |
//! | `mirror` | copies of requests for other clusters |
//! | `timeout` | one timer of the worker for all that may take too long |
//! | `upgrade` | WebSocket and the like, after the switch |
//! | `answer` | answers: the upstream's, or the mesh's own |
//! | `http1` | the HTTP/1.x codec |
//! | `http2` | the HTTP/2 codec |
//! | `carry` | an application's HTTP/1.1 inside HTTP/2 between two of our proxies |

pub mod answer;
pub mod body;
pub mod carry;
mod date;
pub mod dial;
pub mod exchange;
pub mod exec;
pub mod filter;
pub mod head;
pub mod http1;
pub mod http2;
pub mod mirror;
pub mod plan;
pub mod router;
pub mod timeout;
pub mod upgrade;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use self::{
    http1::{Error, spelling::Known},
    plan::HttpPlan,
};
use crate::{
    config::{
        chain::Terminal,
        hcm::{Codec, Hcm},
        listener::Direction,
    },
    conn::{Conn, edge, io::Io},
    observe::stats::{Edge, HttpStats, Local},
    sniff::{Sniff, http::Version, http::detect},
    tls::is_carrier,
    worker::{Active, Endless},
};

/// How often a connection is looked at: is it idle, too old, in a process that drains?
const LOOK: Duration = Duration::from_secs(5);
/// How soon a draining process tells its connections.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// A new connection's first request must be complete within this time, unless the configuration says otherwise.
pub(crate) const FIRST_BYTES: Duration = Duration::from_secs(60);

/// One HTTP connection, shared by its exchanges.
pub struct HttpConn {
    pub conn: Rc<Conn>,
    plan: RefCell<Rc<HttpPlan>>,
    /// The configuration that `plan` was taken from.
    version: Cell<u64>,
    /// The filter chain is gone: no further requests should come.
    obsolete: Cell<bool>,
    stats: Local<HttpStats>,
    /// The peer is one of our proxies and may carry HTTP/1.1 in HTTP/2.
    pub carrier: bool,
    pub http2: bool,
    pub in_flight: Cell<u32>,
    pub requests: Cell<u32>,
    pub last: Cell<Instant>,
    pub edges: RefCell<Vec<(EdgeId, Edge)>>,
    /// The connection should end.
    end: Cell<Option<End>>,
    /// Whoever should be told.
    waker: RefCell<Option<Waker>>,
    /// How carried requests were written.
    pub spellings: RefCell<Known>,
}

impl HttpConn {
    /// The connection manager as of now. A connection outlives configurations: each request is served by the newest one,
    /// so that what a proxy has acknowledged holds for connections that were there before.
    pub fn plan(&self) -> Rc<HttpPlan> {
        let worker = &self.conn.worker;
        let version = worker.store.version();
        if self.version.replace(version) != version {
            let snapshot = worker.store.snapshot();
            let chain = snapshot
                .listeners
                .get(&self.conn.listener.name)
                .and_then(|listener| {
                    listener
                        .chains
                        .iter()
                        .chain(&listener.default_chain)
                        .find(|chain| chain.name == self.conn.chain.name)
                });
            match chain.map(|chain| &chain.terminal) {
                Some(Terminal::Http(hcm)) => {
                    self.obsolete.set(false);
                    if !Arc::ptr_eq(hcm, &self.plan.borrow().hcm) {
                        *self.plan.borrow_mut() = worker.plan(hcm);
                        self.edges.borrow_mut().clear();
                    }
                }
                _ => self.obsolete.set(true),
            }
        }
        self.plan.borrow().clone()
    }

    /// Should the connection end? If not yet, the task is woken when it should.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The next answer is the last one. (While the process drains, `answer` says so.)
    pub fn is_leaving(&self) -> bool {
        self.end.get().is_some_and(|end| end != End::Drain)
    }

    pub fn is_obsolete(&self) -> bool {
        self.obsolete.get()
    }

    /// Plaintext came in where mutual TLS is now required.
    pub fn is_refused(&self) -> bool {
        self.obsolete.get() && self.conn.facts.tls.is_none() && self.conn.direction() == Direction::Inbound
    }
}

/// Which edge an inbound connection's request belongs to: cluster and kind.
pub type EdgeId = (Arc<str>, crate::observe::RequestProtocol);

/// Serves HTTP until the connection ends.
pub async fn serve(conn: Rc<Conn>, hcm: Arc<Hcm>, mut io: Io) {
    let Some(http2) = speaks_http2(&conn, &hcm, &mut io).await else {
        return;
    };
    let plan = conn.worker.plan(&hcm);
    let carrier = conn
        .facts
        .tls
        .as_ref()
        .is_some_and(|tls| is_carrier(tls.alpn.as_deref().map(str::as_bytes)));
    if let Some(principal) = conn.principal() {
        *conn.peer_workload.borrow_mut() = Arc::new(edge::of_principal(principal));
    }
    let stats = plan.stats.clone();
    stats.downstream_cx_total.inc();
    stats.downstream_cx_active.inc();
    if conn.facts.tls.is_some() {
        stats.downstream_cx_ssl_total.inc();
    }
    let http = Rc::new(HttpConn {
        version: Cell::new(conn.worker.store.version()),
        conn,
        plan: RefCell::new(plan),
        obsolete: Cell::new(false),
        stats: stats.clone(),
        carrier,
        http2,
        in_flight: Cell::new(0),
        requests: Cell::new(0),
        last: Cell::new(Instant::now()),
        edges: RefCell::default(),
        end: Cell::new(None),
        waker: RefCell::default(),
        spellings: RefCell::default(),
    });
    if http2 {
        stats.downstream_cx_http2_total.inc();
        stats.downstream_cx_http2_active.inc();
        // A peer that was told to go may not have heard it yet: who leaves waits until it has gone.
        let worker = &http.conn.worker;
        let _counted = (Active::new(worker), Endless::new(worker));
        serve_http2(&http, &hcm, io).await;
        stats.downstream_cx_http2_active.dec();
    } else {
        stats.downstream_cx_http1_total.inc();
        stats.downstream_cx_http1_active.inc();
        serve_http1(&http, &hcm, io).await;
        stats.downstream_cx_http1_active.dec();
    }
    stats.downstream_cx_active.dec();
    stats.downstream_cx_destroy.inc();
    if http.in_flight.get() > 0 {
        stats.downstream_cx_destroy_remote_active_rq.inc();
    }
}

async fn serve_http1(http: &Rc<HttpConn>, hcm: &Arc<Hcm>, io: Io) {
    let watching = Watching::new(http, hcm);
    let result = http1::server::serve(http.clone(), hcm, io).await;
    drop(watching);
    if let Err(error) = result {
        if matches!(error, Error::Head(_) | Error::Body(_)) {
            http.stats.downstream_cx_protocol_error.inc();
        }
        tracing::debug!(remote = %http.conn.facts.remote, %error, "HTTP/1.x connection ended");
    }
}

async fn serve_http2(http: &Rc<HttpConn>, hcm: &Arc<Hcm>, io: Io) {
    let watching = Watching::new(http, hcm);
    let result = http2::server::serve(http, hcm, io).await;
    drop(watching);
    if let Err(error) = result {
        if error.is_library() {
            http.stats.downstream_cx_protocol_error.inc();
        }
        tracing::debug!(remote = %http.conn.facts.remote, %error, "HTTP/2 connection ended");
    }
}

/// A connection's watch: a task of its own, so that requests need not look at its timer.
struct Watching(tokio::task::AbortHandle);

impl Watching {
    fn new(http: &Rc<HttpConn>, hcm: &Arc<Hcm>) -> Self {
        let (http, hcm) = (http.clone(), hcm.clone());
        let task = tokio::task::spawn_local(async move {
            let end = watch(&http, &hcm).await;
            http.end.set(Some(end));
            if let Some(waker) = http.waker.borrow_mut().take() {
                waker.wake();
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Idle,
    Old,
    Drain,
}

/// Waits until the connection should end. Looks at it now and then; a request costs nothing here.
async fn watch(http: &HttpConn, hcm: &Hcm) -> End {
    let worker = &http.conn.worker;
    loop {
        let drained = async {
            worker.drain.drained().await;
            if worker.is_draining() {
                std::future::pending().await
            } else {
                tokio::time::sleep(DRAIN_LOOK).await
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = drained => {}
        }
        if worker.is_draining() {
            http.stats.downstream_cx_drain_close.inc();
            return End::Drain;
        }
        let idle = http.last.get().elapsed();
        let idle_limit = if http.requests.get() == 0 {
            Some(hcm.timeouts.request_headers.unwrap_or(FIRST_BYTES))
        } else {
            hcm.timeouts.idle
        };
        if http.in_flight.get() == 0 && idle_limit.is_some_and(|limit| idle >= limit) {
            http.stats.downstream_cx_idle_timeout.inc();
            return End::Idle;
        }
        if http.obsolete.get() && http.in_flight.get() == 0 {
            return End::Old;
        }
        if hcm
            .timeouts
            .max_connection
            .is_some_and(|limit| http.conn.started.elapsed() >= limit)
        {
            http.stats.downstream_cx_max_duration_reached.inc();
            return End::Old;
        }
    }
}

/// HTTP/2 or HTTP/1.x? `None`: the connection ended before that could be told.
async fn speaks_http2(conn: &Conn, hcm: &Hcm, io: &mut Io) -> Option<bool> {
    match hcm.codec {
        Codec::Http1 => return Some(false),
        Codec::Http2 => return Some(true),
        Codec::Auto => {}
    }
    match conn.facts.tls.as_ref().and_then(|tls| tls.alpn.as_deref()) {
        Some(alpn) if is_carrier(Some(alpn.as_bytes())) => return Some(true),
        Some("h2" | "istio-h2") => return Some(true),
        Some("http/1.1" | "http/1.0" | "istio-http/1.1" | "istio-http/1.0") => return Some(false),
        _ => {}
    }
    let mut first = BytesMut::with_capacity(4096);
    let limit = hcm.timeouts.request_headers.unwrap_or(FIRST_BYTES);
    // All of it, however many pieces it comes in.
    let end = tokio::time::Instant::now() + limit;
    loop {
        if !first.is_empty() {
            match detect(&first) {
                Sniff::NeedMore => {}
                Sniff::Found(Version::Http2) => {
                    io.unread(first.freeze());
                    return Some(true);
                }
                // What is neither is left to the HTTP/1.1 codec, which says what is wrong with it.
                Sniff::Found(_) | Sniff::Not => {
                    io.unread(first.freeze());
                    return Some(false);
                }
            }
        }
        match tokio::time::timeout_at(end, io.read_buf(&mut first)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return None,
            Err(_) => {
                conn.stats.downstream_pre_cx_timeout.inc();
                return None;
            }
        }
    }
}
