//! What is wrong between objects: references to nothing, conflicts, things that have no effect. Pure functions over the
//! last good meaning of everything; pilot's `/debug/findings` and `meshctl analyze` (on files or on a running mesh) show
//! the same.
//!
//! Codes are Istio's. What needs knowledge that a folder may not have (pods, namespaces) is left out when there is none
//! of that kind at all, so that a folder of routing rules alone can be analysed without noise.

use mesh_proto::{
    finding::{Finding, ObjectRef, Report},
    names,
};

use crate::{
    ingest::Change,
    model::{Kind, Origin, World},
    registry::Registry,
    store::Store,
};

mod destination_rules;
mod gateways;
mod injection;
mod policies;
mod references;
mod services;
mod sidecars;
mod virtual_services;

/// A check of one topic.
type Check = fn(&Scene<'_>, &mut Vec<Finding>);

/// Every check there is.
const CHECKS: [Check; 8] = [
    references::check,
    injection::check,
    services::check,
    virtual_services::check,
    gateways::check,
    destination_rules::check,
    sidecars::check,
    policies::check,
];

/// What checks look at.
pub struct Scene<'a> {
    store: &'a Store,
    world: &'a World,
    registry: &'a Registry,
}

impl Scene<'_> {
    fn report(&self, origin: &Origin) -> Report {
        let source = self
            .store
            .manifest(origin.kind, &origin.key())
            .and_then(|manifest| manifest.source.clone());
        Report::new(
            ObjectRef::new(origin.kind.as_str(), &origin.namespace, &origin.name),
            source,
        )
    }

    /// Pods are known at all.
    fn knows_pods(&self) -> bool {
        !self.world.workloads.is_empty()
    }

    fn knows_namespaces(&self) -> bool {
        !self.world.namespaces.is_empty()
    }
}

/// Of the mesh or of Kubernetes itself: users are not bothered with these.
fn is_system(namespace: &str) -> bool {
    namespace == names::SYSTEM_NAMESPACE || namespace.starts_with("kube-")
}

/// What is wrong between objects.
pub fn between(store: &Store, registry: &Registry) -> Vec<Finding> {
    let scene = Scene {
        store,
        world: store.world(),
        registry,
    };
    let mut findings = Vec::new();
    for check in CHECKS {
        check(&scene, &mut findings);
    }
    findings
}

/// Everything that is wrong: in files, in single objects, between objects. Worst first.
pub fn everything(store: &Store, registry: &Registry) -> Vec<Finding> {
    let mut findings: Vec<Finding> = store
        .findings()
        .cloned()
        .chain(between(store, registry))
        .collect();
    findings.sort_by(|a, b| a.order().cmp(&b.order()));
    findings.dedup();
    findings
}

/// As `everything`, of objects that are not in a running mesh. What means nothing to the mesh is not told.
pub fn offline(changes: Vec<Change>) -> Vec<Finding> {
    let mut store = Store::default();
    let mut registry = Registry::default();
    let applied = store.apply(changes);
    registry.update(store.world(), &applied.changed);
    everything(&store, &registry)
}

/// The name of a kind in a sentence.
fn describe(kind: Kind, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

#[cfg(test)]
mod tests;
