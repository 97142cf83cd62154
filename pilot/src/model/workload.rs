//! Workloads: what runs, with an address, labels and an identity. And the namespaces and nodes they run in.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    EndpointSlice, Labels, Origin,
    endpoint::{EntryEndpoint, Locality},
};

/// A namespace and its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    pub origin: Origin,
    pub name: String,
    pub labels: Labels,
}

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub origin: Origin,
    /// By its labels.
    pub locality: Locality,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The pod; its version is empty.
    pub origin: Origin,
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// All of them, the primary one first; empty until the pod has one.
    pub addresses: Vec<IpAddr>,
    pub labels: Arc<Labels>,
    pub service_account: String,
    /// The controller's name (`reviews-v1`), else the pod's.
    pub workload_name: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    /// Container ports by name.
    pub named_ports: BTreeMap<String, u16>,
    /// All declared container ports.
    pub ports: Vec<u16>,
    pub ready: bool,
    pub terminating: bool,
    pub host_network: bool,
    /// It has the mesh's proxy (injected sidecar, or a gateway).
    pub has_proxy: bool,
    /// Its proxy takes the mesh's TLS (label `security.istio.io/tlsMode: istio`).
    pub mesh_tls: bool,
    pub node: String,
    /// What the pod itself says; see [`Workload::locality_on`].
    pub locality: Locality,
    pub network: String,
}

impl Workload {
    /// `spiffe://cluster.local/ns/default/sa/bookinfo-reviews`
    pub fn identity(&self, trust_domain: &str) -> String {
        identity(trust_domain, &self.namespace, &self.service_account)
    }

    /// Where it runs: what the pod says, else where its node is. A pod that repeats its node's labels (Kubernetes copies
    /// region and zone) does not know the node's subzone.
    pub fn locality_on(&self, node: Option<&Node>) -> Locality {
        let own = &self.locality;
        match node.map(|node| &node.locality) {
            Some(node) if own.is_empty() => node.clone(),
            Some(node) if own.subzone.is_empty() && own.region == node.region && own.zone == node.zone => {
                node.clone()
            }
            _ => own.clone(),
        }
    }
}

/// The text of a workload identity; an empty account means `default`.
pub fn identity(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    let account = if service_account.is_empty() {
        "default"
    } else {
        service_account
    };
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
}

/// A WorkloadEntry: a workload outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadEntry {
    pub origin: Origin,
    pub endpoint: EntryEndpoint,
}

impl EndpointSlice {
    /// Does this slice speak of that pod?
    pub fn names_pod(&self, pod: &str) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.pod.as_deref() == Some(pod))
    }
}
