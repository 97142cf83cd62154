//! The upstream side of one worker: for each cluster in use its endpoints as of now, the balancer's state, what is
//! active and ejected, and the pools of connections. State appears when a cluster is first used and goes when the
//! cluster does; a change of endpoints keeps the pools of those that stay.

pub mod connect;
pub mod discover;
pub mod pool;
pub mod recent;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pool::Pool;
use recent::Recent;

use crate::{
    balance::{
        self, Ask, Cursor, Set, View,
        outlier::{Detector, Seen},
    },
    config::{
        cluster::{Cluster, Kind, Thresholds},
        endpoint::Endpoint,
        transport::UpstreamTls,
    },
    http::mirror::Spares,
    observe::{
        Shard,
        stats::{ClusterStats, Edge, HostStats, Local},
    },
    store::{Cell as EndpointCell, Reader},
};

/// Addresses of original destinations, or of clients that are told of, that one cluster remembers.
const MAX_ORIGINS: usize = 10_000;
/// Connections that tell of one client are of no use to others: they close when they have been idle for so long.
const CLIENT_IDLE: Duration = Duration::from_secs(30);

/// The clusters one worker has used.
#[derive(Default)]
pub struct Clusters {
    known: RefCell<HashMap<Arc<str>, Rc<Upstream>>>,
    version: Cell<u64>,
}

impl Clusters {
    /// The state of a cluster, or `None` if there is no such cluster.
    pub fn get(&self, name: &str, store: &Reader, shard: &Shard) -> Option<Rc<Upstream>> {
        let version = store.version();
        let mut known = self.known.borrow_mut();
        if self.version.replace(version) != version {
            let snapshot = store.snapshot();
            known.retain(|name, upstream| {
                snapshot
                    .clusters
                    .get(name)
                    .is_some_and(|cluster| Arc::ptr_eq(cluster, &upstream.cluster))
            });
        }
        if let Some(upstream) = known.get(name) {
            return Some(upstream.clone());
        }
        let cluster = store.snapshot().clusters.get(name)?.clone();
        let upstream = Rc::new(Upstream::new(cluster, store, shard));
        known.insert(upstream.cluster.name.clone(), upstream.clone());
        Some(upstream)
    }

    /// Closes idle connections.
    pub fn sweep(&self, store: &Reader) {
        let snapshot = store.snapshot();
        self.known.borrow_mut().retain(|name, upstream| {
            upstream.sweep();
            snapshot
                .clusters
                .get(name)
                .is_some_and(|cluster| Arc::ptr_eq(cluster, &upstream.cluster))
        });
    }
}

/// One cluster on one worker.
pub struct Upstream {
    pub cluster: Arc<Cluster>,
    pub stats: Local<ClusterStats>,
    endpoints: Option<Arc<EndpointCell>>,
    state: RefCell<State>,
    origins: RefCell<HashMap<SocketAddr, Rc<HostState>>>,
    /// Endpoints as seen by single clients, where connections tell who that is.
    clients: RefCell<HashMap<(SocketAddr, Client), Rc<HostState>>>,
    /// Requests that began lately, where that is what a retry budget counts.
    recent: Option<RefCell<Recent>>,
    /// Requests in flight, for the circuit breakers.
    pub requests: Cell<u32>,
    pub pending: Cell<u32>,
    pub retries: Cell<u32>,
}

struct State {
    set: Option<Arc<Set>>,
    cursor: Option<Cursor>,
    hosts: Vec<Rc<HostState>>,
    active: Vec<u32>,
    ejected: Vec<bool>,
    ejections: u64,
    detector: Option<Detector>,
}

/// One endpoint on one worker.
pub struct HostState {
    pub address: SocketAddr,
    /// Whom its connections tell of, and where that client wanted to go.
    pub client: Option<Client>,
    pub pool: Pool,
    /// Connections that carry nothing but HTTP/1.x: for upgrades and HTTP/1.0.
    pub plain_pool: Pool,
    /// Connections for copies of mirrored requests.
    pub spares: Spares,
    /// Metrics of requests to it, by protocol.
    pub edges: RefCell<[Option<Edge>; 3]>,
    pub stats: Local<HostStats>,
}

/// Source and destination of a client's connection.
pub type Client = (SocketAddr, SocketAddr);

impl HostState {
    fn new(address: SocketAddr, client: Option<Client>, cluster: &str, shard: &Shard) -> Rc<Self> {
        Rc::new(Self {
            address,
            client,
            pool: Pool::default(),
            plain_pool: Pool::default(),
            spares: Spares::default(),
            edges: RefCell::default(),
            stats: shard.host(cluster, address),
        })
    }
}

