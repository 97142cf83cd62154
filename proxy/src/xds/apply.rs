//! Takes resources and makes snapshots of them: the only writer of the store. Runs on the control thread, off the path.
//!
//! There are two sets of everything: what was *taken* (read without fault, as of the newest update) and what is
//! *active* (in the snapshot that serves). [`Apply::settle`] moves from the one to the other whatever has all it needs.
//! A removed cluster stays active for [`FAREWELL`] while an active route or listener still names it, so no order of updates
//! makes a request fail; after that its endpoints are nobody's to send to, and the route says that there is no such cluster.

mod ready;
mod take;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_proto::xds::Type;

use super::want::{self, Names};
use crate::{
    balance::Set,
    config::{
        cluster::{Cluster, Kind},
        endpoint::Assignment,
        listener::Listener,
        route::RouteConfig,
        secret::Secret,
    },
    dns,
    observe::Stats,
    snapshot::Snapshot,
    store::Store,
};

pub use take::{Rejected, Taken};

/// How long a resource waits for something it refers to; then that counts as absent (Envoy's initial fetch timeout).
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The same for the first look-up of a cluster's host names: one bad name must not hold other people's routes up.
pub const DNS_PATIENCE: Duration = Duration::from_secs(2);

/// How long a removed cluster stays in force for routes that still name it: updates that belong together come together.
pub const FAREWELL: Duration = Duration::from_secs(2);

type Table<T> = HashMap<Arc<str>, Arc<T>>;

/// One set of resources.
#[derive(Clone, Default)]
struct Resources {
    listeners: Table<Listener>,
    clusters: Table<Cluster>,
    routes: Table<RouteConfig>,
}

/// The state behind the snapshots.
pub struct Apply {
    store: Store,
    stats: Stats,
    names: dns::Names,
    /// Search domains of the pod, for the name table.
    search: Vec<String>,
    taken: Resources,
    active: Resources,
    assignments: Table<Assignment>,
    secrets: Table<Secret>,
    /// Resources of the bootstrap: no update removes or replaces them.
    fixed: BTreeSet<(Type, Arc<str>)>,
    /// What the server said does not exist, or did not send in time.
    absent: BTreeSet<(Type, Arc<str>)>,
    /// Since when something is waited for.
    waiting: BTreeMap<(Type, Arc<str>), Instant>,
    /// Clusters that were removed while something in force names them, and since when.
    leaving: BTreeMap<Arc<str>, Instant>,
    /// Names asked for: endpoints, routes and secrets that the taken resources refer to.
    wanted: [(Type, Names); 3],
    /// Types whose first answer is still to come, of those that are subscribed as a whole.
    unanswered: BTreeSet<Type>,
    complete: bool,
}

impl Apply {
    /// `types` are those that the stream subscribes to; `search` are the pod's search domains, for the name table.
    pub fn new(store: Store, stats: Stats, names: dns::Names, search: Vec<String>, types: &[Type]) -> Self {
        Self {
            wanted: [Type::Endpoint, Type::Route, Type::Secret].map(|kind| (kind, Names::new())),
            unanswered: types
                .iter()
                .copied()
                .filter(|kind| kind.allows_wildcard())
                .collect(),
            store,
            stats,
            names,
            search,
            taken: Resources::default(),
            active: Resources::default(),
            assignments: Table::default(),
            secrets: Table::default(),
            fixed: BTreeSet::new(),
            absent: BTreeSet::new(),
            waiting: BTreeMap::new(),
            leaving: BTreeMap::new(),
            complete: false,
        }
    }

    /// Starts from the bootstrap's own resources, which nothing replaces later. They are in force at once.
    pub fn start(&mut self, snapshot: Snapshot) {
        let fixed = |kind, names: Vec<&Arc<str>>| {
            names
                .into_iter()
                .map(move |name| (kind, name.clone()))
                .collect::<Vec<_>>()
        };
        self.fixed
            .extend(fixed(Type::Listener, snapshot.listeners.keys().collect()));
        self.fixed
            .extend(fixed(Type::Cluster, snapshot.clusters.keys().collect()));
        self.fixed
            .extend(fixed(Type::Route, snapshot.routes.keys().collect()));
        self.fixed
            .extend(fixed(Type::Secret, snapshot.secrets.keys().collect()));
        self.taken = Resources {
            listeners: snapshot.listeners.clone(),
            clusters: snapshot.clusters.clone(),
            routes: snapshot.routes.clone(),
        };
        self.active = self.taken.clone();
        self.secrets.clone_from(&snapshot.secrets);
        self.store.publish(snapshot);
        self.look_for_wanted();
        self.gauges();
    }

    /// Names to ask for, by type.
    pub fn wanted(&self) -> &[(Type, Names); 3] {
        &self.wanted
    }

