//! What the workers serve: one immutable snapshot of the configuration, swapped whole, and beside it one cell per
//! cluster for its endpoints, so that an endpoint change swaps nothing else.
//!
//! `xds::apply` is the only writer of snapshots (and of endpoints, with `cluster::discover` for names that are looked
//! up). A worker reads through its [`Reader`]: one atomic load tells whether anything changed; the snapshot itself is
//! held by the worker, so no reference count is shared on the path.

mod ledger;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    balance::Set,
    config::{
        cluster::{Cluster, Kind},
        listener::{Direction, Listener},
    },
    snapshot::Snapshot,
};

pub use ledger::{Failure, Ledger, Row, State};

/// The endpoints of one cluster.
pub struct Cell {
    set: ArcSwap<Set>,
    /// Somebody has filled it; until then nobody knows whether there are endpoints.
    filled: AtomicBool,
}

impl Cell {
    /// The endpoints as of now.
    pub fn load(&self) -> Arc<Set> {
        self.set.load_full()
    }

    /// Are these the endpoints as of now? Cheaper than loading them: no shared reference count is touched.
    pub fn is_current(&self, known: &Arc<Set>) -> bool {
        Arc::ptr_eq(&self.set.load(), known)
    }

    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }
}

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    version: AtomicU64,
    changes: watch::Sender<u64>,
    /// Counts fillings of empty cells: what waits for endpoints looks again.
    filled: watch::Sender<u64>,
    endpoints: Mutex<HashMap<Arc<str>, Arc<Cell>>>,
    ledger: Mutex<Ledger>,
    /// Listeners that were closed by hand stay closed, whatever is published.
    closed: Mutex<Option<Closed>>,
    /// By worker: the version it looked at, and how many of its listeners could not be bound.
    bound: watch::Sender<HashMap<usize, (u64, usize)>>,
}

/// Which listeners were closed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    Inbound,
    All,
}

impl Closed {
    fn covers(self, listener: &Listener) -> bool {
        self == Self::All || listener.direction == Direction::Inbound
    }
}

/// The configuration of this process.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl Default for Store {
    fn default() -> Self {
        Self(Arc::new(Inner {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            version: AtomicU64::new(0),
            changes: watch::channel(0).0,
            filled: watch::channel(0).0,
            endpoints: Mutex::default(),
            ledger: Mutex::default(),
            closed: Mutex::default(),
            bound: watch::channel(HashMap::new()).0,
        }))
    }
}

