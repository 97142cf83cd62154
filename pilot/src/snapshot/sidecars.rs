//! Sidecar objects by namespace.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Labels, Sidecar, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sidecars {
    by_namespace: BTreeMap<String, Vec<Arc<Sidecar>>>,
}

impl Sidecars {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for sidecar in world.sidecars.values() {
            index
                .by_namespace
                .entry(sidecar.origin.namespace.clone())
                .or_default()
                .push(sidecar.clone());
        }
        for sidecars in index.by_namespace.values_mut() {
            sidecars.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        index
    }

    /// The workload's own, else its namespace's, else the mesh's.
    pub fn of(&self, namespace: &str, labels: &Labels, root: &str) -> Option<&Arc<Sidecar>> {
        let own = self.by_namespace.get(namespace).into_iter().flatten();
        let selecting =
            |sidecar: &&Arc<Sidecar>| sidecar.selector.as_ref().is_some_and(|s| s.matches(labels));
        own.clone()
            .find(selecting)
            .or_else(|| own.clone().find(|sidecar| sidecar.selector.is_none()))
            .or_else(|| {
                self.by_namespace
                    .get(root)
                    .into_iter()
                    .flatten()
                    .find(|sidecar| sidecar.selector.is_none())
            })
    }

    /// The labels of a workload in this namespace by which it gets one or another Sidecar.
    pub fn label_keys(&self, namespace: &str, root: &str) -> impl Iterator<Item = &String> {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        of(namespace)
            .chain(of(root))
            .filter_map(|sidecar| sidecar.selector.as_ref())
            .flat_map(|selector| selector.0.keys())
    }
}
