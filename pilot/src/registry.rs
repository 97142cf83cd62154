//! Services and endpoints of all sources, merged: Services with their EndpointSlices and pods, ServiceEntries with their
//! endpoints, WorkloadEntries and selected pods.
//!
//! Fed with the [`World`] and the objects that changed in it; only the services that these concern are computed again.
//! A clone is for reading: it shares everything that did not change, so a reader keeps a consistent registry while the
//! next one is made. The index that makes updates cheap stays with the original; a clone that is updated makes its own.
//! What it promises: `endpoints` of a service are those of the last [`Registry::update`], sorted, of all states of health;
//! it does not decide which of them a proxy may use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    model::{Endpoint, Host, Key, Kind, Resolution, Service, ServiceKey, World},
    store::Changed,
};

mod auto_address;
mod resolve;

use auto_address::AutoAddresses;
use resolve::Parts;

/// A workload's part in a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    pub service: ServiceKey,
    /// The service's port.
    pub port: u16,
    /// The workload's port.
    pub target: u16,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The service itself appeared, changed or vanished.
    pub services: BTreeSet<ServiceKey>,
    /// Its endpoints changed.
    pub endpoints: BTreeSet<ServiceKey>,
    /// The services that a workload belongs to changed.
    pub instances: BTreeSet<Key>,
}

/// Endpoints by the service's port.
pub type PortEndpoints = BTreeMap<u16, Arc<[Endpoint]>>;

#[derive(Debug, Default)]
pub struct Registry {
    services: Arc<BTreeMap<Arc<ServiceKey>, Arc<Service>>>,
    hosts: Arc<HashMap<Host, Arc<[ServiceKey]>>>,
    endpoints: Arc<HashMap<Arc<ServiceKey>, Arc<PortEndpoints>>>,
    instances: Arc<HashMap<Arc<Key>, Arc<[Instance]>>>,
    /// `None` in a clone.
    index: Option<Box<Index>>,
}

impl Clone for Registry {
    fn clone(&self) -> Self {
        Self {
            services: self.services.clone(),
            hosts: self.hosts.clone(),
            endpoints: self.endpoints.clone(),
            instances: self.instances.clone(),
            index: None,
        }
    }
}

/// What is needed to find out whom a change concerns. Keys are never removed from a set that another one still needs.
#[derive(Debug, Default)]
struct Index {
    /// Services that an object (Service, ServiceEntry) declares.
    declared: HashMap<(Kind, Key), BTreeSet<ServiceKey>>,
    /// Objects that declare a service, the one that counts first.
    declarers: HashMap<ServiceKey, BTreeSet<(Kind, Key)>>,
    /// The service of an EndpointSlice, and the slices of a service.
    slice_service: HashMap<Key, Key>,
    slices: HashMap<Key, BTreeSet<Key>>,
    /// Services that a pod or WorkloadEntry was found in.
    users: HashMap<Key, BTreeSet<ServiceKey>>,
    /// Pods and WorkloadEntries that were found in a service.
    used: HashMap<ServiceKey, BTreeSet<Key>>,
    /// Services of a namespace that select pods or WorkloadEntries.
    selecting: HashMap<String, BTreeSet<ServiceKey>>,
    /// Pods by address (those of the host network share theirs and are not here).
    by_address: HashMap<IpAddr, Key>,
    addresses: HashMap<Key, Vec<IpAddr>>,
    /// ExternalNames that mean a service of the mesh.
    aliases: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// What each of them meant last.
    aliased: HashMap<ServiceKey, ServiceKey>,
    auto: AutoAddresses,
    trust_domain: String,
}

impl Registry {
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The services with this host, in the order of their namespaces.
    pub fn by_host(&self, host: &Host) -> &[ServiceKey] {
        self.hosts.get(host).map_or(&[], |keys| &keys[..])
    }

    /// The service that a host means for somebody in a namespace: its own, else one of the cluster, else the first,
    /// of those it may see.
    pub fn lookup(&self, host: &Host, viewer: &str) -> Option<&Arc<Service>> {
        let visible = |key: &&ServiceKey| {
            self.service(key)
                .is_some_and(|service| service.visibility.allows(&service.namespace, viewer))
        };
        let rank = |key: &&ServiceKey| {
            let in_cluster = self
                .service(key)
                .is_some_and(|service| service.origin.kind == Kind::Service);
            (key.namespace != viewer, !in_cluster)
        };
        self.by_host(host)
            .iter()
            .filter(visible)
            .min_by_key(rank)
            .and_then(|key| self.service(key))
    }

