//! Endpoints by service and port, and the little that clusters and listeners must know about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    model::{Endpoint, Service, ServiceKey, endpoint::Address},
    registry::Registry,
};

/// The registry as it was at the snapshot's moment; it shares everything that did not change.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    registry: Registry,
}

impl Endpoints {
    pub fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
        }
    }

    /// Those of one port, in any state of health.
    pub fn of(&self, service: &ServiceKey, port: u16) -> &[Endpoint] {
        self.registry.endpoints(service, port)
    }

    /// Every service's endpoints, for the debug page.
    pub fn all(&self) -> impl Iterator<Item = (ServiceKey, u16, &[Endpoint])> {
        self.registry.services().flat_map(move |service| {
            let key = service.key();
            service.ports.iter().map(move |port| {
                let endpoints = self.registry.endpoints(&key, port.number);
                (key.clone(), port.number, endpoints)
            })
        })
    }
}

/// What is said about all endpoints of one port together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTraits {
    /// Identities that the endpoints prove; empty when one of them is not known, since then no list is right.
    pub identities: BTreeSet<String>,
    /// Every endpoint takes the mesh's TLS (and there is one).
    pub mesh_tls: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceTraits {
    ports: BTreeMap<u16, PortTraits>,
    /// Addresses that clients of a headless service dial.
    addresses: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traits {
    services: BTreeMap<ServiceKey, ServiceTraits>,
}

impl Traits {
    /// With the traits of these services as they are now; `None` if all of them are as before.
    pub fn updated<'a>(
        &self,
        registry: &Registry,
        concerned: impl IntoIterator<Item = &'a ServiceKey>,
    ) -> Option<Self> {
        let mut updated: Option<Self> = None;
        for key in concerned {
            let now = registry.service(key).map(|service| traits(registry, service));
            if self.services.get(key) == now.as_ref() {
                continue;
            }
            let services = &mut updated.get_or_insert_with(|| self.clone()).services;
            match now {
                Some(now) => services.insert(key.clone(), now),
                None => services.remove(key),
            };
        }
        updated
    }

    pub fn of(&self, service: &ServiceKey, port: u16) -> PortTraits {
        self.services
            .get(service)
            .and_then(|own| own.ports.get(&port))
            .cloned()
            .unwrap_or_default()
    }

    pub fn headless(&self, service: &ServiceKey) -> impl Iterator<Item = IpAddr> {
        self.services
            .get(service)
            .into_iter()
            .flat_map(|own| own.addresses.iter().copied())
    }
}

fn traits(registry: &Registry, service: &Service) -> ServiceTraits {
    let key = service.key();
    let mut own = ServiceTraits::default();
    for port in &service.ports {
        let all = registry.endpoints(&key, port.number);
        let mut traits = PortTraits {
            identities: all
                .iter()
                .filter_map(|endpoint| endpoint.identity.clone())
                .collect(),
            mesh_tls: !all.is_empty() && all.iter().all(|endpoint| endpoint.mesh_tls),
        };
        if all.iter().any(|endpoint| endpoint.identity.is_none()) {
            traits.identities.clear();
        }
        if service.is_headless() {
            own.addresses
                .extend(all.iter().filter_map(|endpoint| match endpoint.address {
                    Address::Ip(ip) => Some(ip),
                    Address::Name(_) | Address::Pipe(_) => None,
                }));
        }
        own.ports.insert(port.number, traits);
    }
    own
}
