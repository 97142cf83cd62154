//! Telemetry objects by namespace.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Labels, Telemetry, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Telemetries {
    by_namespace: BTreeMap<String, Vec<Arc<Telemetry>>>,
}

impl Telemetries {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for telemetry in world.telemetries.values() {
            index
                .by_namespace
                .entry(telemetry.origin.namespace.clone())
                .or_default()
                .push(telemetry.clone());
        }
        for telemetries in index.by_namespace.values_mut() {
            telemetries.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        }
        index
    }

    /// The objects that speak about a workload, the nearest first: its own, its namespace's, the mesh's.
    pub fn of<'a>(
        &'a self,
        root: &'a str,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> Vec<&'a Arc<Telemetry>> {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let own = of(namespace).find(|t| {
            t.selector
                .as_ref()
                .is_some_and(|selector| selector.matches(labels))
        });
        let general = of(namespace).find(|t| t.selector.is_none());
        let mesh = of(root)
            .find(|t| t.selector.is_none())
            .filter(|_| namespace != root);
        own.into_iter().chain(general).chain(mesh).collect()
    }
}