    /// Endpoints of one port of a service, in any state of health.
    pub fn endpoints(&self, key: &ServiceKey, port: u16) -> &[Endpoint] {
        self.port_endpoints(key, port)
            .map_or(&[], |endpoints| &endpoints[..])
    }

    /// As [`Registry::endpoints`], to be shared.
    pub fn port_endpoints(&self, key: &ServiceKey, port: u16) -> Option<&Arc<[Endpoint]>> {
        self.endpoints.get(key)?.get(&port)
    }

    /// All endpoints of a service.
    pub fn all_endpoints(&self, key: &ServiceKey) -> Option<&Arc<PortEndpoints>> {
        self.endpoints.get(key)
    }

    /// The services that a workload (by namespace and name) belongs to, ready or not.
    pub fn instances(&self, workload: &Key) -> &[Instance] {
        self.instances
            .get(workload)
            .map_or(&[], |instances| &instances[..])
    }

    /// The identities that may answer for a service: those of its endpoints, and those that it declares.
    pub fn accounts(&self, key: &ServiceKey) -> BTreeSet<String> {
        let declared = self
            .service(key)
            .map(|service| service.accounts.clone())
            .unwrap_or_default();
        let endpoints = self
            .endpoints
            .get(key)
            .into_iter()
            .flat_map(|ports| ports.values());
        endpoints
            .flat_map(|list| list.iter())
            .filter_map(|endpoint| endpoint.identity.clone())
            .chain(declared)
            .collect()
    }

    /// Takes the changes of a world in.
    pub fn update(&mut self, world: &World, changed: &[Changed]) -> Touched {
        let mut concerned = BTreeSet::new();
        // The first update, or a clone: everything there is counts as changed.
        let (mut index, everything) = match self.index.take() {
            Some(index) => (index, None),
            None => {
                concerned.extend(self.services.keys().map(|key| key.as_ref().clone()));
                let mut index = Box::<Index>::default();
                for (user, instances) in self.instances.iter() {
                    for instance in instances.iter() {
                        index
                            .used
                            .entry(instance.service.clone())
                            .or_default()
                            .insert(user.as_ref().clone());
                    }
                }
                (index, Some(all(world)))
            }
        };
        let changed = everything.as_deref().unwrap_or(changed);
        if index.trust_domain != world.mesh.trust_domain {
            index.trust_domain.clone_from(&world.mesh.trust_domain);
            concerned.extend(self.services.keys().map(|key| key.as_ref().clone()));
        }
        // Declarations, slices and addresses first: the rest looks into them.
        for change in changed {
            match change.kind {
                Kind::Service | Kind::ServiceEntry => index.declare(world, change, &mut concerned),
                Kind::EndpointSlice => index.slice(world, &change.key, &mut concerned),
                Kind::Pod => index.addresses(world, &change.key),
                _ => {}
            }
        }
        for change in changed
            .iter()
            .filter(|change| matches!(change.kind, Kind::Pod | Kind::WorkloadEntry))
        {
            concerned.extend(index.users.get(&change.key).into_iter().flatten().cloned());
            for key in index.selecting.get(&change.key.namespace).into_iter().flatten() {
                if resolve::selects(world, &index, key, &change.key) {
                    concerned.insert(key.clone());
                }
            }
        }
        concerned.append(&mut self.on_nodes(changed));
        let aliases = concerned
            .iter()
            .filter_map(|key| index.aliases.get(key))
            .flatten()
            .cloned();
        let aliases: Vec<ServiceKey> = aliases.collect();
        concerned.extend(aliases);
        let mut touched = Touched::default();
        for key in &concerned {
            self.recompute(world, &mut index, key, &mut touched);
        }
        self.index = Some(index);
        touched
    }

