//! What may serve: for each kind, whatever is taken and has all it needs goes into the active set; what is missing for
//! the rest is noted. In the order of need: clusters, then routes, then listeners.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use mesh_proto::xds::Type;

use super::{Apply, FAREWELL, want, want::Names};
use crate::config::cluster::{Cluster, Kind};

type Missing = BTreeSet<(Type, Arc<str>)>;

impl Apply {
    pub(super) fn settle_clusters(&mut self, missing: &mut Missing) -> bool {
        let mut ready = Vec::new();
        for (name, cluster) in &self.taken.clusters {
            if self
                .active
                .clusters
                .get(name)
                .is_some_and(|active| Arc::ptr_eq(active, cluster))
            {
                continue;
            }
            let needs = self.needed_by_cluster(cluster);
            // A cluster that serves already and only changes its settings keeps its endpoints; a new one waits.
            if needs.is_empty() {
                ready.push(cluster.clone())
            } else {
                missing.extend(needs)
            }
        }
        for cluster in &ready {
            self.active.clusters.insert(cluster.name.clone(), cluster.clone());
            self.fill(cluster);
        }
        !ready.is_empty()
    }

    fn needed_by_cluster(&self, cluster: &Cluster) -> Missing {
        let mut needs = Missing::new();
        if let Some(service) = want::endpoints(cluster)
            && !self.assignments.contains_key(service)
        {
            needs.insert((Type::Endpoint, service.clone()));
        }
        let mut secrets = Names::new();
        want::cluster_secrets(cluster, &mut secrets);
        needs.extend(self.missing_secrets(secrets));
        self.without_absent(needs)
    }

    pub(super) fn settle_routes(&mut self, missing: &mut Missing) -> bool {
        let mut ready = Vec::new();
        for (name, routes) in &self.taken.routes {
            if self
                .active
                .routes
                .get(name)
                .is_some_and(|active| Arc::ptr_eq(active, routes))
            {
                continue;
            }
            let mut clusters = Names::new();
            want::route_clusters(routes, &mut clusters);
            let needs = self.coming_clusters(clusters);
            if needs.is_empty() {
                ready.push((name.clone(), routes.clone()))
            } else {
                missing.extend(needs)
            }
        }
        let changed = !ready.is_empty();
        self.active.routes.extend(ready);
        changed
    }

    pub(super) fn settle_listeners(&mut self, missing: &mut Missing) -> bool {
        let mut ready = Vec::new();
        for (name, listener) in &self.taken.listeners {
            if self
                .active
                .listeners
                .get(name)
                .is_some_and(|active| Arc::ptr_eq(active, listener))
            {
                continue;
            }
            let (mut routes, mut secrets, mut clusters) = (Names::new(), Names::new(), Names::new());
            want::listener_routes(listener, &mut routes);
            want::listener_secrets(listener, &mut secrets);
            want::listener_clusters(listener, &mut clusters);
            let mut needs: Missing = routes
                .into_iter()
                .filter(|name| !self.active.routes.contains_key(name))
                .map(|name| (Type::Route, name))
                .collect();
            needs.extend(self.missing_secrets(secrets));
            let mut needs = self.without_absent(needs);
            needs.extend(self.coming_clusters(clusters));
            if needs.is_empty() {
                ready.push((name.clone(), listener.clone()))
            } else {
                missing.extend(needs)
            }
        }
        let before = self.active.listeners.len();
        self.active
            .listeners
            .retain(|name, _| self.taken.listeners.contains_key(name));
        let changed = !ready.is_empty() || before != self.active.listeners.len();
        self.active.listeners.extend(ready);
        changed
    }

    /// Routes and clusters that are no longer taken leave when nothing in force names them any more, clusters at the latest
    /// after [`FAREWELL`].
    pub(super) fn drop_unused(&mut self, now: Instant) -> bool {
        let mut used = Names::new();
        let lost_route = self
            .active
            .routes
            .keys()
            .any(|name| !self.taken.routes.contains_key(name));
        let mut changed = false;
        if lost_route {
            for listener in self.active.listeners.values() {
                want::listener_routes(listener, &mut used);
            }
            let before = self.active.routes.len();
            self.active
                .routes
                .retain(|name, _| self.taken.routes.contains_key(name) || used.contains(name));
            changed |= before != self.active.routes.len();
        }
        let lost_cluster = self
            .active
            .clusters
            .keys()
            .any(|name| !self.taken.clusters.contains_key(name));
        if lost_cluster {
            used.clear();
            for routes in self.active.routes.values() {
                want::route_clusters(routes, &mut used);
            }
            for listener in self.active.listeners.values() {
                want::listener_clusters(listener, &mut used);
            }
            let before = self.active.clusters.len();
            // While something is waited for, its place may still be held by what should leave.
            let settled = self.waiting.is_empty();
            let (taken, leaving) = (&self.taken.clusters, &mut self.leaving);
            leaving.retain(|name, _| !taken.contains_key(name) && used.contains(name));
            self.active.clusters.retain(|name, _| {
                taken.contains_key(name)
                    || used.contains(name) && {
                        let since = *leaving.entry(name.clone()).or_insert(now);
                        !settled || now < since + FAREWELL
                    }
            });
            let active = &self.active.clusters;
            leaving.retain(|name, _| active.contains_key(name));
            changed |= before != active.len();
        } else {
            self.leaving.clear();
        }
        changed
    }

    fn missing_secrets(&self, names: Names) -> impl Iterator<Item = (Type, Arc<str>)> {
        names
            .into_iter()
            .filter(|name| !self.secrets.contains_key(name))
            .map(|name| (Type::Secret, name))
    }

    fn without_absent(&self, mut needs: Missing) -> Missing {
        needs.retain(|key| !self.absent.contains(key));
        needs
    }

    /// Of these clusters, those that are taken but do not serve yet. One that nobody announced is not waited for: its
    /// requests get their clear answer.
    fn coming_clusters(&self, names: Names) -> Missing {
        let coming = |name: &Arc<str>| {
            let Some(taken) = self.taken.clusters.get(name) else {
                return false;
            };
            match self.active.clusters.get(name) {
                None => true,
                Some(_) => {
                    matches!(taken.kind, Kind::StrictDns(_) | Kind::LogicalDns(_))
                        && !self.store.endpoints(name).is_some_and(|cell| cell.is_filled())
                }
            }
        };
        let needs = names
            .into_iter()
            .filter(coming)
            .map(|name| (Type::Cluster, name))
            .collect();
        self.without_absent(needs)
    }
}
