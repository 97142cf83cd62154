//! One service, computed from the world: its value, its endpoints, and the workloads that are part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::names;

use super::{Index, Instance, PortEndpoints};
use crate::{
    convert::canonical,
    model::{
        Endpoint, Health, Key, Kind, Labels, Location, Node, Resolution, Selector, Service, ServiceEntry,
        ServiceKey, TargetPort, Workload, World,
        endpoint::{Address, EntryEndpoint, Locality, SliceEndpoint},
        workload::identity,
    },
};

/// What one service is.
#[derive(Debug)]
pub struct Resolved {
    pub service: Arc<Service>,
    pub endpoints: PortEndpoints,
    pub parts: Parts,
}

/// Pods and WorkloadEntries that are part of a service.
#[derive(Debug, Default)]
pub struct Parts {
    /// Also those that are not known yet.
    pub users: BTreeSet<Key>,
    pub instances: BTreeMap<Key, Vec<Instance>>,
}

/// Where a service comes from.
enum Declaration<'a> {
    Service(&'a Arc<Service>),
    Entry(&'a ServiceEntry, Arc<Service>),
}

/// A Kubernetes Service before a ServiceEntry, the older ServiceEntry before the younger.
fn declaration<'a>(world: &'a World, index: &Index, key: &ServiceKey) -> Option<Declaration<'a>> {
    let declarers = index.declarers.get(key)?;
    let entries = declarers.iter().filter_map(|(kind, object)| match kind {
        Kind::ServiceEntry => world.service_entries.get(object),
        _ => None,
    });
    let service = declarers.iter().find_map(|(kind, object)| match kind {
        Kind::Service => world.services.get(object),
        _ => None,
    });
    if let Some(service) = service {
        return Some(Declaration::Service(service));
    }
    let entry = entries.min_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()))?;
    let service = entry.services.iter().find(|service| service.host == key.host)?;
    Some(Declaration::Entry(entry, Arc::new(service.clone())))
}

/// Does a service select this pod or WorkloadEntry?
pub fn selects(world: &World, index: &Index, key: &ServiceKey, object: &Key) -> bool {
    let selector = match declaration(world, index, key) {
        Some(Declaration::Service(service)) => service.selector.clone(),
        Some(Declaration::Entry(entry, _)) => entry.workload_selector.clone(),
        None => None,
    };
    let pod = world
        .workloads
        .get(object)
        .map(|workload| workload.labels.as_ref());
    let entry = world
        .workload_entries
        .get(object)
        .map(|entry| &entry.endpoint.labels);
    selector.is_some_and(|selector| {
        pod.into_iter()
            .chain(entry)
            .any(|labels| selector.matches(labels))
    })
}

/// `None` if nothing declares it any more.
pub fn service(world: &World, index: &Index, key: &ServiceKey) -> Option<Resolved> {
    match declaration(world, index, key)? {
        Declaration::Service(service) => {
            Some(alias(world, index, service).unwrap_or_else(|| of_service(world, index, service)))
        }
        Declaration::Entry(entry, service) => Some(of_entry(world, entry, service)),
    }
}

/// Gathers endpoints and instances.
struct Builder {
    key: ServiceKey,
    endpoints: BTreeMap<u16, BTreeMap<(Address, u16), Endpoint>>,
    parts: Parts,
}

impl Builder {
    fn new(service: &Service) -> Self {
        Self {
            key: service.key(),
            endpoints: BTreeMap::new(),
            parts: Parts::default(),
        }
    }

    /// An address that two slices name counts once, in its better health.
    fn endpoint(&mut self, port: u16, endpoint: Endpoint) {
        let id = (endpoint.address.clone(), endpoint.port);
        let list = self.endpoints.entry(port).or_default();
        if list.get(&id).is_none_or(|known| endpoint.health < known.health) {
            list.insert(id, endpoint);
        }
    }

    fn instance(&mut self, workload: &Key, port: u16, target: u16) {
        self.parts.users.insert(workload.clone());
        let instance = Instance {
            service: self.key.clone(),
            port,
            target,
        };
        self.parts
            .instances
            .entry(workload.clone())
            .or_default()
            .push(instance);
    }

    fn finish(self, service: Arc<Service>) -> Resolved {
        let endpoints = self.endpoints.into_iter();
        Resolved {
            endpoints: endpoints
                .map(|(port, list)| (port, list.into_values().collect()))
                .collect(),
            parts: self.parts,
            service,
        }
    }
}

/// The service of the mesh that an ExternalName means. Another alias is none: it would lead nowhere, or around.
pub fn aliased(service: &Service) -> Option<ServiceKey> {
    let host = service.external_name.as_ref()?;
    let (_, namespace) = host.as_service(names::CLUSTER_DOMAIN)?;
    Some(ServiceKey {
        namespace: namespace.to_owned(),
        host: host.clone(),
    })
}

