//! Sends copies: connections of their own to each endpoint, a few HTTP/1.1 ones that wait for their next copy, or one
//! HTTP/2 connection. To a proxy of the mesh a copy goes as any request does, so that it knows who sent it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Content, Copy};
use crate::{
    balance::outlier::Seen,
    cluster::{Picked, Upstream, connect::connect},
    conn::tcp::count_failure,
    decide::peer::{Speak, protocol},
    http::{carry, dial::dial, exec::LocalExec},
    tls::{
        client::{Purpose, is_mesh},
        is_carrier,
    },
    worker::Worker,
};

/// HTTP/1.1 connections to one endpoint that wait.
const WAITING: usize = 8;
/// They close when they have waited this long.
const IDLE: Duration = Duration::from_secs(30);
/// An answer longer than this is not read to its end; its connection closes.
const ANSWER: usize = 1 << 20;

/// Connections to one endpoint that are there for the next copy.
#[derive(Default)]
pub struct Spares {
    singles: RefCell<Vec<Single>>,
    shared: RefCell<Option<Rc<Shared>>>,
}

struct Single {
    sender: http1::SendRequest<Content>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<Content>,
    carrier: bool,
    introduced: Cell<bool>,
    since: Cell<Instant>,
}

enum Connection {
    Single(http1::SendRequest<Content>),
    Shared(Rc<Shared>),
}

impl Spares {
    fn take(&self) -> Option<Connection> {
        if let Some(shared) = &*self.shared.borrow()
            && !shared.sender.is_closed()
        {
            return Some(Connection::Shared(shared.clone()));
        }
        let mut singles = self.singles.borrow_mut();
        while let Some(single) = singles.pop() {
            if single.sender.is_ready() {
                return Some(Connection::Single(single.sender));
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        let since = Instant::now();
        match connection {
            Connection::Single(sender) => {
                let mut singles = self.singles.borrow_mut();
                if singles.len() < WAITING && !sender.is_closed() {
                    singles.push(Single { sender, since });
                }
            }
            Connection::Shared(shared) => shared.since.set(since),
        }
    }

    /// Closes what has waited for too long; returns how many.
    pub fn sweep(&self) -> usize {
        let (mut singles, mut shared) = (self.singles.borrow_mut(), self.shared.borrow_mut());
        let before = singles.len() + usize::from(shared.is_some());
        singles.retain(|single| !single.sender.is_closed() && single.since.elapsed() < IDLE);
        if shared
            .as_ref()
            .is_some_and(|one| Rc::strong_count(one) == 1 && one.since.get().elapsed() >= IDLE)
        {
            *shared = None;
        }
        before - singles.len() - usize::from(shared.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.singles.borrow().is_empty() && self.shared.borrow().is_none()
    }
}

/// Counts a copy at its cluster while it runs.
struct Flight<'a>(&'a Upstream);

impl<'a> Flight<'a> {
    fn new(upstream: &'a Upstream) -> Self {
        upstream.begin_request();
        upstream.stats.upstream_rq_active.inc();
        upstream.stats.upstream_rq_total.inc();
        Self(upstream)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.stats.upstream_rq_active.dec();
    }
}

impl Copy {
    /// Sends the copy and reads its answer away. Whatever goes wrong is counted and told to nobody.
    pub(super) async fn deliver(self, content: Content) {
        let upstream = self.upstream.clone();
        if upstream.requests.get() >= upstream.cluster.breakers.default.requests {
            upstream.stats.upstream_rq_pending_overflow.inc();
            return;
        }
        let worker = self.place.0.clone();
        let Ok(picked) = upstream.pick(&worker.stats, self.origin, None, worker.random(), &[]) else {
            upstream.stats.upstream_cx_none_healthy.inc();
            return;
        };
        let _flight = Flight::new(&upstream);
        let limit = self.limit;
        match tokio::time::timeout(limit, self.exchange(&worker, &picked, content)).await {
            Ok(Ok(status)) => {
                upstream.stats.answered(status.as_u16());
                picked.host.stats.rq_total.inc();
                if status.is_server_error() {
                    picked.host.stats.rq_error.inc();
                } else {
                    picked.host.stats.rq_success.inc();
                }
                picked.seen(Seen::Response(status.as_u16()));
            }
            Ok(Err(why)) => {
                tracing::debug!(cluster = %upstream.cluster.name, %why, "a mirrored request failed");
            }
            Err(_) => upstream.stats.upstream_rq_timeout.inc(),
        }
    }

    async fn exchange(
        self,
        worker: &Worker,
        picked: &Picked,
        content: Content,
    ) -> Result<StatusCode, String> {
        let spares = &picked.host.spares;
        let connection = match spares.take() {
            Some(connection) => connection,
            None => open(worker, &self.upstream, picked, self.http2).await?,
        };
        let (upstream, start) = (self.upstream.clone(), Instant::now());
        let failed = |error: hyper::Error| {
            picked.seen(Seen::Reset);
            upstream.stats.upstream_rq_rx_reset.inc();
            error.to_string()
        };
        let (response, connection) = match connection {
            Connection::Single(mut sender) => {
                let request = self.plain(content);
                let response = sender.send_request(request).await.map_err(failed)?;
                (response, Connection::Single(sender))
            }
            Connection::Shared(shared) => {
                let request = self.framed(content, &shared, worker);
                let mut sender = shared.sender.clone();
                let response = sender.send_request(request).await.map_err(failed)?;
                (response, Connection::Shared(shared))
            }
        };
        upstream.stats.upstream_rq_time.observe_time(start.elapsed());
        let status = response.status();
        if read_away(response).await {
            spares.put(connection);
        }
        Ok(status)
    }

    /// For HTTP/1.1.
    fn plain(self, content: Content) -> Request<Content> {
        let mut request = Request::new(content);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from(self.target);
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(header::HOST, self.authority);
        request
    }

    /// For HTTP/2.
    fn framed(mut self, content: Content, shared: &Shared, worker: &Worker) -> Request<Content> {
        if shared.carrier {
            if !self.http2 {
                carry::mark(&mut self.headers, None);
            }
            if !shared.introduced.replace(true) {
                carry::introduce(&mut self.headers, &worker.own.workload.to_metadata());
            }
        }
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.as_bytes())
            .path_and_query(self.target.clone())
            .build();
        let mut request = Request::new(content);
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from(self.target));
        *request.headers_mut() = self.headers;
        request
    }
}

