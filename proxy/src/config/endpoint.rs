//! The endpoints of one cluster, by locality and priority.

use std::{collections::BTreeMap, sync::Arc};

use super::scalar::Address;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub cluster: Arc<str>,
    pub localities: Vec<LocalityEndpoints>,
    /// In percent: a priority with 100/this of its hosts healthy still takes all of its traffic.
    pub overprovisioning: u32,
}

impl Assignment {
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.localities.iter().flat_map(|locality| &locality.endpoints)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// 0 is the highest.
    pub priority: u32,
    /// `None`: not given.
    pub weight: Option<u32>,
    pub locality: Locality,
    pub endpoints: Vec<Arc<Endpoint>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// For rewriting the authority; empty if not given.
    pub hostname: Arc<str>,
    /// At least 1.
    pub weight: u32,
    pub health: Health,
    /// From `metadata.filter_metadata["envoy.transport_socket_match"]`.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub workload: Option<Arc<WorkloadName>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Healthy, or not known.
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
    /// Takes no new requests.
    Draining,
}

/// Who is behind an endpoint, for labels of metrics and logs: claimed by the configuration, not proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WorkloadName {
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    pub canonical_name: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub cluster: Arc<str>,
}