/// An ExternalName that means a service of the mesh has that one's endpoints, so that they are asked by the mesh's TLS.
/// Only HTTP needs it: the rest goes by address, and the name leads to the address of the service it means.
fn alias(world: &World, index: &Index, service: &Arc<Service>) -> Option<Resolved> {
    let target = aliased(service)?;
    let (name, namespace) = target.host.as_service(names::CLUSTER_DOMAIN)?;
    let target = world
        .services
        .get(&Key::new(namespace, name))
        .filter(|target| target.external_name.is_none())?;
    let mut endpoints = of_service(world, index, target).endpoints;
    let mut value = Service::clone(service);
    if value.ports.is_empty() {
        value.ports.clone_from(&target.ports);
    }
    value.ports.retain(|port| port.protocol.is_http());
    value.resolution = Resolution::Static;
    value.location = Location::Internal;
    value.publish_not_ready = target.publish_not_ready;
    endpoints.retain(|port, _| value.port(*port).is_some());
    Some(Resolved {
        service: Arc::new(value),
        endpoints,
        parts: Parts::default(),
    })
}

fn of_service(world: &World, index: &Index, service: &Arc<Service>) -> Resolved {
    let mut builder = Builder::new(service);
    let object = service.origin.key();
    if let Some(external) = &service.external_name {
        for port in &service.ports {
            let address = Address::Name(external.to_string());
            builder.endpoint(port.number, nobody(address, port.number));
        }
    }
    for slice in index
        .slices
        .get(&object)
        .into_iter()
        .flatten()
        .filter_map(|key| world.slices.get(key))
    {
        for entry in &slice.endpoints {
            let workload = slice_workload(world, index, &slice.origin.namespace, entry);
            if let Some(workload) = workload {
                builder.parts.users.insert(workload.origin.key());
            } else if let Some(pod) = &entry.pod {
                // Not known yet: it concerns this service when it comes.
                builder.parts.users.insert(Key::new(&slice.origin.namespace, pod));
            }
            for port in &service.ports {
                let Some(target) = slice.ports.get(&port.name) else {
                    continue;
                };
                for address in &entry.addresses {
                    let endpoint = slice_endpoint(world, entry, workload, Address::Ip(*address), *target);
                    builder.endpoint(port.number, endpoint);
                }
                if let Some(workload) = workload {
                    builder.instance(&workload.origin.key(), port.number, *target);
                }
            }
        }
    }
    // A pod has its inbound configuration before it is in any slice.
    for workload in service
        .selector
        .iter()
        .flat_map(|selector| selected(world, &service.namespace, selector))
    {
        for port in &service.ports {
            let target = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => workload.named_ports.get(name).copied(),
            };
            if let Some(target) = target {
                builder.instance(&workload.origin.key(), port.number, target);
            }
        }
    }
    builder.finish(service.clone())
}

/// Pods of a namespace with these labels.
fn selected<'a>(
    world: &'a World,
    namespace: &str,
    selector: &Selector,
) -> impl Iterator<Item = &'a Arc<Workload>> {
    let first = Key::new(namespace, "");
    let namespace = namespace.to_owned();
    let selector = selector.clone();
    world
        .workloads
        .range(first..)
        .take_while(move |(key, _)| key.namespace == namespace)
        .map(|(_, workload)| workload)
        .filter(move |workload| selector.matches(&workload.labels))
}

/// The pod behind an entry of a slice: by name, else by address.
fn slice_workload<'a>(
    world: &'a World,
    index: &Index,
    namespace: &str,
    entry: &SliceEndpoint,
) -> Option<&'a Arc<Workload>> {
    let named = entry.pod.as_ref().map(|pod| Key::new(namespace, pod));
    let found = named.and_then(|key| world.workloads.get(&key));
    found.or_else(|| {
        let key = entry
            .addresses
            .iter()
            .find_map(|address| index.by_address.get(address))?;
        world.workloads.get(key)
    })
}

fn slice_endpoint(
    world: &World,
    entry: &SliceEndpoint,
    workload: Option<&Arc<Workload>>,
    address: Address,
    port: u16,
) -> Endpoint {
    let mut endpoint = workload.map_or_else(
        || nobody(address.clone(), port),
        |workload| of_workload(world, workload, address.clone(), port),
    );
    endpoint.health = entry.health;
    endpoint.hostname.clone_from(&entry.hostname);
    if endpoint.node.is_empty() {
        endpoint.node.clone_from(&entry.node);
    }
    if endpoint.locality.is_empty()
        && let Some(node) = node(world, &entry.node)
    {
        endpoint.locality = node.locality.clone();
    }
    if endpoint.locality.is_empty() && !entry.zone.is_empty() {
        endpoint.locality = Locality {
            zone: entry.zone.clone(),
            ..Locality::default()
        };
    }
    endpoint
}