    /// The services that have endpoints on nodes that changed.
    fn on_nodes(&self, changed: &[Changed]) -> BTreeSet<ServiceKey> {
        let nodes: BTreeSet<&str> = changed
            .iter()
            .filter(|change| change.kind == Kind::Node)
            .map(|change| change.key.name.as_str())
            .collect();
        if nodes.is_empty() {
            return BTreeSet::new();
        }
        let there = |ports: &PortEndpoints| {
            let mut endpoints = ports.values().flat_map(|list| list.iter());
            endpoints.any(|endpoint| nodes.contains(endpoint.node.as_str()))
        };
        let services = self.endpoints.iter().filter(|(_, ports)| there(ports));
        services.map(|(key, _)| key.as_ref().clone()).collect()
    }

    fn recompute(&mut self, world: &World, index: &mut Index, key: &ServiceKey, touched: &mut Touched) {
        let Some(resolved) = resolve::service(world, index, key) else {
            return self.forget(index, key, touched);
        };
        let mut service = resolved.service.as_ref().clone();
        service.auto_address = index.auto.address(&service);
        let old_users = index
            .used
            .insert(key.clone(), resolved.parts.users.clone())
            .unwrap_or_default();
        for gone in old_users.difference(&resolved.parts.users) {
            remove_from(&mut index.users, gone, key);
        }
        for user in &resolved.parts.users {
            index.users.entry(user.clone()).or_default().insert(key.clone());
        }
        if self.services.get(key).is_none_or(|old| **old != service) {
            let services = Arc::make_mut(&mut self.services);
            if services
                .insert(Arc::new(key.clone()), Arc::new(service))
                .is_none()
            {
                self.set_host(key, true);
            }
            touched.services.insert(key.clone());
        }
        self.set_endpoints(key, &resolved.endpoints, touched);
        self.set_instances(key, &resolved.parts, &old_users, touched);
    }

    fn set_endpoints(&mut self, key: &ServiceKey, fresh: &PortEndpoints, touched: &mut Touched) {
        let old = self.endpoints.get(key);
        if old.is_none_or(|old| **old != *fresh) {
            // A port whose endpoints are the same keeps its shared list.
            let shared = fresh.iter().map(|(port, list)| {
                let same = old.and_then(|old| old.get(port)).filter(|old| *old == list);
                (*port, same.unwrap_or(list).clone())
            });
            let shared = Arc::new(shared.collect::<PortEndpoints>());
            Arc::make_mut(&mut self.endpoints).insert(Arc::new(key.clone()), shared);
            touched.endpoints.insert(key.clone());
        }
    }

    fn set_instances(
        &mut self,
        key: &ServiceKey,
        parts: &Parts,
        old_users: &BTreeSet<Key>,
        touched: &mut Touched,
    ) {
        for user in old_users.union(&parts.users) {
            let old = self.instances(user);
            let fresh = parts.instances.get(user).into_iter().flatten().cloned();
            let others = old.iter().filter(|instance| instance.service != *key).cloned();
            let mut list: Vec<Instance> = others.chain(fresh).collect();
            list.sort_unstable();
            list.dedup();
            if list[..] != *old {
                let instances = Arc::make_mut(&mut self.instances);
                if list.is_empty() {
                    instances.remove(user);
                } else {
                    instances.insert(Arc::new(user.clone()), list.into());
                }
                touched.instances.insert(user.clone());
            }
        }
    }

    fn forget(&mut self, index: &mut Index, key: &ServiceKey, touched: &mut Touched) {
        let users = index.used.remove(key).unwrap_or_default();
        for user in &users {
            remove_from(&mut index.users, user, key);
        }
        index.auto.release(key);
        if Arc::make_mut(&mut self.services).remove(key).is_some() {
            touched.services.insert(key.clone());
            self.set_host(key, false);
        }
        if Arc::make_mut(&mut self.endpoints).remove(key).is_some() {
            touched.endpoints.insert(key.clone());
        }
        self.set_instances(key, &Parts::default(), &users, touched);
    }

    /// A service came or went.
    fn set_host(&mut self, key: &ServiceKey, there: bool) {
        let others = self
            .by_host(&key.host)
            .iter()
            .filter(|other| *other != key)
            .cloned();
        let mut keys: Vec<ServiceKey> = others.chain(there.then(|| key.clone())).collect();
        keys.sort_unstable();
        let hosts = Arc::make_mut(&mut self.hosts);
        if keys.is_empty() {
            hosts.remove(&key.host);
        } else {
            hosts.insert(key.host.clone(), keys.into());
        }
    }
}

