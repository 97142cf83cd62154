//! The connections of one worker to one endpoint, for HTTP. HTTP/1.1 connections serve one request at a time and wait in
//! a stack (the one used last is used first, so that spares grow old and are closed); HTTP/2 connections are shared.
//! While the protocol is not known yet, or is HTTP/2, requests wait for a connection that is being made instead of making
//! their own. Nothing here is shared between threads.
//!
//! Bounds: HTTP/2 streams per connection (the cluster's, at most [`STREAMS`]); idle connections close after the cluster's idle timeout
//! (`sweep`); the circuit breakers bound the rest.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::connect::{ConnectError, Connected};
use crate::{
    config::cluster::UpstreamHttp,
    http::{
        http1::{spelling::Known, wire::Wire},
        http2::client::{self, STREAMS, Sender},
    },
    observe::record::TlsFacts,
    tls::is_carrier,
};

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Http1,
    Http2,
    /// What the peer chooses in TLS.
    Negotiated,
}

/// A connection's facts, for logs, labels and rewriting.
#[derive(Debug)]
pub struct Facts {
    pub id: u64,
    pub address: SocketAddr,
    pub local: SocketAddr,
    pub tls: Option<Arc<TlsFacts>>,
    /// The peer is one of our proxies and takes HTTP/1.1 inside HTTP/2.
    pub carrier: bool,
    /// Was the peer told who we are? (Only to one of ours.)
    pub introduced: Cell<bool>,
}

/// An HTTP/1.1 connection, taken for one request.
pub struct Single {
    pub wire: Rc<Wire>,
    pub facts: Rc<Facts>,
    pub served: u32,
    since: Instant,
}

/// An HTTP/2 connection.
pub struct Shared {
    pub sender: Sender,
    pub facts: Rc<Facts>,
    /// How carried answers were written.
    pub known: RefCell<Known>,
    active: Cell<u32>,
    served: Cell<u32>,
    since: Cell<Instant>,
}

/// A stream's place on a shared connection; gives it back when dropped.
pub struct Stream(pub Rc<Shared>);

