//! DestinationRules by namespace, oldest first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{DestinationPolicy, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    by_namespace: BTreeMap<String, Vec<Arc<DestinationPolicy>>>,
    /// Labels by which some policy of a namespace tells its clients apart.
    selectors: BTreeMap<String, BTreeSet<String>>,
    /// Labels that endpoints are compared with their client by, wherever the client is.
    shared: BTreeSet<String>,
    by_locality: bool,
}

impl Policies {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for policy in world.destination_policies.values() {
            index.note(policy);
            index
                .by_namespace
                .entry(policy.origin.namespace.clone())
                .or_default()
                .push(policy.clone());
        }
        for policies in index.by_namespace.values_mut() {
            policies.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        index
    }

    pub fn of_namespace(&self, namespace: &str) -> &[Arc<DestinationPolicy>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    fn note(&mut self, policy: &DestinationPolicy) {
        if let Some(selector) = &policy.selector {
            let keys = self.selectors.entry(policy.origin.namespace.clone()).or_default();
            keys.extend(selector.0.keys().cloned());
        }
        let subsets = policy.subsets.iter().map(|subset| &subset.policy);
        for policy in std::iter::once(&policy.policy).chain(subsets) {
            let ports = policy.ports.iter().map(|(_, policy)| policy);
            let balancers = std::iter::once(&policy.all)
                .chain(ports)
                .filter_map(|policy| policy.balancer.as_ref());
            for locality in balancers.filter_map(|balancer| balancer.locality.as_ref()) {
                self.by_locality = true;
                let keys = locality.failover_priority.iter();
                // `key=value` says itself what it compares with.
                self.shared.extend(keys.filter(|key| !key.contains('=')).cloned());
            }
        }
    }

    /// The labels of a client in this namespace that some policy looks at.
    pub fn label_keys(&self, namespace: &str) -> impl Iterator<Item = &String> {
        self.selectors
            .get(namespace)
            .into_iter()
            .flatten()
            .chain(&self.shared)
    }

    /// Where a client is matters to some policy.
    pub fn by_locality(&self) -> bool {
        self.by_locality
    }
}
