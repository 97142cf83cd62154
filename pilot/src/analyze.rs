//! What is wrong between objects: references to nothing, conflicts, things that have no effect. Pure functions over the
//! last good meaning of everything; pilot's `/debug/findings` and `meshctl analyze` (on files or on a running mesh) show
//! the same.
//!
//! Codes are Istio's. What needs knowledge that a folder may not have (pods, namespaces) is left out when there is none
//! of that kind at all, so that a folder of routing rules alone can be analysed without noise. The pod templates of
//! Deployments and their like count as pods where a pod would satisfy a rule, never where its absence would be a fault.

use std::collections::BTreeMap;

use mesh_proto::{
    finding::{Finding, ObjectRef, Report},
    kube::Manifest,
    names,
};

use crate::{
    ingest::Change,
    model::{Kind, Labels, Origin, World},
    registry::Registry,
    store::Store,
};

mod annotations;
mod conditions;
mod deprecated;
mod destination_rules;
mod envoy_filters;
mod gateways;
mod injection;
mod installed;
mod policies;
mod references;
mod selectors;
mod service_entries;
mod services;
mod sidecars;
mod subsets;
mod telemetries;
mod templates;
mod virtual_services;
mod webhooks;
mod workloads;

/// A check of one topic.
type Check = fn(&Scene<'_>, &mut Vec<Finding>);

/// Every check there is, by name.
const CHECKS: [(&str, &str, Check); 17] = [
    ("references", "what objects refer to exists", references::check),
    (
        "injection",
        "namespaces and pods get the sidecars they should",
        injection::check,
    ),
    ("services", "ports declare their protocol", services::check),
    (
        "workloads",
        "Services and workloads fit together",
        workloads::check,
    ),
    (
        "virtual-services",
        "VirtualServices do not contradict each other or their gateways",
        virtual_services::check,
    ),
    (
        "gateways",
        "Gateways have pods, ports and certificates",
        gateways::check,
    ),
    (
        "destination-rules",
        "TLS toward destinations is what they take, and verifies them",
        destination_rules::check,
    ),
    (
        "subsets",
        "DestinationRules have hosts, and subsets have pods",
        subsets::check,
    ),
    (
        "service-entries",
        "ServiceEntries can be told apart",
        service_entries::check,
    ),
    (
        "selectors",
        "Sidecars, Telemetries and ProxyConfigs select each pod once",
        selectors::check,
    ),
    (
        "sidecars",
        "listeners of Sidecars lead to services",
        sidecars::check,
    ),
    ("telemetries", "Telemetries have providers", telemetries::check),
    ("policies", "policies apply to something", policies::check),
    (
        "webhooks",
        "injection webhooks lead somewhere, and only one takes a pod",
        webhooks::check,
    ),
    (
        "envoy-filters",
        "patches of EnvoyFilters can be applied",
        envoy_filters::check,
    ),
    (
        "deprecated",
        "fields and annotations are current ones",
        deprecated::check,
    ),
    ("conditions", "the status of objects is good", conditions::check),
];

/// Name and purpose of every check, for `meshctl analyze --list-analyzers`.
pub fn checks() -> impl Iterator<Item = (&'static str, &'static str)> {
    CHECKS.iter().map(|(name, purpose, _)| (*name, *purpose))
}

/// What checks look at.
pub struct Scene<'a> {
    store: &'a Store,
    world: &'a World,
    registry: &'a Registry,
    /// Pods that are to be.
    templates: Vec<templates::Template>,
    /// The injectors' settings, by revision.
    installed: BTreeMap<String, installed::Installed>,
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

    /// Objects of a kind as they were written.
    fn written(&self, kind: Kind) -> impl Iterator<Item = &Manifest> {
        self.store
            .manifests()
            .map(AsRef::as_ref)
            .filter(move |manifest| manifest.kind == kind)
    }

    /// Pods are known at all.
    fn knows_pods(&self) -> bool {
        !self.world.workloads.is_empty()
    }

    fn knows_namespaces(&self) -> bool {
        !self.world.namespaces.is_empty()
    }

    /// Labels of pods and of pod templates, of one namespace or of all.
    fn pod_labels<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Labels> {
        let inside = move |of: &str| namespace.is_none_or(|namespace| namespace == of);
        let pods = self
            .world
            .workloads
            .values()
            .filter(move |workload| inside(&workload.namespace))
            .map(|workload| workload.labels.as_ref());
        let templates = self
            .templates
            .iter()
            .filter(move |template| inside(&template.namespace))
            .filter_map(|template| template.labels());
        pods.chain(templates)
    }

    /// Where a policy applies: its own namespace, or the whole mesh from the root namespace.
    fn reach<'a>(&self, origin: &'a Origin) -> Option<&'a str> {
        (origin.namespace != self.world.mesh.root_namespace).then_some(origin.namespace.as_str())
    }

    fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.world
            .namespaces
            .values()
            .find(|namespace| namespace.name == name)
            .map(|namespace| &namespace.labels)
    }
}

/// An empty report about an object as it was written.
fn report_of(manifest: &Manifest) -> Report {
    Report::new(manifest.object_ref(), manifest.source.clone())
}

/// Of the mesh or of Kubernetes itself: users are not bothered with these.
fn is_system(namespace: &str) -> bool {
    namespace == names::SYSTEM_NAMESPACE || namespace.starts_with("kube-")
}

/// `app=reviews,version=v1`
fn listed(labels: &Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// What is wrong between objects.
pub fn between(store: &Store, registry: &Registry) -> Vec<Finding> {
    let scene = Scene {
        store,
        world: store.world(),
        registry,
        templates: templates::templates(store),
        installed: installed::installed(store),
    };
    let mut findings = Vec::new();
    for (_, _, check) in CHECKS {
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
mod folders;
#[cfg(test)]
mod tests;
