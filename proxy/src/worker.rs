//! A worker: one OS thread with one single-threaded runtime. It owns its listening sockets, connections, pools and
//! counters; nothing on the request path is shared with another thread but the immutable configuration.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use mesh_runtime::{drain::Drain, tls::IdentityCell};

use crate::{
    cluster::Clusters,
    config::{chain::TcpProxy, hcm::Hcm, listener::Listener, log::AccessLog, route::RouteConfig},
    conn::track,
    http::{mirror::Load, plan::HttpPlan, timeout::Timers},
    listen::{grace::Sources, sockets::Sockets},
    observe::{
        Shard, Workload,
        access_log::Plan,
        outlet::Recorder,
        stats::{ListenerStats, Local},
    },
    store::{Reader, Store},
    tls::resolve::Resolver,
};

/// How often idle connections and unused state are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// Addresses remembered as speaking first.
const MAX_LEARNED: usize = 1024;

/// Who this proxy works for, as it tells its peers and labels its metrics.
#[derive(Clone, Debug, Default)]
pub struct Own {
    pub workload: Arc<Workload>,
}

/// Everything a worker has. Lives on its thread in an `Rc`.
pub struct Worker {
    pub number: usize,
    pub store: Reader,
    pub identity: IdentityCell,
    pub own: Own,
    pub tls: Resolver,
    pub stats: Shard,
    pub recorder: Recorder,
    pub clusters: Clusters,
    pub drain: Drain,
    /// The listening sockets of the process.
    pub sockets: Arc<Sockets>,
    /// How the sources of connections begin.
    pub sources: Sources,
    /// Open connections, as the admin page lists them.
    pub open: track::Mine,
    /// Copies of mirrored requests.
    pub mirroring: Load,
    /// What may take too long.
    pub timers: Rc<Timers>,
    /// Requests and TCP connections in flight.
    pub active: Cell<usize>,
    /// Of these, what has no end of its own: TCP connections, and requests that became tunnels.
    pub endless: Cell<usize>,
    /// Open connections.
    pub connections: Cell<usize>,
    draining: Cell<bool>,
    random: Cell<u64>,
    next_id: Cell<u64>,
    plans: RefCell<HashMap<usize, Rc<HttpPlan>>>,
    /// By the address of the first log.
    tcp_plans: RefCell<TcpPlans>,
    routes: RefCell<HashMap<Arc<str>, Rc<Arc<RouteConfig>>>>,
    routes_version: Cell<u64>,
    /// Destinations whose servers were seen to speak first: their clients' bytes are not waited for.
    server_first: RefCell<HashSet<SocketAddr>>,
    listeners: RefCell<HashMap<Arc<str>, Local<ListenerStats>>>,
    principal: RefCell<Option<(usize, Arc<str>)>>,
}

/// Compiled logs by the address of the first log they were made from.
type TcpPlans = HashMap<usize, (Weak<AccessLog>, Arc<Plan>)>;

/// What all workers are made from.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub identity: IdentityCell,
    pub own: Own,
    pub stats: crate::observe::Stats,
    pub outlet: crate::observe::outlet::Outlet,
    pub connections: track::Connections,
    pub sockets: Arc<Sockets>,
    pub drain: Drain,
}

impl Worker {
    pub fn new(number: usize, parts: &Parts) -> Rc<Self> {
        let Parts {
            store,
            identity,
            own,
            stats,
            outlet,
            connections,
            sockets,
            drain,
        } = parts.clone();
        Rc::new(Self {
            number,
            store: store.reader(),
            identity,
            own,
            tls: Resolver::default(),
            stats: stats.shard(),
            recorder: outlet.recorder(),
            clusters: Clusters::default(),
            drain,
            sockets,
            sources: Sources::default(),
            open: connections.worker(),
            mirroring: Load::default(),
            timers: Rc::default(),
            active: Cell::new(0),
            endless: Cell::new(0),
            connections: Cell::new(0),
            draining: Cell::new(false),
            random: Cell::new(rand::random::<u64>() | 1),
            next_id: Cell::new(0),
            plans: RefCell::default(),
            tcp_plans: RefCell::default(),
            routes: RefCell::default(),
            routes_version: Cell::new(0),
            server_first: RefCell::default(),
            listeners: RefCell::default(),
            principal: RefCell::default(),
        })
    }

    /// A random number for balancing, sampling and weights (xorshift64*): not for secrets.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number for a connection, unique in this process.
    pub fn next_id(&self) -> u64 {
        let next = self.next_id.get() + 1;
        self.next_id.set(next);
        (self.number as u64) << 48 | next
    }

