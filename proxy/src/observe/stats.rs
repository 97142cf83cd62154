//! The numbers: a registry of cells, one set per worker ([`Shard`]), merged when somebody scrapes.
//!
//! A worker asks for cells when it first touches a cluster, a listener or an edge, keeps the handle, and then only adds
//! to cells of its own: no lock and no shared cache line per request. The registry's lock is taken at first sight and by
//! the scrape. What bounds it: named groups follow the configuration ([`Stats::forget_clusters`] drops what left it);
//! label sets of the standard metrics are capped, and everything past the cap is counted under one set named `other`,
//! and `stats.label_sets_overflow` says how often that happened; those that nothing was counted for in a long time leave
//! ([`expire`]).

mod cell;
pub mod expire;
mod expose;
mod groups;
mod request;
mod sample;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use cell::{BOUNDS, Counter, Distribution, Gauge, Histogram, Local};
pub use expose::{json, prometheus, text};
pub use groups::{Cell, ClusterStats, ControlStats, Group, HostStats, HttpStats, ListenerStats, TcpStats};
pub use request::{Edge, RequestCells, TcpCells};
pub use sample::{Family, Sample, Value};

use super::labels::{ConnectionKey, EdgeKey, RequestKey};

/// How many label sets the request metrics and the TCP metrics may have, each.
pub const MAX_LABEL_SETS: usize = 2_000;
/// How many counters with free names ([`Shard::counter`]) there may be.
pub const MAX_NAMED_COUNTERS: usize = 4_000;

/// One worker's cells of one object, by shard number.
type Shards<T> = Vec<(u32, Arc<T>)>;

#[derive(Default)]
struct Registry {
    shards: u32,
    clusters: BTreeMap<Arc<str>, Shards<ClusterStats>>,
    hosts: BTreeMap<Arc<str>, BTreeMap<SocketAddr, Shards<HostStats>>>,
    listeners: BTreeMap<Arc<str>, Shards<ListenerStats>>,
    http: BTreeMap<Arc<str>, Shards<HttpStats>>,
    tcp: BTreeMap<Arc<str>, Shards<TcpStats>>,
    named: BTreeMap<Arc<str>, Shards<Counter>>,
    requests: HashMap<RequestKey, expire::Set<RequestCells>>,
    connections: HashMap<ConnectionKey, expire::Set<TcpCells>>,
}

struct Inner {
    registry: Mutex<Registry>,
    control: ControlStats,
    started: Instant,
    max_label_sets: usize,
}

/// All numbers of this process.
#[derive(Clone)]
pub struct Stats(Arc<Inner>);

impl Default for Stats {
    fn default() -> Self {
        Self::with_bound(MAX_LABEL_SETS)
    }
}

impl Stats {
    pub fn new() -> Self {
        Self::default()
    }

    /// With another bound on label sets.
    pub fn with_bound(max_label_sets: usize) -> Self {
        Self(Arc::new(Inner {
            registry: Mutex::default(),
            control: ControlStats::default(),
            started: Instant::now(),
            max_label_sets,
        }))
    }

    /// A new shard; call it on the worker's own thread.
    pub fn shard(&self) -> Shard {
        let mut registry = self.lock();
        registry.shards += 1;
        Shard {
            stats: self.clone(),
            number: registry.shards,
            edges: std::cell::RefCell::default(),
        }
    }

    /// The numbers of the control thread.
    pub fn control(&self) -> &ControlStats {
        &self.0.control
    }

    /// Seconds since the process's numbers began.
    pub fn uptime(&self) -> std::time::Duration {
        self.0.started.elapsed()
    }

    /// Drops the numbers of clusters that are neither configured nor still in use by a worker.
    pub fn forget_clusters(&self, configured: impl Fn(&str) -> bool) {
        let mut registry = self.lock();
        registry
            .clusters
            .retain(|name, shards| configured(name) || in_use(shards));
        // Endpoints come and go without the cluster: their numbers live as long as a worker holds them.
        registry.hosts.retain(|_, hosts| {
            hosts.retain(|_, shards| in_use(shards));
            !hosts.is_empty()
        });
    }