/// The endpoint for one attempt. Counts as active until dropped.
pub struct Picked {
    pub upstream: Rc<Upstream>,
    pub host: Rc<HostState>,
    /// `None` for an original destination.
    pub endpoint: Option<Arc<Endpoint>>,
    pub tls: Option<Arc<UpstreamTls>>,
    index: Option<u32>,
    generation: usize,
}

impl Picked {
    /// Position in the current set, to avoid it at the next attempt.
    pub fn index(&self) -> Option<u32> {
        self.index
    }

    /// With connections that tell the endpoint of this client, where the cluster wants that.
    pub fn on_behalf_of(mut self, client: Client, shard: &Shard) -> Self {
        if self.upstream.cluster.proxy_protocol.is_some() {
            self.host = self.upstream.host_of_client(self.host.address, client, shard);
        }
        self
    }

    /// Tells the outlier detector how it went.
    pub fn seen(&self, seen: Seen) {
        let (Some(index), Some(_)) = (self.index, &self.upstream.cluster.outlier) else {
            return;
        };
        let mut state = self.upstream.state.borrow_mut();
        if state.generation() != self.generation {
            return;
        }
        let Some(detector) = &mut state.detector else {
            return;
        };
        if detector.observe(index, seen, Instant::now()).is_some() {
            state.refresh_ejections();
            self.upstream
                .stats
                .outlier_detection_ejections_enforced_total
                .inc();
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            let mut state = self.upstream.state.borrow_mut();
            if state.generation() == self.generation
                && let Some(active) = state.active.get_mut(index as usize)
            {
                *active = active.saturating_sub(1);
            }
        }
    }
}

impl State {
    /// Tells sets apart: positions of another set mean nothing in this one.
    fn generation(&self) -> usize {
        self.set.as_ref().map_or(0, |set| Arc::as_ptr(set) as usize)
    }

    /// Brings back hosts whose time out is over.
    fn look_for_returns(&mut self) {
        if self
            .detector
            .as_mut()
            .is_some_and(|detector| detector.tick(Instant::now()))
        {
            self.refresh_ejections();
        }
    }

    fn refresh_ejections(&mut self) {
        if let Some(detector) = &self.detector {
            let now = Instant::now();
            for (index, ejected) in self.ejected.iter_mut().enumerate() {
                *ejected = detector.is_ejected(index as u32, now);
            }
            self.ejections += 1;
        }
    }
}

/// Why no endpoint could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHost {
    /// There is none, or none is healthy.
    Unhealthy,
    /// The connection was not redirected, so there is no original destination.
    NoOrigin,
}

impl Upstream {
    fn new(cluster: Arc<Cluster>, store: &Reader, shard: &Shard) -> Self {
        let stats = shard.cluster(&cluster.name);
        let budget = |limits: &Thresholds| limits.retry_budget?.interval;
        let interval = budget(&cluster.breakers.default).max(budget(&cluster.breakers.high));
        let endpoints = store.endpoints(&cluster.name);
        let state = State {
            set: None,
            cursor: None,
            hosts: Vec::new(),
            active: Vec::new(),
            ejected: Vec::new(),
            ejections: 0,
            detector: None,
        };
        Self {
            cluster,
            stats,
            endpoints,
            state: RefCell::new(state),
            origins: RefCell::default(),
            clients: RefCell::default(),
            recent: interval.map(|interval| RefCell::new(Recent::new(interval, Instant::now()))),
            requests: Cell::new(0),
            pending: Cell::new(0),
            retries: Cell::new(0),
        }
    }

    /// Chooses an endpoint. `origin` is the connection's original destination, for clusters that go there.
    pub fn pick(
        self: &Rc<Self>,
        shard: &Shard,
        origin: Option<SocketAddr>,
        hash: Option<u64>,
        random: u64,
        tried: &[u32],
    ) -> Result<Picked, NoHost> {
        if let Kind::OriginalDst { port, .. } = &self.cluster.kind {
            let mut origin = origin.ok_or(NoHost::NoOrigin)?;
            if let Some(port) = port {
                origin.set_port(*port);
            }
            return Ok(self.pick_origin(origin, shard));
        }
        self.refresh(shard);
        let mut state = self.state.borrow_mut();
        let State {
            set,
            cursor,
            active,
            ejected,
            ejections,
            hosts,
            ..
        } = &mut *state;
        let (Some(set), Some(cursor)) = (set, cursor) else {
            return Err(NoHost::Unhealthy);
        };
        let view = View {
            ejected,
            active,
            generation: *ejections,
            now: set.slow_start.map(|_| Instant::now()),
        };
        let ask = Ask { hash, random, tried };
        let index = balance::pick(set, cursor, &view, &ask).ok_or(NoHost::Unhealthy)?;
        let chosen = &set.hosts[index as usize];
        active[index as usize] += 1;
        Ok(Picked {
            upstream: self.clone(),
            host: hosts[index as usize].clone(),
            endpoint: Some(chosen.endpoint.clone()),
            tls: chosen.transport.clone(),
            index: Some(index),
            generation: Arc::as_ptr(set) as usize,
        })
    }

