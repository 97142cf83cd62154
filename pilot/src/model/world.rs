//! Everything that is known, one table per kind. `store` writes it, `registry` and `snapshot` read it.
//!
//! A table is shared: cloning a [`World`] copies one pointer per table, and a writer copies only the table it touches,
//! and only while a reader still holds the old one.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    AuthorizationPolicy, Credential, DestinationPolicy, EndpointSlice, Gateway, Key, Kind, MeshConfig,
    Namespace, Node, PeerAuthentication, ProxySettings, RequestAuthentication, Service, ServiceEntry,
    Sidecar, Telemetry, VirtualService, Workload, WorkloadEntry, authn::KeySource,
};

/// Values of one kind, in the order of namespace and name.
pub type Table<T> = Arc<BTreeMap<Key, Arc<T>>>;

/// The value of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Mesh(Arc<MeshConfig>),
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Workload(Arc<Workload>),
    Credential(Arc<Credential>),
    VirtualService(Arc<VirtualService>),
    DestinationPolicy(Arc<DestinationPolicy>),
    Gateway(Arc<Gateway>),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    Sidecar(Arc<Sidecar>),
    PeerAuthentication(Arc<PeerAuthentication>),
    RequestAuthentication(Arc<RequestAuthentication>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    Telemetry(Arc<Telemetry>),
    ProxySettings(Arc<ProxySettings>),
}

/// The last good value of every object.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// ConfigMap `istio` of the system namespace; the defaults until it is there.
    pub mesh: Arc<MeshConfig>,
    pub namespaces: Table<Namespace>,
    pub nodes: Table<Node>,
    pub services: Table<Service>,
    pub slices: Table<EndpointSlice>,
    /// Pods.
    pub workloads: Table<Workload>,
    pub credentials: Table<Credential>,
    pub virtual_services: Table<VirtualService>,
    pub destination_policies: Table<DestinationPolicy>,
    pub gateways: Table<Gateway>,
    pub service_entries: Table<ServiceEntry>,
    pub workload_entries: Table<WorkloadEntry>,
    pub sidecars: Table<Sidecar>,
    pub peer_authentications: Table<PeerAuthentication>,
    pub request_authentications: Table<RequestAuthentication>,
    pub authorization_policies: Table<AuthorizationPolicy>,
    pub telemetries: Table<Telemetry>,
    pub proxy_settings: Table<ProxySettings>,
    /// Public keys of token issuers, as they were fetched last.
    pub keys: Arc<BTreeMap<KeySource, Arc<str>>>,
}

/// Puts a value into its table (or takes it out). True if that changed anything.
fn put<T: PartialEq>(table: &mut Table<T>, key: &Key, value: Option<Arc<T>>) -> bool {
    if table.get(key) == value.as_ref() {
        return false;
    }
    let table = Arc::make_mut(table);
    match value {
        Some(value) => table.insert(key.clone(), value),
        None => table.remove(key),
    };
    true
}

impl World {
    /// Sets an object's value. True if that changed anything.
    pub fn set(&mut self, key: &Key, item: Item) -> bool {
        match item {
            Item::Mesh(value) => {
                let changed = self.mesh != value;
                self.mesh = value;
                changed
            }
            Item::Namespace(value) => put(&mut self.namespaces, key, Some(value)),
            Item::Node(value) => put(&mut self.nodes, key, Some(value)),
            Item::Service(value) => put(&mut self.services, key, Some(value)),
            Item::EndpointSlice(value) => put(&mut self.slices, key, Some(value)),
            Item::Workload(value) => put(&mut self.workloads, key, Some(value)),
            Item::Credential(value) => put(&mut self.credentials, key, Some(value)),
            Item::VirtualService(value) => put(&mut self.virtual_services, key, Some(value)),
            Item::DestinationPolicy(value) => put(&mut self.destination_policies, key, Some(value)),
            Item::Gateway(value) => put(&mut self.gateways, key, Some(value)),
            Item::ServiceEntry(value) => put(&mut self.service_entries, key, Some(value)),
            Item::WorkloadEntry(value) => put(&mut self.workload_entries, key, Some(value)),
            Item::Sidecar(value) => put(&mut self.sidecars, key, Some(value)),
            Item::PeerAuthentication(value) => put(&mut self.peer_authentications, key, Some(value)),
            Item::RequestAuthentication(value) => put(&mut self.request_authentications, key, Some(value)),
            Item::AuthorizationPolicy(value) => put(&mut self.authorization_policies, key, Some(value)),
            Item::Telemetry(value) => put(&mut self.telemetries, key, Some(value)),
            Item::ProxySettings(value) => put(&mut self.proxy_settings, key, Some(value)),
        }
    }

    /// Forgets an object. True if it was known.
    pub fn remove(&mut self, kind: Kind, key: &Key) -> bool {
        match kind {
            Kind::ConfigMap => {
                let default = Arc::new(MeshConfig::default());
                let changed = self.mesh != default;
                self.mesh = default;
                changed
            }
            Kind::Namespace => put(&mut self.namespaces, key, None),
            Kind::Node => put(&mut self.nodes, key, None),
            Kind::Service => put(&mut self.services, key, None),
            Kind::EndpointSlice => put(&mut self.slices, key, None),
            Kind::Pod => put(&mut self.workloads, key, None),
            Kind::Secret => put(&mut self.credentials, key, None),
            Kind::VirtualService => put(&mut self.virtual_services, key, None),
            Kind::DestinationRule => put(&mut self.destination_policies, key, None),
            Kind::Gateway => put(&mut self.gateways, key, None),
            Kind::ServiceEntry => put(&mut self.service_entries, key, None),
            Kind::WorkloadEntry => put(&mut self.workload_entries, key, None),
            Kind::Sidecar => put(&mut self.sidecars, key, None),
            Kind::PeerAuthentication => put(&mut self.peer_authentications, key, None),
            Kind::RequestAuthentication => put(&mut self.request_authentications, key, None),
            Kind::AuthorizationPolicy => put(&mut self.authorization_policies, key, None),
            Kind::Telemetry => put(&mut self.telemetries, key, None),
            Kind::ProxyConfig => put(&mut self.proxy_settings, key, None),
            _ => false,
        }
    }
}
