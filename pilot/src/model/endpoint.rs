//! Endpoints: where a service's requests may be sent.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use super::{Key, Labels, Origin};

/// May it take requests?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    Ready,
    /// Terminating but still serving: no new work unless nothing else is left.
    Draining,
    NotReady,
}

/// Where a workload runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

impl Locality {
    /// `region/zone/subzone`, any of the later parts may be missing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            subzone: next(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty()
    }

    pub fn same_region(&self, other: &Self) -> bool {
        self.region == other.region
    }

    /// An EndpointSlice names zones without their regions.
    pub fn same_zone(&self, other: &Self) -> bool {
        let regions = self.same_region(other) || self.region.is_empty() || other.region.is_empty();
        self.zone == other.zone && regions
    }
}

/// An address that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(IpAddr),
    /// The proxy resolves it.
    Name(String),
    /// A Unix socket on the proxy's machine.
    Pipe(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) | Self::Pipe(name) => f.write_str(name),
        }
    }
}

/// One address of one port of a service, with everything that routing and identity need to know about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: Address,
    /// The port to dial (the service's target port).
    pub port: u16,
    pub health: Health,
    /// Labels of its workload, for subsets. Shared with the workload.
    pub labels: Arc<Labels>,
    /// The pod or WorkloadEntry, when known.
    pub workload: Option<Key>,
    /// The workload's name as metrics tell it (`reviews-v1`); empty when unknown.
    pub workload_name: String,
    /// The namespace of its workload; empty when unknown.
    pub namespace: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    /// The SPIFFE identity that it must prove; `None` when the workload is not known.
    pub identity: Option<String>,
    /// Its proxy takes the mesh's TLS.
    pub mesh_tls: bool,
    pub locality: Locality,
    pub network: String,
    pub node: String,
    /// The pod's own name below a headless service; empty when it has none.
    pub hostname: String,
    /// 0 means unset, which counts as 1.
    pub weight: u32,
}

/// An EndpointSlice of a Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    pub origin: Origin,
    /// The name of the Service it belongs to, of the same namespace.
    pub service: String,
    /// By port name, as in the Service.
    pub ports: BTreeMap<String, u16>,
    pub endpoints: Vec<SliceEndpoint>,
}

/// One entry of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    pub addresses: Vec<IpAddr>,
    pub health: Health,
    /// The pod behind it, of the slice's namespace.
    pub pod: Option<String>,
    pub hostname: String,
    pub node: String,
    pub zone: String,
}

/// An endpoint written into a ServiceEntry, or a WorkloadEntry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryEndpoint {
    pub address: Address,
    /// By the name of the service's port; where it is missing, the service's target port counts.
    pub ports: BTreeMap<String, u16>,
    pub labels: Labels,
    pub locality: Locality,
    pub network: String,
    pub weight: u32,
    pub service_account: String,
    /// By label `security.istio.io/tlsMode: istio` or a WorkloadEntry's service account.
    pub mesh_tls: bool,
}
