//! DestinationRules by namespace, oldest first.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{DestinationPolicy, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    by_namespace: BTreeMap<String, Vec<Arc<DestinationPolicy>>>,
}

impl Policies {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for policy in world.destination_policies.values() {
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
}
