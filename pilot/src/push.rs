//! The loop that turns changes of objects into changes of what proxies shall have.
//!
//! One task ([`Loop::run`]) takes batches of changes from the sources, makes the next snapshot, works out which kinds of
//! viewers ([`Class`]) get anything else than before, and tells only their proxies. The [`Hub`] is what it shares with the
//! streams and the debug pages: the snapshot, the classes, the connected proxies.
//!
//! Bounds: changes wait in the source's bounded channel; a class lives only as long as a proxy of it is connected; a
//! proxy has at most one push pending, into which later ones are merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use mesh_proto::{
    finding::Finding,
    kube::{Kind, ObjectKey},
};
use mesh_runtime::{drain::Drain, ready::Gate};
use tokio::sync::mpsc;

use crate::{
    analyze,
    ingest::Change,
    metrics::Metrics,
    plan::{affected, debounce::Debounce},
    registry::Registry,
    serve::proxy::Proxy,
    snapshot::Snapshot,
    store::Store,
    view::Viewer,
};

mod cache;
mod class;

pub use cache::Cache;
pub use class::{Catalog, Class, Classes};

/// How many batches are gathered into one push at most.
const GATHER: usize = 1024;

/// Deleted objects whose moments are remembered, at least.
const DELETED: usize = 10_000;

/// An object's place in time, for those who wait until the proxies have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The snapshot in which its meaning last changed.
    pub sequence: u64,
}

/// What the loop shares.
#[derive(Debug)]
pub struct Hub {
    snapshot: ArcSwap<Snapshot>,
    classes: Classes,
    proxies: Mutex<BTreeMap<u64, Arc<Proxy>>>,
    cache: Cache,
    store: Mutex<Store>,
    registry: Mutex<Registry>,
    /// `None`: something has changed since they were found out.
    findings: Mutex<Option<Arc<[Finding]>>>,
    moments: Mutex<BTreeMap<(Kind, ObjectKey), Moment>>,
    next: AtomicU64,
    pub metrics: Metrics,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind it is replaced as a whole, never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// `salt` names this build: see [`mesh_proto::xds::Version::of`].
    pub fn new(salt: u64, metrics: Metrics) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            classes: Classes::default(),
            proxies: Mutex::default(),
            cache: Cache::new(salt),
            store: Mutex::default(),
            registry: Mutex::default(),
            findings: Mutex::default(),
            moments: Mutex::default(),
            next: AtomicU64::new(1),
            metrics,
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// A number that no other stream of this process has.
    pub fn stream_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The class of a viewer; it lives as long as somebody holds it.
    pub fn class(&self, viewer: Viewer) -> Arc<Class> {
        self.classes.class(viewer)
    }

    /// What a class gets by the newest snapshot.
    pub fn catalog(&self, class: &Class) -> (Catalog, u64) {
        class.refresh(&self.snapshot(), &self.classes, &self.cache)
    }

    pub fn connect(&self, proxy: Arc<Proxy>) {
        lock(&self.proxies).insert(proxy.number, proxy);
        self.metrics.connected.set(self.connected());
    }

    pub fn disconnect(&self, number: u64) {
        lock(&self.proxies).remove(&number);
        self.metrics.connected.set(self.connected());
    }

    fn connected(&self) -> i64 {
        i64::try_from(lock(&self.proxies).len()).unwrap_or(i64::MAX)
    }

    /// The connected proxies, oldest stream first.
    pub fn proxies(&self) -> Vec<Arc<Proxy>> {
        lock(&self.proxies).values().cloned().collect()
    }

    /// A proxy by its people's name, `pod.namespace`.
    pub fn proxy(&self, name: &str) -> Option<Arc<Proxy>> {
        // The newest stream counts: an older one of the same name is about to end.
        lock(&self.proxies)
            .values()
            .rev()
            .find(|proxy| proxy.name() == name)
            .cloned()
    }

