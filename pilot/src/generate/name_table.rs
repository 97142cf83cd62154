//! NDS: the names that a proxy's DNS answers, and their addresses. One table for each proxy that asks.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_proto::{
    names,
    nds::{NameTable, name_table::NameInfo},
};

use crate::{
    model::{Endpoint, Health, Host, Service, endpoint::Address},
    view::View,
};

/// The resource's name.
pub const NAME: &str = "NameTable";

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Input {
    /// By full host name.
    pub names: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub addresses: Vec<IpAddr>,
    /// A Kubernetes service: its short name and namespace.
    pub service: Option<(String, String)>,
}

/// `None` for a proxy that answers no DNS.
pub fn input(view: &View<'_>) -> Option<Input> {
    if !view.viewer.dns {
        return None;
    }
    let mut names = BTreeMap::new();
    for service in view.services() {
        let addresses = addresses(view, service);
        if addresses.is_empty() {
            continue;
        }
        let full = Host::of_service(&service.name, &service.namespace, names::CLUSTER_DOMAIN);
        let of_kubernetes = service.host == full;
        let entry = Entry {
            addresses,
            service: of_kubernetes.then(|| (service.name.clone(), service.namespace.clone())),
        };
        names.insert(service.host.as_str().to_owned(), entry);
        if of_kubernetes && service.is_headless() {
            names.append(&mut pods(view, service));
        }
    }
    Some(Input { names })
}

/// The pods of a StatefulSet, each by its own name below the service's.
fn pods(view: &View<'_>, service: &Service) -> BTreeMap<String, Entry> {
    let mut names: BTreeMap<String, Entry> = BTreeMap::new();
    for endpoint in reachable(view, service).filter(|endpoint| !endpoint.hostname.is_empty()) {
        let Address::Ip(ip) = endpoint.address else {
            continue;
        };
        let short = format!("{}.{}", endpoint.hostname, service.name);
        let entry = names
            .entry(format!("{}.{}", endpoint.hostname, service.host))
            .or_insert_with(|| Entry {
                addresses: Vec::new(),
                service: Some((short, service.namespace.clone())),
            });
        if !entry.addresses.contains(&ip) {
            entry.addresses.push(ip);
        }
    }
    names
}

/// Endpoints that DNS tells.
fn reachable<'a>(view: &'a View<'_>, service: &'a Service) -> impl Iterator<Item = &'a Endpoint> {
    let endpoints = &view.snapshot.endpoints.value;
    let key = service.key();
    service
        .ports
        .iter()
        .flat_map(move |port| endpoints.of(&key, port.number))
        .filter(|endpoint| endpoint.health == Health::Ready || service.publish_not_ready)
}

/// The service's own, else the one that pilot chose, else (headless) those of its endpoints.
fn addresses(view: &View<'_>, service: &Service) -> Vec<IpAddr> {
    if !service.addresses.is_empty() {
        return service.addresses.clone();
    }
    if !service.is_headless() {
        return service.auto_address.into_iter().collect();
    }
    let mut addresses: Vec<IpAddr> = reachable(view, service)
        .filter_map(|endpoint| match endpoint.address {
            Address::Ip(ip) => Some(ip),
            Address::Name(_) | Address::Pipe(_) => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

pub fn generate(input: &Input) -> NameTable {
    let info = |entry: &Entry| {
        let (shortname, namespace) = entry.service.clone().unwrap_or_default();
        NameInfo {
            ips: entry.addresses.iter().map(ToString::to_string).collect(),
            registry: if entry.service.is_some() {
                "Kubernetes"
            } else {
                "External"
            }
            .to_owned(),
            shortname,
            namespace,
            alt_hosts: Vec::new(),
        }
    };
    NameTable {
        table: input
            .names
            .iter()
            .map(|(name, entry)| (name.clone(), info(entry)))
            .collect(),
    }
}