fn node<'a>(world: &'a World, name: &str) -> Option<&'a Node> {
    world.nodes.get(&Key::new("", name)).map(AsRef::as_ref)
}

fn of_workload(world: &World, workload: &Workload, address: Address, port: u16) -> Endpoint {
    Endpoint {
        address,
        port,
        health: match (workload.ready, workload.terminating) {
            (true, false) => Health::Ready,
            (true, true) => Health::Draining,
            (false, _) => Health::NotReady,
        },
        labels: workload.labels.clone(),
        workload: Some(workload.origin.key()),
        workload_name: workload.workload_name.clone(),
        namespace: workload.namespace.clone(),
        canonical_name: workload.canonical_name.clone(),
        canonical_revision: workload.canonical_revision.clone(),
        identity: Some(workload.identity(&world.mesh.trust_domain)),
        mesh_tls: workload.mesh_tls,
        locality: workload.locality_on(node(world, &workload.node)),
        network: workload.network.clone(),
        node: workload.node.clone(),
        hostname: String::new(),
        weight: 0,
    }
}

/// An address of which nothing is known.
fn nobody(address: Address, port: u16) -> Endpoint {
    Endpoint {
        address,
        port,
        health: Health::Ready,
        labels: Arc::default(),
        workload: None,
        workload_name: String::new(),
        namespace: String::new(),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        identity: None,
        mesh_tls: false,
        locality: Locality::default(),
        network: String::new(),
        node: String::new(),
        hostname: String::new(),
        weight: 0,
    }
}

fn of_entry(world: &World, entry: &ServiceEntry, service: Arc<Service>) -> Resolved {
    let mut builder = Builder::new(&service);
    if service.resolution == Resolution::None {
        return builder.finish(service);
    }
    for endpoint in &entry.endpoints {
        given(world, &service, endpoint, None, &mut builder);
    }
    if let Some(selector) = &entry.workload_selector {
        let namespace = &entry.origin.namespace;
        for workload in selected(world, namespace, selector) {
            for port in &service.ports {
                let TargetPort::Number(target) = port.target else {
                    continue;
                };
                for address in &workload.addresses {
                    let endpoint = of_workload(world, workload, Address::Ip(*address), target);
                    builder.endpoint(port.number, endpoint);
                }
                builder.instance(&workload.origin.key(), port.number, target);
            }
        }
        let entries = world.workload_entries.range(Key::new(namespace, "")..);
        for (key, other) in entries.take_while(|(key, _)| key.namespace == *namespace) {
            if selector.matches(&other.endpoint.labels) {
                builder.parts.users.insert(key.clone());
                given(world, &service, &other.endpoint, Some(key), &mut builder);
            }
        }
    }
    let dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if dns && entry.endpoints.is_empty() && entry.workload_selector.is_none() {
        for port in &service.ports {
            let TargetPort::Number(target) = port.target else {
                continue;
            };
            let address = Address::Name(service.host.to_string());
            builder.endpoint(port.number, nobody(address, target));
        }
    }
    builder.finish(service)
}

/// An endpoint that somebody wrote down.
fn given(
    world: &World,
    service: &Service,
    endpoint: &EntryEndpoint,
    object: Option<&Key>,
    builder: &mut Builder,
) {
    let labels: Arc<Labels> = Arc::new(endpoint.labels.clone());
    let name = object.map_or_else(|| service.name.clone(), |key| key.name.clone());
    for port in &service.ports {
        let TargetPort::Number(target) = port.target else {
            continue;
        };
        let target = endpoint.ports.get(&port.name).copied().unwrap_or(target);
        let known = !endpoint.service_account.is_empty();
        let value = Endpoint {
            labels: labels.clone(),
            workload: object.cloned(),
            workload_name: name.clone(),
            namespace: service.namespace.clone(),
            canonical_name: canonical::name(&labels, &name),
            canonical_revision: canonical::revision(&labels),
            identity: known.then(|| {
                identity(
                    &world.mesh.trust_domain,
                    &service.namespace,
                    &endpoint.service_account,
                )
            }),
            mesh_tls: endpoint.mesh_tls,
            locality: endpoint.locality.clone(),
            network: endpoint.network.clone(),
            weight: endpoint.weight,
            ..nobody(endpoint.address.clone(), target)
        };
        builder.endpoint(port.number, value);
        if let Some(key) = object {
            builder.instance(key, port.number, target);
        }
    }
}