// A panic while one of these locks is held leaves plain data behind: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub fn new() -> Self {
        Self::default()
    }

    /// A worker's reader; call it on the worker's own thread.
    pub fn reader(&self) -> Reader {
        let held = (self.version(), Rc::new(self.snapshot()));
        Reader {
            store: self.clone(),
            held: RefCell::new(held),
        }
    }

    /// The configuration as of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// Counts swaps of the snapshot.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Wakes at each swap.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Wakes when an empty endpoint cell was filled.
    pub fn fillings(&self) -> watch::Receiver<u64> {
        self.0.filled.subscribe()
    }

    /// Puts a new snapshot in force and returns its version. Cells of clusters that left are dropped; workers that
    /// still use one keep theirs.
    pub fn publish(&self, mut snapshot: Snapshot) -> u64 {
        if let Some(closed) = *lock(&self.0.closed) {
            snapshot
                .listeners
                .retain(|_, listener| !(listener.bind && closed.covers(listener)));
        }
        for cluster in snapshot.clusters.values() {
            self.cell(cluster);
        }
        let snapshot = Arc::new(snapshot);
        lock(&self.0.endpoints).retain(|name, _| snapshot.clusters.contains_key(name));
        self.0.snapshot.store(snapshot);
        let version = self.0.version.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.changes.send_replace(version);
        version
    }

    /// Closes the listening sockets (only the inbound ones, if asked so) for good; connections live on. Returns how many.
    pub fn close_listeners(&self, inbound_only: bool) -> usize {
        *lock(&self.0.closed) = Some(if inbound_only {
            Closed::Inbound
        } else {
            Closed::All
        });
        let before = self.snapshot();
        self.publish((*before).clone());
        before.listeners.len() - self.snapshot().listeners.len()
    }

    /// Were listeners closed by hand?
    pub fn is_closed(&self) -> bool {
        lock(&self.0.closed).is_some()
    }

    /// Gives a cluster its endpoints. Workers see them at the next request.
    pub fn set_endpoints(&self, cluster: &Cluster, mut set: Set) {
        let Some(cell) = self.cell(cluster) else { return };
        set.follow(&cell.set.load(), Instant::now());
        cell.set.store(Arc::new(set));
        if !cell.filled.swap(true, Ordering::AcqRel) {
            self.0.filled.send_modify(|count| *count += 1);
        }
    }

    /// The endpoints of a cluster; `None` if there is no such cluster, or it goes to original destinations.
    pub fn endpoints(&self, cluster: &str) -> Option<Arc<Cell>> {
        lock(&self.0.endpoints).get(cluster).cloned()
    }

    /// The cell of a cluster, made if it is new; none for a cluster that goes to original destinations.
    fn cell(&self, cluster: &Cluster) -> Option<Arc<Cell>> {
        if matches!(cluster.kind, Kind::OriginalDst { .. }) {
            return None;
        }
        let mut endpoints = lock(&self.0.endpoints);
        if let Some(cell) = endpoints.get(&cluster.name) {
            return Some(cell.clone());
        }
        // Endpoints that need no look-up are there at once.
        let known = Set::build(cluster, &cluster.assignment, |address| {
            address.socket().into_iter().collect()
        });
        let filled = matches!(cluster.kind, Kind::Static);
        let cell = Arc::new(Cell {
            set: ArcSwap::from_pointee(known),
            filled: AtomicBool::new(filled),
        });
        endpoints.insert(cluster.name.clone(), cell.clone());
        Some(cell)
    }

    /// Reads or writes the account of what was received; for admin pages and for `xds::apply`.
    pub fn ledger<T>(&self, f: impl FnOnce(&mut Ledger) -> T) -> T {
        f(&mut lock(&self.0.ledger))
    }

    /// Waits until `workers` workers have bound all listeners of the configuration in force now.
    pub async fn listening(&self, workers: usize) {
        let version = self.version();
        let done = |bound: &HashMap<usize, (u64, usize)>| {
            bound
                .values()
                .filter(|(seen, missing)| *seen >= version && *missing == 0)
                .count()
                >= workers
        };
        // The sender lives in `self`, so this cannot fail.
        let _ = self.0.bound.subscribe().wait_for(done).await;
    }
}

/// A worker's way to the store. Not `Send`.
pub struct Reader {
    store: Store,
    held: RefCell<(u64, Rc<Arc<Snapshot>>)>,
}

impl Reader {
    /// The configuration as of now. Costs one atomic load while nothing has changed.
    pub fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        let version = self.store.version();
        let mut held = self.held.borrow_mut();
        if held.0 != version {
            // The snapshot is stored before the version grows: what is read here is that version or a later one.
            *held = (version, Rc::new(self.store.snapshot()));
        }
        held.1.clone()
    }

    pub fn version(&self) -> u64 {
        self.store.version()
    }

    /// Wakes at each swap.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    pub fn endpoints(&self, cluster: &str) -> Option<Arc<Cell>> {
        self.store.endpoints(cluster)
    }

    /// The worker has opened the sockets of the snapshot it holds, but for `missing` of them.
    pub fn report_bound(&self, worker: usize, missing: usize) {
        let version = self.held.borrow().0;
        self.store.0.bound.send_modify(|bound| {
            bound.insert(worker, (version, missing));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_see_swaps_and_listening_waits_for_sockets() {
        let store = Store::new();
        let (one, two) = (store.reader(), store.reader());
        one.report_bound(0, 0);
        two.report_bound(1, 0);
        let before = one.snapshot();
        assert!(Rc::ptr_eq(&before, &one.snapshot()), "nothing changed");
        assert_eq!(store.publish(Snapshot::default()), 1);
        assert!(!Rc::ptr_eq(&before, &one.snapshot()));
        let listening = store.listening(2);
        tokio::pin!(listening);
        let soon = std::time::Duration::from_millis(10);
        assert!(
            tokio::time::timeout(soon, &mut listening).await.is_err(),
            "the workers have not seen it"
        );
        one.report_bound(0, 0);
        two.snapshot();
        two.report_bound(1, 1);
        assert!(
            tokio::time::timeout(soon, &mut listening).await.is_err(),
            "a listener is not bound"
        );
        two.report_bound(1, 0);
        listening.await;
        assert_eq!(one.version(), 1);
    }
}
