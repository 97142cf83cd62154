//! Services by name and by namespace.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    model::{Distribution, Host, Service},
    registry::Registry,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    /// In the order of their names; those of one name in the order of precedence.
    by_host: BTreeMap<Host, Vec<Arc<Service>>>,
    by_namespace: BTreeMap<String, Vec<Arc<Service>>>,
    needs_node: bool,
    by_locality: bool,
}

impl Services {
    pub fn new(registry: &Registry) -> Self {
        let mut index = Self::default();
        for service in registry.services() {
            index.needs_node |= service.needs_node();
            index.by_locality |= service.distribution != Distribution::Any;
            index
                .by_host
                .entry(service.host.clone())
                .or_default()
                .push(service.clone());
            index
                .by_namespace
                .entry(service.namespace.clone())
                .or_default()
                .push(service.clone());
        }
        for services in index.by_host.values_mut().chain(index.by_namespace.values_mut()) {
            services.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        index
    }

    /// All services that have this name, one or more.
    pub fn hosts(&self) -> impl Iterator<Item = (&Host, &[Arc<Service>])> {
        self.by_host
            .iter()
            .map(|(host, services)| (host, services.as_slice()))
    }

    /// For some service, what a proxy gets depends on its node. (Else all proxies of a zone are alike.)
    pub fn needs_node(&self) -> bool {
        self.needs_node
    }

    /// For some service, what a proxy gets depends on where it is.
    pub fn by_locality(&self) -> bool {
        self.by_locality || self.needs_node
    }

    pub fn named(&self, host: &Host) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// The services of one namespace, oldest first.
    pub fn of_namespace(&self, namespace: &str) -> &[Arc<Service>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}