    /// Reads what is stored. The closure must be short: pushes wait for it.
    pub fn with_store<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&lock(&self.store))
    }

    /// What is wrong with objects alone, and between them. Found out when somebody asks, not when something changes:
    /// proxies need not wait for it.
    pub fn findings(&self) -> Arc<[Finding]> {
        if let Some(known) = lock(&self.findings).clone() {
            return known;
        }
        let (store, registry) = (lock(&self.store), lock(&self.registry));
        let found: Arc<[Finding]> = analyze::everything(&store, &registry).into();
        // Noted while the store cannot change, so that it is never older than the store.
        *lock(&self.findings) = Some(found.clone());
        self.metrics
            .findings
            .set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        found
    }

    /// When an object's meaning last changed; `None`: it never had one.
    pub fn moment(&self, kind: Kind, key: &ObjectKey) -> Option<Moment> {
        lock(&self.moments).get(&(kind, key.clone())).copied()
    }

    /// Takes changes in and tells the proxies whom they concern. One caller at a time: the loop.
    pub fn apply(&self, changes: Vec<Change>) {
        let before = self.snapshot();
        let (applied, world) = {
            let mut store = lock(&self.store);
            let applied = store.apply(changes);
            // Whoever sees an object's new version also sees that the proxies have not heard of it yet.
            let moment = Moment {
                sequence: before.sequence + 1,
            };
            let mut moments = lock(&self.moments);
            moments.extend(
                applied
                    .changed
                    .iter()
                    .map(|own| ((own.kind, own.key.clone()), moment)),
            );
            if moments.len() > 2 * store.manifests().count() + DELETED {
                moments.retain(|(kind, key), _| store.is_current(*kind, key).is_some());
            }
            (applied, store.world().clone())
        };
        if applied.objects_changed || applied.findings_changed {
            *lock(&self.findings) = None;
        }
        if applied.changed.is_empty() {
            return;
        }
        let kinds: BTreeSet<Kind> = applied.changed.iter().map(|changed| changed.kind).collect();
        let after = {
            let mut registry = lock(&self.registry);
            let touched = registry.update(&world, &applied.changed);
            Arc::new(before.next(&world, &kinds, &registry, &touched))
        };
        // Again: whoever asked meanwhile saw the new objects beside the old services.
        *lock(&self.findings) = None;
        self.snapshot.store(after.clone());
        self.tell(&before, &after);
    }

    /// Which connected proxies get anything else than before.
    fn tell(&self, before: &Snapshot, after: &Snapshot) {
        let may_differ = !affected::types(before, after).is_empty();
        let pods = before.workloads.since != after.workloads.since
            || before.services.needs_node() != after.services.needs_node()
            || before.sidecars.since != after.sidecars.since;
        let mut told = 0;
        for proxy in self.proxies() {
            if pods {
                proxy.look_at_pod(self, after);
            }
            let class = proxy.class();
            if may_differ || pods {
                self.catalog(&class);
            }
            told += u64::from(proxy.offer(&class.catalog(), after.sequence));
        }
        self.metrics.pushes.inc();
        self.metrics.pushed_proxies.inc_by(told);
        self.classes.sweep();
        self.cache.sweep();
    }
}

/// The task.
#[derive(Debug)]
pub struct Loop {
    pub hub: Arc<Hub>,
    pub changes: mpsc::Receiver<Vec<Change>>,
    /// Opened when everything that was there at the start is known.
    pub synced: Gate,
}

impl Loop {
    pub async fn run(mut self, drain: Drain) {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        loop {
            let first = tokio::select! {
                batch = self.changes.recv() => batch,
                () = drain.drained() => return,
            };
            let Some(mut batch) = first else {
                tracing::error!("all sources of objects are gone; the last configuration stays");
                return drain.drained().await;
            };
            tokio::time::sleep(debounce.wait(start.elapsed())).await;
            for _ in 0..GATHER {
                match self.changes.try_recv() {
                    Ok(more) => batch.extend(more),
                    Err(_) => break,
                }
            }
            let started = start.elapsed();
            self.hub.apply(batch);
            let ended = start.elapsed();
            debounce.pushed(started, ended);
            self.hub
                .metrics
                .push_seconds
                .observe((ended - started).as_secs_f64());
            if self.hub.with_store(Store::is_synced) {
                self.synced.open();
            }
        }
    }
}

#[cfg(test)]
#[path = "push/tests.rs"]
mod tests;