    fn pick_origin(self: &Rc<Self>, address: SocketAddr, shard: &Shard) -> Picked {
        let mut origins = self.origins.borrow_mut();
        if origins.len() >= MAX_ORIGINS {
            origins.retain(|_, host| Rc::strong_count(host) > 1);
        }
        let host = origins
            .entry(address)
            .or_insert_with(|| HostState::new(address, None, &self.cluster.name, shard))
            .clone();
        let tls = self.cluster.transport.clone();
        Picked {
            upstream: self.clone(),
            host,
            endpoint: None,
            tls,
            index: None,
            generation: 0,
        }
    }

    fn host_of_client(&self, address: SocketAddr, client: Client, shard: &Shard) -> Rc<HostState> {
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= MAX_ORIGINS {
            clients.retain(|_, host| Rc::strong_count(host) > 1);
        }
        clients
            .entry((address, client))
            .or_insert_with(|| HostState::new(address, Some(client), &self.cluster.name, shard))
            .clone()
    }

    /// A request begins.
    pub fn begin_request(&self) {
        self.requests.set(self.requests.get() + 1);
        if let Some(recent) = &self.recent {
            recent.borrow_mut().add(Instant::now());
        }
    }

    /// May there be one more retry?
    pub fn may_retry(&self, limits: &Thresholds) -> bool {
        let limit = match limits.retry_budget {
            None => limits.retries,
            Some(budget) => budget.limit(match &self.recent {
                Some(recent) if budget.interval.is_some() => recent.borrow_mut().count(Instant::now()),
                // The one that is to be repeated is under way too.
                _ => self.requests.get().max(1),
            }),
        };
        self.retries.get() < limit
    }

    /// Takes over new endpoints, if there are any.
    fn refresh(&self, shard: &Shard) {
        let Some(cell) = &self.endpoints else { return };
        let mut state = self.state.borrow_mut();
        if state.set.as_ref().is_some_and(|set| cell.is_current(set)) {
            state.look_for_returns();
            return;
        }
        let newest = cell.load();
        let mut old: HashMap<SocketAddr, Rc<HostState>> =
            state.hosts.drain(..).map(|host| (host.address, host)).collect();
        state.hosts = newest
            .hosts
            .iter()
            .map(|host| {
                old.remove(&host.address)
                    .unwrap_or_else(|| HostState::new(host.address, None, &self.cluster.name, shard))
            })
            .collect();
        for host in &state.hosts {
            // Labels belong to the endpoint's metadata, which may have changed with it.
            host.edges.take();
        }
        let count = newest.hosts.len();
        state.active = vec![0; count];
        state.ejected = vec![false; count];
        state.ejections += 1;
        state.cursor = Some(Cursor::new(&newest, rand::random()));
        state.detector = self.cluster.outlier.map(|outlier| Detector::new(outlier, count));
        state.set = Some(newest);
    }

    fn sweep(&self) {
        let limit = self.cluster.http.idle_timeout;
        let state = self.state.borrow();
        let mut closed = 0;
        for host in &state.hosts {
            closed += host.pool.sweep(limit) + host.plain_pool.sweep(limit) + host.spares.sweep();
        }
        let mut sweep = |host: &Rc<HostState>, limit: Option<Duration>| {
            closed += host.pool.sweep(limit) + host.plain_pool.sweep(limit) + host.spares.sweep();
            let open = !host.pool.is_empty() || !host.plain_pool.is_empty() || !host.spares.is_empty();
            open || Rc::strong_count(host) > 1
        };
        self.origins.borrow_mut().retain(|_, host| sweep(host, limit));
        let brief = Some(limit.map_or(CLIENT_IDLE, |limit| limit.min(CLIENT_IDLE)));
        self.clients.borrow_mut().retain(|_, host| sweep(host, brief));
        self.stats.upstream_cx_idle_timeout.add(closed as u64);
    }
}
