//! The snapshot as one proxy may see it: which services, rules and policies exist for it. All proxies that are alike
//! ([`Viewer`]) see the same, so everything made from a view is shared by them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use mesh_proto::{
    mesh::MeshConfig,
    names,
    node::{NodeId, NodeKind, NodeMetadata},
};

use crate::{
    generate::cluster::tls::IdentitySource,
    model::{
        AuthorizationPolicy, DestinationPolicy, Gateway, GatewayRef, Host, Labels, Service, Sidecar,
        VirtualService, Workload, authn::EffectiveMtls, endpoint::Locality, host,
    },
    snapshot::{Issuer, Snapshot},
};

mod narrow;
mod observe;
mod scope;

pub use scope::Place;

/// Everything about a proxy that decides what it gets. Two proxies with equal values get the same resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub kind: NodeKind,
    pub namespace: String,
    pub labels: Labels,
    pub service_account: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    /// It is our own proxy.
    pub ours: bool,
    /// It answers DNS.
    pub dns: bool,
    pub source: IdentitySource,
    pub locality: Locality,
    /// Only where some service asks for it.
    pub node: String,
    pub network: String,
    /// Container ports by name.
    pub named_ports: BTreeMap<String, u16>,
    /// Its address is an IPv6 one.
    pub ipv6: bool,
    /// Its address, only where a Sidecar sends something to it.
    pub address: Option<IpAddr>,
    /// The pod's traffic is redirected to it.
    pub intercepts: bool,
}

impl Viewer {
    /// From what the proxy says about itself, where its pod does not know better.
    pub fn new(id: &NodeId, metadata: &NodeMetadata, pod: Option<&Workload>) -> Self {
        let labels = pod.map_or_else(|| metadata.labels.clone(), |pod| Labels::clone(&pod.labels));
        let label = |name: &str| labels.get(name).cloned();
        let canonical_name = label(names::label::CANONICAL_NAME)
            .or_else(|| label(names::label::APP_NAME))
            .or_else(|| label(names::label::APP))
            .or_else(|| pod.map(|pod| pod.canonical_name.clone()))
            .or_else(|| Some(metadata.workload_name.clone()))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.pod.clone());
        let canonical_revision = label(names::label::CANONICAL_REVISION)
            .or_else(|| label(names::label::VERSION))
            .unwrap_or_else(|| "latest".to_owned());
        let files = !metadata.tls_client_cert_chain.is_empty() && !metadata.tls_client_key.is_empty();
        Self {
            kind: id.kind,
            namespace: id.namespace.clone(),
            service_account: metadata.service_account.clone(),
            canonical_name,
            canonical_revision,
            ours: metadata.generator == "gossamer",
            dns: metadata.dns_capture == "true",
            source: if files {
                IdentitySource::Files {
                    certificate: metadata.tls_client_cert_chain.clone(),
                    key: metadata.tls_client_key.clone(),
                    roots: metadata.tls_client_root_cert.clone(),
                }
            } else {
                IdentitySource::Sds
            },
            locality: pod.map(|pod| pod.locality.clone()).unwrap_or_default(),
            node: String::new(),
            network: pod.map(|pod| pod.network.clone()).unwrap_or_default(),
            named_ports: pod.map(|pod| pod.named_ports.clone()).unwrap_or_default(),
            ipv6: id.ip.contains(':'),
            address: None,
            intercepts: metadata.interception_mode != "NONE",
            labels,
        }
    }
}

impl Viewer {
    /// With what this snapshot knows about the proxy's pod and its node.
    pub fn in_snapshot(id: &NodeId, metadata: &NodeMetadata, snapshot: &Snapshot) -> Self {
        let pod = snapshot.workloads.get(&id.namespace, &id.pod);
        let mut viewer = Self::new(id, metadata, pod);
        if let Some(pod) = pod {
            viewer.locality = snapshot.workloads.locality(pod);
            if snapshot.services.needs_node() {
                viewer.node.clone_from(&pod.node);
            }
        }
        if scope::wants_address(&viewer, snapshot) {
            viewer.address = id.ip.parse().ok();
        }
        viewer
    }
}

/// A viewer's look at a snapshot.
#[derive(Debug)]
pub struct View<'a> {
    pub viewer: &'a Viewer,
    pub snapshot: &'a Snapshot,
    sidecar: Option<&'a Arc<Sidecar>>,
    /// Chosen when somebody asks: many views are made for something small.
    services: OnceLock<BTreeMap<&'a Host, &'a Arc<Service>>>,
}

impl<'a> View<'a> {
    pub fn new(viewer: &'a Viewer, snapshot: &'a Snapshot) -> Self {
        Self {
            viewer,
            snapshot,
            sidecar: scope::sidecar(viewer, snapshot),
            services: OnceLock::new(),
        }
    }

    /// A sidecar's view in which there are no other services than those with these names.
    pub fn of_hosts(viewer: &'a Viewer, snapshot: &'a Snapshot, hosts: &BTreeSet<&'a Host>) -> Self {
        let view = Self::new(viewer, snapshot);
        let chosen = hosts
            .iter()
            .filter_map(|host| Some((*host, view.choose(snapshot.services.named(host))?)));
        // It was made just now, and nobody else has it: it is empty.
        let _ = view.services.set(chosen.collect());
        view
    }