    /// Is the process leaving?
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Does the server at this address speak first?
    pub fn speaks_first(&self, address: SocketAddr) -> bool {
        self.server_first.borrow().contains(&address)
    }

    /// Remembers whether the server at this address speaks first.
    pub fn learn_first(&self, address: SocketAddr, server_first: bool) {
        let mut known = self.server_first.borrow_mut();
        if !server_first {
            known.remove(&address);
        } else {
            if known.len() >= MAX_LEARNED {
                known.clear();
            }
            known.insert(address);
        }
    }

    /// The numbers of a listener.
    pub fn listener_stats(&self, listener: &Listener) -> Local<ListenerStats> {
        let mut listeners = self.listeners.borrow_mut();
        if let Some(stats) = listeners.get(&listener.name) {
            return stats.clone();
        }
        let snapshot = self.store.snapshot();
        listeners.retain(|name, _| snapshot.listeners.contains_key(name));
        let stats = self
            .stats
            .listener(&listener.address.to_string().replace(':', "_"));
        listeners.insert(listener.name.clone(), stats.clone());
        stats
    }

    /// This proxy's own proven identity, if it has one.
    pub fn principal(&self) -> Option<Arc<str>> {
        let identity = self.identity.get()?;
        let key = Arc::as_ptr(&identity) as usize;
        let mut kept = self.principal.borrow_mut();
        if let Some((seen, principal)) = &*kept
            && *seen == key
        {
            return Some(principal.clone());
        }
        let principal: Arc<str> = identity.uris().into_iter().next()?.into();
        *kept = Some((key, principal.clone()));
        Some(principal)
    }

    /// What this worker keeps for a connection manager.
    pub fn plan(&self, hcm: &Arc<Hcm>) -> Rc<HttpPlan> {
        let key = Arc::as_ptr(hcm) as usize;
        let mut plans = self.plans.borrow_mut();
        if let Some(plan) = plans.get(&key) {
            return plan.clone();
        }
        // Those that no listener and no connection uses any more go when a new one comes.
        plans.retain(|_, plan| Rc::strong_count(plan) > 1 || Arc::strong_count(&plan.hcm) > 1);
        let plan = Rc::new(HttpPlan::new(hcm.clone(), &self.stats));
        plans.insert(key, plan.clone());
        plan
    }

    /// The compiled logs of a TCP proxy.
    pub fn tcp_plan(&self, proxy: &TcpProxy) -> Arc<Plan> {
        let Some(first) = proxy.access_log.first() else {
            return Arc::default();
        };
        let key = Arc::as_ptr(first) as usize;
        let mut plans = self.tcp_plans.borrow_mut();
        if let Some((_, plan)) = plans
            .get(&key)
            .filter(|(log, _)| log.ptr_eq(&Arc::downgrade(first)))
        {
            return plan.clone();
        }
        plans.retain(|_, (log, _)| log.strong_count() > 1);
        let plan = Arc::new(Plan::compile(&proxy.access_log));
        plans.insert(key, (Arc::downgrade(first), plan.clone()));
        plan
    }

    /// The route configuration of this name, as of now.
    pub fn routes(&self, name: &Arc<str>) -> Option<Rc<Arc<RouteConfig>>> {
        let version = self.store.version();
        let mut routes = self.routes.borrow_mut();
        if self.routes_version.replace(version) != version {
            routes.clear();
        }
        if let Some(found) = routes.get(name) {
            return Some(found.clone());
        }
        let found = Rc::new(self.store.snapshot().routes.get(name)?.clone());
        routes.insert(name.clone(), found.clone());
        Some(found)
    }

    /// Looks after what is idle, until the worker's runtime ends.
    pub async fn housekeeping(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.clusters.sweep(&self.store);
        }
    }

    /// Marks the worker as leaving when the process drains.
    pub async fn watch_drain(self: Rc<Self>) {
        self.drain.drained().await;
        self.draining.set(true);
    }
}

/// Counts something in flight while it lives.
pub struct Active(Rc<Worker>);

impl Active {
    pub fn new(worker: &Rc<Worker>) -> Self {
        worker.active.set(worker.active.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// Says of something that is counted that it has no end of its own.
pub struct Endless(Rc<Worker>);

impl Endless {
    pub fn new(worker: &Rc<Worker>) -> Self {
        worker.endless.set(worker.endless.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.endless.set(self.0.endless.get() - 1);
    }
}