    /// Collects the names that the taken resources refer to, and forgets what nobody refers to any more: the server does
    /// not tell of resources that were unsubscribed.
    fn look_for_wanted(&mut self) {
        let (mut endpoints, mut routes, mut secrets) = (Names::new(), Names::new(), Names::new());
        for cluster in self.taken.clusters.values() {
            endpoints.extend(want::endpoints(cluster).cloned());
            want::cluster_secrets(cluster, &mut secrets);
        }
        for listener in self.taken.listeners.values() {
            want::listener_routes(listener, &mut routes);
            want::listener_secrets(listener, &mut secrets);
        }
        secrets.retain(|name| !self.fixed.contains(&(Type::Secret, name.clone())));
        self.assignments.retain(|name, _| endpoints.contains(name));
        self.taken
            .routes
            .retain(|name, _| routes.contains(name) || self.fixed.contains(&(Type::Route, name.clone())));
        self.secrets
            .retain(|name, _| secrets.contains(name) || self.fixed.contains(&(Type::Secret, name.clone())));
        let wanted = [
            (Type::Endpoint, endpoints),
            (Type::Route, routes),
            (Type::Secret, secrets),
        ];
        self.store.ledger(|ledger| {
            for (kind, names) in &wanted {
                ledger.retain(*kind, |name| names.contains(name));
            }
        });
        for (kind, names) in &wanted {
            self.absent
                .retain(|(other, name)| other != kind || names.contains(name));
        }
        self.wanted = wanted;
    }

    /// Has everything that was asked for at the start arrived and gone into force?
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Is the taken version of this resource the one that serves?
    pub fn is_active(&self, kind: Type, name: &str) -> bool {
        fn same<T>(taken: &Table<T>, active: &Table<T>, name: &str) -> bool {
            match (taken.get(name), active.get(name)) {
                (Some(taken), Some(active)) => Arc::ptr_eq(taken, active),
                (None, None) => true,
                _ => false,
            }
        }
        match kind {
            Type::Listener => same(&self.taken.listeners, &self.active.listeners, name),
            Type::Route => same(&self.taken.routes, &self.active.routes, name),
            Type::Cluster => same(&self.taken.clusters, &self.active.clusters, name),
            Type::Endpoint | Type::Secret | Type::NameTable => true,
        }
    }

    /// When [`Apply::settle`] should be called again although nothing has arrived.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting
            .iter()
            .map(|(key, since)| *since + self.patience(key))
            .min()
            .or_else(|| self.leaving.values().min().map(|since| *since + FAREWELL))
    }

    fn patience(&self, (kind, name): &(Type, Arc<str>)) -> Duration {
        let looked_up = *kind == Type::Cluster
            && self
                .active
                .clusters
                .get(name)
                .is_some_and(|c| matches!(c.kind, Kind::StrictDns(_) | Kind::LogicalDns(_)));
        if looked_up { DNS_PATIENCE } else { PATIENCE }
    }

    /// Moves into force whatever has all it needs. Returns whether anything changed.
    pub fn settle(&mut self, now: Instant) -> bool {
        let expired = self
            .waiting
            .iter()
            .filter(|(key, since)| now >= **since + self.patience(key));
        let expired: Vec<_> = expired.map(|(key, _)| key.clone()).collect();
        for (kind, name) in expired {
            tracing::warn!(r#type = %kind, %name, "configuration did not become ready in time; going on without it");
            self.absent.insert((kind, name));
        }
        let mut missing = BTreeSet::new();
        let mut changed = false;
        changed |= self.settle_clusters(&mut missing);
        changed |= self.settle_routes(&mut missing);
        changed |= self.settle_listeners(&mut missing);
        changed |= self.drop_unused(now);
        self.waiting.retain(|key, _| missing.contains(key));
        for key in missing {
            self.waiting.entry(key).or_insert(now);
        }
        if changed {
            self.publish();
        }
        self.complete |= self.waiting.is_empty() && self.unanswered.is_empty();
        self.gauges();
        changed
    }

    /// Publishes the active set. Secrets are taken over whole: a handshake that lacks one fails alone, and says so.
    pub(super) fn publish(&self) {
        let Resources {
            listeners,
            clusters,
            routes,
        } = self.active.clone();
        self.store
            .publish(Snapshot::new(listeners, clusters, routes, self.secrets.clone()));
        self.stats
            .forget_clusters(|name| self.active.clusters.contains_key(name));
        let addresses: BTreeSet<String> = self
            .active
            .listeners
            .values()
            .map(|l| l.address.to_string().replace(':', "_"))
            .collect();
        self.stats.forget_listeners(|address| addresses.contains(address));
        self.store.ledger(|ledger| {
            ledger.set_states(Type::Cluster, |name| self.is_active(Type::Cluster, name));
            ledger.set_states(Type::Listener, |name| self.is_active(Type::Listener, name));
            ledger.set_states(Type::Route, |name| self.is_active(Type::Route, name));
        });
    }

    /// Gives a cluster the endpoints that are known for it; the workers see them at the next request.
    fn fill(&self, cluster: &Cluster) {
        let assignment = match &cluster.kind {
            Kind::Static => &cluster.assignment,
            Kind::Eds { service } => match self.assignments.get(service) {
                Some(assignment) => assignment,
                None if self.absent.contains(&(Type::Endpoint, service.clone())) => &cluster.assignment,
                None => return,
            },
            // Names are looked up by `cluster::discover`, which fills the cell.
            _ => return,
        };
        let set = Set::build(cluster, assignment, |address| {
            address.socket().into_iter().collect()
        });
        self.store.set_endpoints(cluster, set);
    }

    fn gauges(&self) {
        let control = self.stats.control();
        let warming = |taken: usize, still: usize| (taken - still.min(taken)) as u64;
        let same = self
            .taken
            .clusters
            .keys()
            .filter(|name| self.is_active(Type::Cluster, name))
            .count();
        control
            .warming_clusters
            .set(warming(self.taken.clusters.len(), same));
        let same = self
            .taken
            .listeners
            .keys()
            .filter(|name| self.is_active(Type::Listener, name))
            .count();
        control
            .total_listeners_warming
            .set(warming(self.taken.listeners.len(), same));
    }
}