/// Reads an answer to its end; `false` if that is not worth it.
async fn read_away(response: Response<Incoming>) -> bool {
    let mut body = response.into_body();
    let mut left = ANSWER;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

/// A new connection to the endpoint.
async fn open(
    worker: &Worker,
    upstream: &Upstream,
    picked: &Picked,
    http2: bool,
) -> Result<Connection, String> {
    let carries = picked.tls.as_deref().is_some_and(is_mesh);
    let speak = if carries {
        Speak::ByAlpn
    } else {
        protocol(&upstream.cluster, http2, picked.tls.as_deref())
    };
    let purpose = match speak {
        _ if carries => Purpose::Carried { http2 },
        Speak::Http2 => Purpose::Http2,
        Speak::Http1 | Speak::ByAlpn => Purpose::Http1,
    };
    let dial = dial(worker, upstream, picked, purpose).map_err(|error| error.to_string())?;
    upstream.stats.upstream_cx_total.inc();
    picked.host.stats.cx_total.inc();
    let connected = connect(&dial).await.map_err(|error| {
        picked.host.stats.cx_connect_fail.inc();
        picked.seen(Seen::ConnectFailed);
        count_failure(upstream, &error)
    })?;
    let carrier = is_carrier(connected.alpn.as_deref());
    let shared = match (speak, connected.alpn.as_deref()) {
        (Speak::Http1, _) => false,
        (_, Some(b"h2" | b"istio-h2")) => true,
        (_, Some(_)) => carrier,
        (speak, None) => speak == Speak::Http2,
    };
    let io = TokioIo::new(connected.io);
    if !shared {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        tokio::task::spawn_local(connection);
        return Ok(Connection::Single(sender));
    }
    let (sender, connection) = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .handshake(io)
        .await
        .map_err(|error| error.to_string())?;
    tokio::task::spawn_local(connection);
    let shared = Rc::new(Shared {
        sender,
        carrier,
        introduced: Cell::new(false),
        since: Cell::new(Instant::now()),
    });
    *picked.host.spares.shared.borrow_mut() = Some(shared.clone());
    Ok(Connection::Shared(shared))
}
