//! Mirrored requests: copies that go to another cluster beside the original, whose answers nobody waits for
//! (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/traffic_splitting>).
//!
//! A copy has the head that the upstream gets, with `-shadow` behind the host. A request without a body is copied at once.
//! For one with a body a [`Tee`] keeps references to the bytes as the original passes them on, and the copy goes when the
//! body is complete; so the original never waits for a copy, and a request whose route mirrors nothing pays nothing.
//!
//! Bounds, per worker: [`MOST`] copies at a time, [`BODY`] bytes of one body, [`KEPT`] bytes of all; what is beyond is not
//! copied and counted (`http.<prefix>.rq_mirror_dropped`). The connections are the copies' own ([`send`]), so that a slow
//! shadow takes none from the originals; they count for the shadow's cluster like any other.

mod send;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header, uri::PathAndQuery};

pub use send::Spares;

use super::{carry, exchange::Exchange};
use crate::{
    cluster::Upstream,
    config::action::{Forward, Mirror},
    observe::{
        stats::{HttpStats, Local},
        trace,
    },
    worker::Worker,
};

/// Copies on their way at a time.
const MOST: u32 = 256;
/// The most of one body that is kept for a copy.
const BODY: usize = 1 << 20;
/// The most of all bodies that is kept.
const KEPT: usize = 16 << 20;
/// A copy that is not answered within the route's timeout, or this, is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a worker's copies hold at the moment.
#[derive(Debug, Default)]
pub struct Load {
    copies: Cell<u32>,
    bytes: Cell<usize>,
}

/// The request as the upstream gets it.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    pub method: &'a Method,
    pub scheme: &'static str,
    pub authority: &'a HeaderValue,
    pub target: &'a PathAndQuery,
    pub headers: &'a HeaderMap,
    /// The application speaks HTTP/2.
    pub http2: bool,
    /// It asks to switch protocols: then there is nothing to copy.
    pub upgrade: bool,
}

/// One copy, without its body.
struct Copy {
    place: Place,
    upstream: Rc<Upstream>,
    origin: Option<std::net::SocketAddr>,
    method: Method,
    scheme: &'static str,
    authority: HeaderValue,
    target: PathAndQuery,
    headers: HeaderMap,
    http2: bool,
    limit: Duration,
}

/// Begins the copies that the route wants of a request. Its body, if it has one, must already be the exchange's source.
pub fn start(exchange: &Rc<Exchange>, forward: &Forward, original: &Original<'_>) {
    if original.upgrade || original.method == Method::CONNECT {
        return;
    }
    let list: Vec<Copy> = forward
        .mirrors
        .iter()
        .filter(|mirror| mirror.fraction.hit(exchange.http.conn.worker.random()))
        .filter_map(|mirror| copy(exchange, forward, mirror, original))
        .collect();
    if list.is_empty() {
        return;
    }
    let stats = exchange.plan.stats.clone();
    let copies = Copies { stats, list };
    match exchange.source.borrow().as_ref() {
        None => copies.go(&Content::default()),
        Some(source) => {
            // Should there be one already, this one is dropped, and its copies with it.
            let _ = source
                .tee
                .set(Tee::new(exchange.http.conn.worker.clone(), copies));
        }
    }
}

fn copy(exchange: &Exchange, forward: &Forward, mirror: &Mirror, original: &Original<'_>) -> Option<Copy> {
    let conn = &exchange.http.conn;
    let (worker, stats) = (&conn.worker, &exchange.plan.stats);
    let Some(upstream) = worker.clusters.get(&mirror.cluster, &worker.store, &worker.stats) else {
        stats.no_cluster.inc();
        stats.rq_mirror_dropped.inc();
        return None;
    };
    let Some(place) = Place::take(worker) else {
        stats.rq_mirror_dropped.inc();
        return None;
    };
    let mut headers = original.headers.clone();
    carry::strip_connection_headers(&mut headers);
    headers.remove(header::EXPECT);
    if mirror.trace == Some(false)
        && let Some(context) = exchange.trace.get()
    {
        let unsampled = trace::TraceContext {
            sampled: false,
            ..context
        };
        trace::inject(&unsampled, &mut headers);
    }
    let authority = if mirror.keep_host {
        original.authority.clone()
    } else {
        shadow(original.authority)
    };
    Some(Copy {
        place,
        upstream,
        origin: conn.origin,
        method: original.method.clone(),
        scheme: original.scheme,
        authority,
        target: original.target.clone(),
        headers,
        http2: original.http2,
        limit: forward.timeout.unwrap_or(PATIENCE).min(PATIENCE),
    })
}