    /// Drops the numbers of listeners that are neither configured nor still in use by a worker.
    pub fn forget_listeners(&self, configured: impl Fn(&str) -> bool) {
        self.lock()
            .listeners
            .retain(|name, shards| configured(name) || in_use(shards));
    }

    /// One merged number of a cluster, for the `/clusters` page.
    pub fn cluster_value(&self, cluster: &str, stat: &str) -> u64 {
        let registry = self.lock();
        let Some(shards) = registry.clusters.get(cluster) else {
            return 0;
        };
        let mut sum = 0u64;
        for (_, group) in shards {
            for (name, cell) in group.cells() {
                if name == stat {
                    sum = sum.wrapping_add(match cell {
                        Cell::Counter(counter) => counter.get(),
                        Cell::Gauge(gauge) => gauge.get(),
                        Cell::Histogram(histogram) => histogram.count(),
                    });
                }
            }
        }
        sum
    }

    /// The merged numbers of one endpoint, by name.
    pub fn host_values(&self, cluster: &str, address: SocketAddr) -> Vec<(&'static str, u64)> {
        let registry = self.lock();
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        let shards = registry.hosts.get(cluster).and_then(|hosts| hosts.get(&address));
        for (_, group) in shards.into_iter().flatten() {
            for (index, (name, cell)) in group.cells().into_iter().enumerate() {
                let value = match cell {
                    Cell::Counter(counter) => counter.get(),
                    Cell::Gauge(gauge) => gauge.get(),
                    Cell::Histogram(histogram) => histogram.count(),
                };
                match sums.get_mut(index) {
                    Some((_, sum)) => *sum = sum.wrapping_add(value),
                    None => sums.push((name, value)),
                }
            }
        }
        sums
    }

    /// Everything, merged, ordered by name: what the pages print.
    pub fn collect(&self) -> Vec<Sample> {
        sample::collect(&self.lock(), &self.0.control)
    }

    // A panic while the lock is held leaves counters that are still counters: go on.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_use<T>(shards: &Shards<T>) -> bool {
    shards.iter().any(|(_, cells)| Arc::strong_count(cells) > 1)
}

/// A worker's share of the numbers. Not `Send`: it stays on the worker's thread.
pub struct Shard {
    stats: Stats,
    number: u32,
    /// Edges that somebody on this worker still holds.
    edges: std::cell::RefCell<HashMap<Arc<EdgeKey>, std::rc::Weak<request::EdgeInner>>>,
}

impl Shard {
    /// The numbers of a cluster. Keep the handle: this takes the registry's lock.
    pub fn cluster(&self, name: &str) -> Local<ClusterStats> {
        self.group(&mut self.stats.lock().clusters, name)
    }

    /// The numbers of one endpoint of a cluster. They live as long as the handle.
    pub fn host(&self, cluster: &str, address: SocketAddr) -> Local<HostStats> {
        let mut registry = self.stats.lock();
        if !registry.hosts.contains_key(cluster) {
            registry.hosts.insert(cluster.into(), BTreeMap::new());
        }
        Local::new(match registry.hosts.get_mut(cluster) {
            Some(hosts) => own(hosts.entry(address).or_default(), self.number),
            None => Arc::default(),
        })
    }

    /// The numbers of a listener, by its address with `_` for `:` as Envoy prints it (`0.0.0.0_15001`).
    pub fn listener(&self, address: &str) -> Local<ListenerStats> {
        self.group(&mut self.stats.lock().listeners, address)
    }

    /// The numbers of a connection manager, by its stat prefix.
    pub fn http(&self, prefix: &str) -> Local<HttpStats> {
        self.group(&mut self.stats.lock().http, prefix)
    }

    /// The numbers of a TCP proxy, by its stat prefix.
    pub fn tcp(&self, prefix: &str) -> Local<TcpStats> {
        self.group(&mut self.stats.lock().tcp, prefix)
    }

