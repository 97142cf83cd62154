//! Services: names with ports that lead to endpoints.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::{Host, Labels, Origin, Selector, ServicePort, Visibility, endpoint::EntryEndpoint};

/// A service's name in the mesh. Two namespaces may declare the same host (by ServiceEntry).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub namespace: String,
    pub host: Host,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.host)
    }
}

/// How the endpoints of a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// The registry knows them; the service has an address of its own, or is reached by name: EDS.
    Static,
    /// The registry knows them, but clients dial them directly: a headless service.
    Headless,
    /// The proxy resolves each endpoint's name (or the host) and uses all addresses.
    Dns,
    /// As `Dns`, with one address at a time.
    DnsRoundRobin,
    /// The proxy forwards to where the client wanted to go.
    None,
}

/// Which endpoints of a service a client prefers (`trafficDistribution`). The others take over when none of those is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Distribution {
    #[default]
    Any,
    /// `PreferSameZone`, also called `PreferClose`.
    Zone,
    /// `PreferSameNode`, then the zone.
    Node,
}

impl Distribution {
    /// As a Service, or the annotation, says it. `None` for what is not known.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Any" => Some(Self::Any),
            "PreferClose" | "PreferSameZone" => Some(Self::Zone),
            "PreferSameNode" => Some(Self::Node),
            _ => None,
        }
    }
}

/// Is it in the mesh?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// Its workloads may have sidecars; automatic mTLS applies.
    Internal,
    External,
}

/// A service, from whatever source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// The Service or the ServiceEntry. Its version is empty for a Service.
    pub origin: Origin,
    pub host: Host,
    /// The name without namespace and domain (`reviews`); of a ServiceEntry, the host.
    pub name: String,
    pub namespace: String,
    /// Sorted by number, no number twice.
    pub ports: Vec<ServicePort>,
    /// Addresses of the service itself (ClusterIPs, a ServiceEntry's addresses that are single addresses).
    pub addresses: Vec<IpAddr>,
    /// A ServiceEntry's addresses that are ranges.
    pub ranges: Vec<ipnet::IpNet>,
    /// An address that pilot chose, known only to proxies that answer DNS.
    pub auto_address: Option<IpAddr>,
    pub resolution: Resolution,
    pub location: Location,
    pub visibility: Visibility,
    /// Pods it selects; `None` where its endpoints are given by hand.
    pub selector: Option<Selector>,
    pub labels: Labels,
    /// Identities that its workloads are known to have besides those of its endpoints (`subjectAltNames`).
    pub accounts: BTreeSet<String>,
    /// `spec.externalName`: the name is an alias of this host.
    pub external_name: Option<Host>,
    /// Addresses that are not ready count too (`publishNotReadyAddresses`).
    pub publish_not_ready: bool,
    /// Only endpoints on the client's own node (`internalTrafficPolicy: Local`).
    pub node_local: bool,
    pub distribution: Distribution,
}

impl Service {
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.clone(),
            host: self.host.clone(),
        }
    }

    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Do its endpoints depend on the client's node?
    pub fn needs_node(&self) -> bool {
        self.node_local || self.distribution == Distribution::Node
    }

    pub fn is_external(&self) -> bool {
        self.location == Location::External
    }

    pub fn is_headless(&self) -> bool {
        self.resolution == Resolution::Headless
    }
}

/// A ServiceEntry: one service per host, and endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceEntry {
    pub origin: Origin,
    /// One for each of `hosts`, alike but for the host.
    pub services: Vec<Service>,
    /// Given in the object.
    pub endpoints: Vec<EntryEndpoint>,
    /// Pods and WorkloadEntries of its namespace.
    pub workload_selector: Option<Selector>,
}