impl Index {
    /// A Service or ServiceEntry changed: what it declares now and what it declared before are concerned.
    fn declare(&mut self, world: &World, change: &Changed, concerned: &mut BTreeSet<ServiceKey>) {
        let id = (change.kind, change.key.clone());
        let (now, selects): (BTreeSet<ServiceKey>, bool) = match change.kind {
            Kind::Service => match world.services.get(&change.key) {
                Some(service) => ([service.key()].into(), service.selector.is_some()),
                None => (BTreeSet::new(), false),
            },
            _ => match world.service_entries.get(&change.key) {
                Some(entry) => (
                    entry.services.iter().map(Service::key).collect(),
                    entry.workload_selector.is_some(),
                ),
                None => (BTreeSet::new(), false),
            },
        };
        let before = self.declared.remove(&id).unwrap_or_default();
        if change.kind == Kind::Service {
            let service = world.services.get(&change.key);
            for key in before.union(&now) {
                self.alias(key, service.and_then(|service| resolve::aliased(service)));
            }
        }
        for key in before.difference(&now) {
            remove_from(&mut self.declarers, key, &id);
            remove_from(&mut self.selecting, &key.namespace, key);
        }
        for key in &now {
            self.declarers.entry(key.clone()).or_default().insert(id.clone());
            if selects {
                self.selecting
                    .entry(key.namespace.clone())
                    .or_default()
                    .insert(key.clone());
            } else {
                remove_from(&mut self.selecting, &key.namespace, key);
            }
        }
        concerned.extend(before.into_iter().chain(now.iter().cloned()));
        if !now.is_empty() {
            self.declared.insert(id, now);
        }
    }

    /// A service means another one, or none.
    fn alias(&mut self, key: &ServiceKey, target: Option<ServiceKey>) {
        let before = match &target {
            Some(target) => self.aliased.insert(key.clone(), target.clone()),
            None => self.aliased.remove(key),
        };
        if let Some(before) = before {
            remove_from(&mut self.aliases, &before, key);
        }
        if let Some(target) = target {
            self.aliases.entry(target).or_default().insert(key.clone());
        }
    }

    fn slice(&mut self, world: &World, key: &Key, concerned: &mut BTreeSet<ServiceKey>) {
        let now = world
            .slices
            .get(key)
            .map(|slice| Key::new(&key.namespace, &slice.service));
        let before = match &now {
            Some(service) => self.slice_service.insert(key.clone(), service.clone()),
            None => self.slice_service.remove(key),
        };
        if let Some(before) = &before {
            remove_from(&mut self.slices, before, key);
        }
        if let Some(service) = &now {
            self.slices
                .entry(service.clone())
                .or_default()
                .insert(key.clone());
        }
        for service in before.iter().chain(&now) {
            concerned.extend(
                self.declared
                    .get(&(Kind::Service, service.clone()))
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
    }

    fn addresses(&mut self, world: &World, key: &Key) {
        for address in self.addresses.remove(key).unwrap_or_default() {
            if self.by_address.get(&address) == Some(key) {
                self.by_address.remove(&address);
            }
        }
        if let Some(workload) = world.workloads.get(key).filter(|workload| !workload.host_network) {
            for address in &workload.addresses {
                self.by_address.insert(*address, key.clone());
            }
            self.addresses.insert(key.clone(), workload.addresses.clone());
        }
    }
}

/// Everything that services are made of.
fn all(world: &World) -> Vec<Changed> {
    fn keys<T>(kind: Kind, table: &crate::model::Table<T>) -> impl Iterator<Item = Changed> {
        table.keys().map(move |key| Changed {
            kind,
            key: key.clone(),
        })
    }
    keys(Kind::Service, &world.services)
        .chain(keys(Kind::ServiceEntry, &world.service_entries))
        .chain(keys(Kind::EndpointSlice, &world.slices))
        .chain(keys(Kind::Pod, &world.workloads))
        .chain(keys(Kind::WorkloadEntry, &world.workload_entries))
        .collect()
}

fn remove_from<K: std::hash::Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

/// May a service get an address that pilot chooses?
fn wants_auto_address(service: &Service) -> bool {
    service.origin.kind == Kind::ServiceEntry
        && service.addresses.is_empty()
        && service.ranges.is_empty()
        && service.resolution != Resolution::None
        && !service.host.is_wildcard()
}

#[cfg(test)]
mod tests;