    /// A counter with a full name of its own, such as `http.inbound.rbac.policy.ns[a]-policy[b]-rule[0].allowed`.
    /// Past the bound all share the counter `stats.other`.
    pub fn counter(&self, name: &str) -> Local<Counter> {
        let mut registry = self.stats.lock();
        let full = registry.named.len() >= MAX_NAMED_COUNTERS && !registry.named.contains_key(name);
        self.group(&mut registry.named, if full { "stats.other" } else { name })
    }

    /// The edge's handle: the same cells for an equal key. Keep it with the connection or the cluster.
    pub fn edge(&self, key: EdgeKey) -> Edge {
        let mut edges = self.edges.borrow_mut();
        if let Some(inner) = edges.get(&key).and_then(std::rc::Weak::upgrade) {
            return Edge(inner);
        }
        // Dead entries go when the table is about to grow: it is never more than twice as large as what is alive.
        if edges.len() == edges.capacity() {
            edges.retain(|_, edge| edge.strong_count() > 0);
        }
        let key = Arc::new(key);
        let inner = std::rc::Rc::new(request::EdgeInner::new(
            Arc::clone(&key),
            self.stats.clone(),
            self.number,
        ));
        edges.insert(key, std::rc::Rc::downgrade(&inner));
        Edge(inner)
    }

    /// The registry this shard belongs to.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn group<G: Default>(&self, table: &mut BTreeMap<Arc<str>, Shards<G>>, name: &str) -> Local<G> {
        if !table.contains_key(name) {
            table.insert(name.into(), Vec::new());
        }
        Local::new(match table.get_mut(name) {
            Some(shards) => own(shards, self.number),
            None => Arc::default(),
        })
    }
}

/// The cells of shard `number` in a set, made if they are not there.
fn own<T: Default>(shards: &mut Shards<T>, number: u32) -> Arc<T> {
    if let Some((_, cells)) = shards.iter().find(|(shard, _)| *shard == number) {
        return Arc::clone(cells);
    }
    let cells = Arc::new(T::default());
    shards.push((number, Arc::clone(&cells)));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_and_forgotten() {
        let stats = Stats::new();
        let (one, two) = (stats.shard(), stats.shard());
        let handle = one.cluster("a");
        handle.upstream_rq_total.add(2);
        one.cluster("a").upstream_rq_total.inc();
        two.cluster("a").upstream_rq_total.inc();
        two.cluster("b").upstream_rq_total.inc();
        assert_eq!(stats.cluster_value("a", "upstream_rq_total"), 4);
        stats.forget_clusters(|_| false);
        assert_eq!(
            stats.cluster_value("a", "upstream_rq_total"),
            4,
            "a worker still holds it"
        );
        assert_eq!(stats.cluster_value("b", "upstream_rq_total"), 0);
        drop(handle);
        stats.forget_clusters(|_| false);
        assert_eq!(stats.cluster_value("a", "upstream_rq_total"), 0);
    }

    #[test]
    fn gauges_of_two_shards_add_up() {
        let stats = Stats::new();
        let (one, two) = (stats.shard(), stats.shard());
        one.listener("l").downstream_cx_active.inc();
        one.listener("l").downstream_cx_active.inc();
        two.listener("l").downstream_cx_active.dec();
        let samples = stats.collect();
        let sample = samples
            .iter()
            .find(|s| s.text_name() == "listener.l.downstream_cx_active");
        assert_eq!(sample.map(|s| &s.value), Some(&Value::Gauge(1)));
    }

    #[test]
    fn free_names_are_bounded() {
        let stats = Stats::new();
        let shard = stats.shard();
        for n in 0..MAX_NAMED_COUNTERS + 10 {
            shard.counter(&format!("x.{n}")).inc();
        }
        let others = stats
            .collect()
            .into_iter()
            .find(|s| s.text_name() == "stats.other");
        assert_eq!(others.map(|s| s.value), Some(Value::Counter(10)));
    }
}
