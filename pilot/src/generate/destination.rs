//! Where a proxy may send to: each port of each service that it sees, as a whole and by subset. Clusters and endpoints are
//! made from the same list, so they agree.

use std::sync::Arc;

use mesh_proto::{envoy::config::cluster::v3::cluster::DiscoveryType, names};

use super::{
    cluster::{self, outbound::Mtls},
    endpoint::{self, locality},
};
use crate::{
    model::{
        DestinationPolicy, Endpoint, MtlsMode, Origin, Protocol, Resolution, Selector, Service, ServicePort,
        policy::{Algorithm, PortPolicy},
    },
    view::View,
};

/// Where traffic goes whose destination the mesh does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// To where it wanted to go.
    Allow,
    /// To this cluster.
    Via(String),
    /// Nowhere.
    Block,
}

impl Unknown {
    pub fn cluster(&self) -> &str {
        match self {
            Self::Allow => names::cluster::PASSTHROUGH,
            Self::Via(cluster) => cluster,
            Self::Block => names::cluster::BLACK_HOLE,
        }
    }
}

/// One cluster to be.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    pub service: &'a Arc<Service>,
    pub port: &'a ServicePort,
    pub subset: Option<String>,
    pub rule: Option<&'a Arc<DestinationPolicy>>,
    pub policy: PortPolicy,
}

/// In the order of hosts, ports and subsets.
pub fn all<'a>(view: &View<'a>) -> Vec<Destination<'a>> {
    let mut destinations = Vec::new();
    for service in view.services() {
        let rule = view.policy(service);
        for port in view.ports(service).filter(|port| port.protocol != Protocol::Udp) {
            let bound = view.place(port.number).bound;
            let one = |subset: Option<&str>| Destination {
                service,
                port,
                subset: subset.map(str::to_owned),
                rule,
                policy: policy(rule, port.number, subset, bound),
            };
            destinations.push(one(None));
            let subsets = rule.into_iter().flat_map(|rule| &rule.subsets);
            destinations.extend(subsets.map(|subset| one(Some(&subset.name))));
        }
    }
    destinations
}

/// Who connects to the proxy itself has no destination of its own to be passed to.
fn policy(rule: Option<&Arc<DestinationPolicy>>, port: u16, subset: Option<&str>, bound: bool) -> PortPolicy {
    let mut policy = rule.map(|rule| rule.effective(port, subset)).unwrap_or_default();
    if let Some(balancer) = policy.balancer.as_mut().filter(|_| bound)
        && balancer.algorithm == Algorithm::Passthrough
    {
        balancer.algorithm = Algorithm::default();
    }
    policy
}

impl Destination<'_> {
    pub fn name(&self) -> String {
        let subset = self.subset.as_deref().unwrap_or_default();
        names::outbound_cluster(self.port.number, subset, self.service.host.as_str())
    }

    /// A gateway, and a listener of a sidecar that clients connect to, have no original destination to send to, so for
    /// them the registry's addresses count.
    fn resolution(&self, view: &View<'_>) -> Resolution {
        match self.service.resolution {
            Resolution::Headless if view.is_gateway() || view.place(self.port.number).bound => {
                Resolution::Static
            }
            other => other,
        }
    }

    pub fn cluster(&self, view: &View<'_>) -> cluster::outbound::Input {
        let service = self.service;
        let traits = view.snapshot.traits.of(&service.key(), self.port.number);
        let resolution = self.resolution(view);
        let mut identities = traits.identities;
        // Some endpoints are not known yet: then the accounts that were declared say nothing complete either.
        if !identities.is_empty() || service.is_external() {
            identities.extend(service.accounts.iter().cloned());
        }
        let automatic = view.mesh().enable_auto_mtls && !service.is_external();
        let original = matches!(resolution, Resolution::Headless | Resolution::None);
        // Telemetry takes mutual TLS by itself, without a proxy whose presence its endpoints could tell.
        let records = service.host == view.telemetry_host() && self.port.number == names::port::TELEMETRY;
        let mtls = match (automatic, original) {
            _ if records => Mtls::Always,
            (false, _) => Mtls::Never,
            (true, false) => Mtls::PerEndpoint,
            (true, true) if traits.mesh_tls => Mtls::Always,
            (true, true) => Mtls::Never,
        };
        let dns = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        cluster::outbound::Input {
            host: service.host.clone(),
            service_name: service.name.clone(),
            namespace: service.namespace.clone(),
            port: self.port.number,
            protocol: self.port.protocol,
            resolution,
            subset: self.subset.clone(),
            origin: self.rule.map(|rule| Origin {
                version: String::new(),
                ..rule.origin.clone()
            }),
            policy: self.policy.clone(),
            identities,
            mtls,
            identity_source: view.viewer.source.clone(),
            connect_timeout: view.mesh().connect_timeout.0,
            dns_refresh: view.mesh().dns_refresh_rate.0,
            dns: dns.then(|| self.endpoints(view)),
        }
    }

    /// Whether the proxy would have to resolve the host's own name.
    pub fn needs_name(&self) -> bool {
        matches!(
            self.service.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin
        )
    }

    /// Whether its endpoints travel by EDS.
    pub fn uses_eds(&self, view: &View<'_>) -> bool {
        cluster::outbound::discovery(self.resolution(view), &self.policy) == DiscoveryType::Eds
    }

    pub fn endpoints(&self, view: &View<'_>) -> endpoint::Input {
        let service = self.service;
        let labels = self
            .subset
            .as_deref()
            .and_then(|name| self.rule?.subset(name))
            .map(|subset| &subset.labels);
        let selector = labels.map(|labels| Selector(labels.clone()));
        let all = view.snapshot.endpoints.of(&service.key(), self.port.number);
        let members: Vec<&Endpoint> = all
            .iter()
            .filter(|endpoint| {
                selector
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&endpoint.labels))
            })
            .collect();
        let client = locality::Client {
            locality: &view.viewer.locality,
            labels: &view.viewer.labels,
            node: &view.viewer.node,
            distribution: service.distribution,
            node_local: service.node_local,
            balancing: self
                .policy
                .balancer
                .as_ref()
                .and_then(|balancer| balancer.locality.as_ref()),
        };
        endpoint::Input {
            cluster: self.name(),
            groups: locality::groups(&members, service.publish_not_ready, client, |endpoint| {
                endpoint.mesh_tls && takes_mesh_tls(view, endpoint)
            }),
        }
    }
}

/// Unless PeerAuthentication switched it off there.
fn takes_mesh_tls(view: &View<'_>, endpoint: &Endpoint) -> bool {
    view.mtls_of(&endpoint.namespace, &endpoint.labels)
        .for_port(endpoint.port)
        != MtlsMode::Disable
}