    fn all_services(&self) -> &BTreeMap<&'a Host, &'a Arc<Service>> {
        self.services.get_or_init(|| {
            let hosts = self.snapshot.services.hosts();
            let mut services: BTreeMap<&'a Host, &'a Arc<Service>> = hosts
                .filter_map(|(host, all)| Some((host, self.choose(all)?)))
                .collect();
            if self.viewer.kind == NodeKind::Router {
                let wanted = self.referenced();
                services.retain(|host, _| wanted.contains(*host));
            }
            services
        })
    }

    pub fn mesh(&self) -> &'a MeshConfig {
        &self.snapshot.mesh.value
    }

    pub fn is_gateway(&self) -> bool {
        self.viewer.kind == NodeKind::Router
    }

    /// Of the services of one name, the one that this viewer means: of its own namespace, else the oldest.
    fn choose(&self, all: &'a [Arc<Service>]) -> Option<&'a Arc<Service>> {
        let own = &self.viewer.namespace;
        let visible = |service: &&Arc<Service>| {
            service.visibility.allows(&service.namespace, own) && self.sees(service)
        };
        let mut seen = all.iter().filter(visible);
        seen.clone()
            .find(|service| service.namespace == *own)
            .or_else(|| seen.next())
    }

    /// The services, by name.
    pub fn services(&self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.all_services().values().copied()
    }

    pub fn service(&self, host: &Host) -> Option<&'a Arc<Service>> {
        self.all_services().get(host).copied()
    }

    /// What a gateway needs: the destinations of its rules, and telemetry.
    fn referenced(&self) -> BTreeSet<Host> {
        let mut hosts: BTreeSet<Host> = [self.telemetry_host()].into();
        for gateway in self.gateways() {
            for route in self.routes_at(&gateway.reference()) {
                hosts.extend(route.destinations().map(|destination| destination.host.clone()));
            }
        }
        hosts
    }

    /// The DestinationRule that counts: of the viewer's namespace, of the service's, of the root namespace; in each of
    /// them one that selects the viewer first, then the one of the narrowest host.
    pub fn policy(&self, service: &Service) -> Option<&'a Arc<DestinationPolicy>> {
        let root = self.mesh().root_namespace.as_str();
        let own = self.viewer.namespace.as_str();
        [own, service.namespace.as_str(), root]
            .into_iter()
            .find_map(|namespace| {
                let candidates = self
                    .snapshot
                    .policies
                    .value
                    .of_namespace(namespace)
                    .iter()
                    .filter(|policy| {
                        policy.visibility.allows(&policy.origin.namespace, own)
                            && policy.host.covers(&service.host)
                            && match &policy.selector {
                                None => true,
                                Some(selector) => namespace == own && selector.matches(&self.viewer.labels),
                            }
                    });
                // The first of equals counts, which is the oldest.
                candidates.min_by_key(|policy| (policy.selector.is_none(), policy.host.specificity()))
            })
    }

    /// VirtualServices that are visible and bound to this place, oldest first.
    pub fn routes_at(&self, gateway: &GatewayRef) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let own = self.viewer.namespace.as_str();
        let routes = self.snapshot.routes.value.at(gateway).iter();
        routes.filter(move |route| route.visibility.allows(&route.origin.namespace, own))
    }

    /// The VirtualService for one host of the mesh: the one with the narrowest host that covers it.
    pub fn route_of(&self, name: &Host) -> Option<&'a Arc<VirtualService>> {
        let own = self.viewer.namespace.as_str();
        let about = self.snapshot.routes.about(name);
        let visible = about.filter(|route| route.visibility.allows(&route.origin.namespace, own));
        let covering = visible.filter_map(|route| {
            let host = host::most_specific(name, &route.hosts)?;
            Some((host.specificity(), route))
        });
        covering.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, route)| route)
    }

    /// The gateways that this viewer serves; a sidecar serves none.
    pub fn gateways(&self) -> impl Iterator<Item = &'a Arc<Gateway>> {
        let all = self
            .is_gateway()
            .then(|| self.snapshot.gateways.value.selecting(&self.viewer.labels));
        all.into_iter().flatten()
    }

    /// What the viewer itself takes.
    pub fn mtls(&self) -> EffectiveMtls {
        self.mtls_of(&self.viewer.namespace, &self.viewer.labels)
    }

    /// What another workload takes.
    pub fn mtls_of(&self, namespace: &str, labels: &Labels) -> EffectiveMtls {
        self.snapshot
            .peers
            .effective(&self.mesh().root_namespace, namespace, labels)
    }

    pub fn authorization(&self) -> Vec<Arc<AuthorizationPolicy>> {
        let root = &self.mesh().root_namespace;
        self.snapshot
            .authorization
            .of(root, &self.viewer.namespace, &self.viewer.labels)
    }

    /// Whose tokens the viewer's requests may carry.
    pub fn issuers(&self) -> Vec<Issuer> {
        let root = &self.mesh().root_namespace;
        self.snapshot
            .tokens
            .of(root, &self.viewer.namespace, &self.viewer.labels)
    }

    /// Where records and traces go unless somebody says otherwise.
    pub fn telemetry_host(&self) -> Host {
        Host::of_service("telemetry", self.mesh().system_namespace(), names::CLUSTER_DOMAIN)
    }

    /// The mesh's trust domain first, then those that count as it.
    pub fn trust_domains(&self) -> Vec<String> {
        let mesh = self.mesh();
        std::iter::once(&mesh.trust_domain)
            .chain(&mesh.trust_domain_aliases)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
