//! Workloads: what runs, with an address, labels and an identity. And the namespaces they run in.

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
    pub locality: Locality,
    pub network: String,
}

impl Workload {
    /// `spiffe://cluster.local/ns/default/sa/bookinfo-reviews`
    pub fn identity(&self, trust_domain: &str) -> String {
        identity(trust_domain, &self.namespace, &self.service_account)
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