/// `reviews:9080` to `reviews-shadow:9080`
fn shadow(authority: &HeaderValue) -> HeaderValue {
    let Ok(text) = authority.to_str() else {
        return authority.clone();
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => {
            (host, Some(port))
        }
        _ => (text, None),
    };
    let text = match port {
        Some(port) => format!("{host}-shadow:{port}"),
        None => format!("{host}-shadow"),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| authority.clone())
}

/// The copies of one request. Those that are still here when it is dropped were not sent.
struct Copies {
    stats: Local<HttpStats>,
    list: Vec<Copy>,
}

impl Copies {
    fn go(mut self, content: &Content) {
        for copy in self.list.drain(..) {
            self.stats.rq_mirrored.inc();
            let content = content.clone();
            tokio::task::spawn_local(async move { copy.deliver(content).await });
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.stats.rq_mirror_dropped.add(self.list.len() as u64);
    }
}

/// A place among the copies on their way.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let copies = &worker.mirroring.copies;
        (copies.get() < MOST).then(|| {
            copies.set(copies.get() + 1);
            Self(worker.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let copies = &self.0.mirroring.copies;
        copies.set(copies.get() - 1);
    }
}

/// A body: references to the bytes of the original.
#[derive(Clone, Default)]
pub struct Content {
    pieces: Rc<Pieces>,
    next: usize,
}

#[derive(Default)]
struct Pieces {
    list: Vec<Bytes>,
    /// Given back to the worker when the last copy is done.
    _kept: Option<Kept>,
}

/// Bytes that count for the worker's bound.
struct Kept {
    worker: Rc<Worker>,
    bytes: usize,
}

impl Kept {
    /// Is there room for so many more?
    fn grow(&mut self, more: usize) -> bool {
        let all = &self.worker.mirroring.bytes;
        if self.bytes + more > BODY || all.get() + more > KEPT {
            return false;
        }
        self.bytes += more;
        all.set(all.get() + more);
        true
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let all = &self.worker.mirroring.bytes;
        all.set(all.get() - self.bytes);
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.list.get(self.next).cloned();
        self.next += 1;
        std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.pieces.list.len()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let rest = self.pieces.list.iter().skip(self.next);
        http_body::SizeHint::with_exact(rest.map(|piece| piece.len() as u64).sum())
    }
}

/// Sees the body of a request pass, for its copies. Dropped before [`Tee::end`] means that the body never became
/// complete: then there is no copy.
pub struct Tee(RefCell<Option<Gathering>>);

struct Gathering {
    copies: Copies,
    list: Vec<Bytes>,
    kept: Kept,
}

impl Tee {
    fn new(worker: Rc<Worker>, copies: Copies) -> Self {
        Self(RefCell::new(Some(Gathering {
            copies,
            list: Vec::new(),
            kept: Kept { worker, bytes: 0 },
        })))
    }

    /// These bytes came from the downstream.
    pub fn data(&self, data: &Bytes) {
        let mut gathering = self.0.borrow_mut();
        if let Some(now) = gathering.as_mut() {
            if now.kept.grow(data.len()) {
                now.list.push(data.clone());
            } else {
                // Too large: what is kept goes at once.
                *gathering = None;
            }
        }
    }

    /// The body is complete. Trailers are not copied.
    pub fn end(&self) {
        if let Some(Gathering { copies, list, kept }) = self.0.borrow_mut().take() {
            let pieces = Rc::new(Pieces {
                list,
                _kept: Some(kept),
            });
            copies.go(&Content { pieces, next: 0 });
        }
    }
}

impl std::fmt::Debug for Tee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tee")
    }
}