impl Stream {
    fn new(shared: Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        shared.served.set(shared.served.get() + 1);
        Self(shared)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// A connection for one request.
pub enum Lease {
    Single(Single),
    Shared(Stream),
}

impl Lease {
    pub fn facts(&self) -> &Rc<Facts> {
        match self {
            Self::Single(single) => &single.facts,
            Self::Shared(stream) => &stream.0.facts,
        }
    }
}

/// The connections to one endpoint.
#[derive(Default)]
pub struct Pool {
    singles: RefCell<Vec<Single>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Connections being made that others may wait for.
    dialing: Cell<u32>,
    arrived: Notify,
    failure: RefCell<Option<Rc<ConnectError>>>,
    /// What negotiation gave last time: is it shared?
    negotiated: Cell<Option<bool>>,
}

impl Pool {
    /// An existing connection that can take a request at once.
    fn existing(&self, want: Want, http: &UpstreamHttp) -> Option<Lease> {
        let (max_requests, streams) = (http.max_requests, STREAMS.min(http.http2.max_concurrent_streams));
        if want != Want::Http1 {
            let mut shared = self.shared.borrow_mut();
            shared.retain(|connection| !connection.sender.is_closed());
            let free = |connection: &&Rc<Shared>| {
                connection.active.get() < streams
                    && max_requests.is_none_or(|max| connection.served.get() < max)
            };
            if let Some(connection) = shared.iter().find(free) {
                return Some(Lease::Shared(Stream::new(connection.clone())));
            }
        }
        if want != Want::Http2 {
            let mut singles = self.singles.borrow_mut();
            while let Some(single) = singles.pop() {
                if single.wire.is_idle_and_open() && max_requests.is_none_or(|max| single.served < max) {
                    return Some(Lease::Single(single));
                }
            }
        }
        None
    }

    /// A connection: an existing one, one that is being made, or a new one from `dial`.
    pub async fn checkout<F>(
        &self,
        want: Want,
        http: &UpstreamHttp,
        dial: F,
    ) -> Result<Lease, Rc<ConnectError>>
    where
        F: AsyncFnOnce() -> Result<(Connected, u64), ConnectError>,
    {
        let may_share =
            want == Want::Http2 || want == Want::Negotiated && self.negotiated.get() != Some(false);
        loop {
            if let Some(lease) = self.existing(want, http) {
                return Ok(lease);
            }
            if !may_share || self.dialing.get() == 0 {
                break;
            }
            self.arrived.notified().await;
            if self.dialing.get() == 0
                && let Some(failure) = self.failure.borrow().clone()
            {
                return Err(failure);
            }
        }
        let dialing = may_share.then(|| Dialing::new(self));
        let result = self.establish(want, http, dial).await;
        if let Err(error) = &result {
            *self.failure.borrow_mut() = Some(error.clone());
        }
        drop(dialing);
        result
    }

    async fn establish<F>(&self, want: Want, http: &UpstreamHttp, dial: F) -> Result<Lease, Rc<ConnectError>>
    where
        F: AsyncFnOnce() -> Result<(Connected, u64), ConnectError>,
    {
        let (connected, id) = dial().await.map_err(Rc::new)?;
        let Connected {
            io,
            alpn,
            tls,
            local,
            address,
        } = connected;
        let carrier = is_carrier(alpn.as_deref());
        let shared = match (want, alpn.as_deref()) {
            (Want::Http1, _) => false,
            (_, Some(b"h2" | b"istio-h2")) => true,
            (_, Some(_)) => carrier,
            (want, None) => want == Want::Http2,
        };
        if want == Want::Negotiated {
            self.negotiated.set(Some(shared));
        }
        let facts = Rc::new(Facts {
            id,
            address,
            local,
            tls,
            carrier,
            introduced: Cell::new(false),
        });
        if shared {
            let sender = client::begin(io, http, address).await.map_err(|error| {
                Rc::new(ConnectError::Http {
                    address,
                    error: error.to_string(),
                })
            })?;
            let now = Instant::now();
            let shared = Rc::new(Shared {
                sender,
                facts,
                known: RefCell::default(),
                active: Cell::new(0),
                served: Cell::new(0),
                since: Cell::new(now),
            });
            self.shared.borrow_mut().push(shared.clone());
            Ok(Lease::Shared(Stream::new(shared)))
        } else {
            Ok(Lease::Single(Single {
                wire: Wire::new(io),
                facts,
                served: 0,
                since: Instant::now(),
            }))
        }
    }

    /// Takes an HTTP/1.1 connection back whose exchange ended in order.
    pub fn give_back(&self, mut single: Single) {
        if single.wire.is_reusable() {
            single.since = Instant::now();
            single.served += 1;
            self.singles.borrow_mut().push(single);
        }
    }

    /// Closes what has been idle for longer than `limit`; returns how many were closed.
    pub fn sweep(&self, limit: Option<Duration>) -> usize {
        let Some(limit) = limit else { return 0 };
        let (mut singles, mut shared) = (self.singles.borrow_mut(), self.shared.borrow_mut());
        let before = singles.len() + shared.len();
        singles.retain(|single| single.wire.is_idle_and_open() && single.since.elapsed() < limit);
        shared.retain(|connection| {
            !connection.sender.is_closed()
                && (connection.active.get() > 0 || connection.since.get().elapsed() < limit)
        });
        before - singles.len() - shared.len()
    }

    pub fn is_empty(&self) -> bool {
        self.singles.borrow().is_empty() && self.shared.borrow().is_empty() && self.dialing.get() == 0
    }
}

/// Counts a connection that others wait for; wakes them however it ends.
struct Dialing<'a>(&'a Pool);

impl<'a> Dialing<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.dialing.set(pool.dialing.get() + 1);
        pool.failure.borrow_mut().take();
        Self(pool)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(self.0.dialing.get() - 1);
        self.0.arrived.notify_waiters();
    }
}
