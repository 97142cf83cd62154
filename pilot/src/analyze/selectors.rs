//! Sidecars, Telemetries and ProxyConfigs that select the same pods: only one of them counts (IST0110, IST0111, IST0159,
//! IST0160, and IST0133 for ProxyConfigs, for which there is no code of its own); and those that select nobody (IST0101).

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::finding::{self, Code, Finding};

use super::{Scene, listed};
use crate::model::{Labels, Origin, Selector};

/// An object that selects pods.
struct Selecting<'a> {
    origin: &'a Origin,
    selector: Option<&'a Selector>,
}

/// How the faults of one kind are told.
struct Words {
    several: Code,
    open: Code,
    field: &'static str,
    labels: &'static str,
}

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let sidecars = scene.world.sidecars.values().map(|sidecar| Selecting {
        origin: &sidecar.origin,
        selector: sidecar.selector.as_ref(),
    });
    let words = Words {
        several: finding::CONFLICTING_SIDECAR_SELECTORS,
        open: finding::MULTIPLE_SIDECARS_WITHOUT_SELECTOR,
        field: "spec.workloadSelector",
        labels: "spec.workloadSelector.labels",
    };
    kind(scene, sidecars.collect(), &words, findings);
    let telemetries = scene.world.telemetries.values().map(|telemetry| Selecting {
        origin: &telemetry.origin,
        selector: telemetry.selector.as_ref(),
    });
    let words = Words {
        several: finding::CONFLICTING_TELEMETRY_SELECTORS,
        open: finding::MULTIPLE_TELEMETRIES_WITHOUT_SELECTOR,
        field: "spec.selector",
        labels: "spec.selector.matchLabels",
    };
    kind(scene, telemetries.collect(), &words, findings);
    let proxies = scene.world.proxy_settings.values().map(|settings| Selecting {
        origin: &settings.origin,
        selector: settings.selector.as_ref(),
    });
    let words = Words {
        several: finding::SCHEMA_WARNING,
        open: finding::SCHEMA_WARNING,
        ..words
    };
    kind(scene, proxies.collect(), &words, findings);
}

fn kind(scene: &Scene<'_>, all: Vec<Selecting<'_>>, words: &Words, findings: &mut Vec<Finding>) {
    let mut by_namespace: BTreeMap<&str, Vec<&Selecting<'_>>> = BTreeMap::new();
    for one in &all {
        by_namespace.entry(&one.origin.namespace).or_default().push(one);
        nobody(scene, one, words, findings);
    }
    for (namespace, group) in by_namespace {
        let open: Vec<&Selecting<'_>> = group
            .iter()
            .copied()
            .filter(|one| one.selector.is_none())
            .collect();
        if open.len() > 1 {
            let text = format!(
                "{} of namespace {namespace} have no selector; only the oldest counts: keep one",
                names(&open)
            );
            tell(scene, &open, words.open, "spec", &text, findings);
        }
        same_pods(scene, namespace, &group, words, findings);
    }
}

/// Each set of objects that meets in a pod is told once, with one such pod.
fn same_pods(
    scene: &Scene<'_>,
    namespace: &str,
    group: &[&Selecting<'_>],
    words: &Words,
    findings: &mut Vec<Finding>,
) {
    let mut told: BTreeSet<Vec<&str>> = BTreeSet::new();
    let pods = scene
        .world
        .workloads
        .values()
        .filter(|pod| pod.namespace == namespace)
        .map(|pod| (format!("pod {}", pod.name), pod.labels.as_ref()));
    let templates = scene
        .templates
        .iter()
        .filter(|template| template.namespace == namespace)
        .filter_map(|template| {
            let labels: &Labels = template.labels()?;
            Some((format!("the pods of {} {}", template.kind, template.name), labels))
        });
    for (who, labels) in pods.chain(templates) {
        let selecting: Vec<&Selecting<'_>> = group
            .iter()
            .copied()
            .filter(|one| one.selector.is_some_and(|selector| selector.matches(labels)))
            .collect();
        let key = selecting.iter().map(|one| one.origin.name.as_str()).collect();
        if selecting.len() > 1 && told.insert(key) {
            let text = format!("{} select {who}; only the oldest counts", names(&selecting));
            tell(scene, &selecting, words.several, words.field, &text, findings);
        }
    }
}

fn nobody(scene: &Scene<'_>, one: &Selecting<'_>, words: &Words, findings: &mut Vec<Finding>) {
    let Some(selector) = one.selector.filter(|_| scene.knows_pods()) else {
        return;
    };
    let anybody = scene
        .pod_labels(scene.reach(one.origin))
        .any(|labels| selector.matches(labels));
    if !anybody {
        let mut report = scene.report(one.origin);
        let text = format!(
            "no pod of namespace {} has the labels {}, so this has no effect",
            one.origin.namespace,
            listed(&selector.0)
        );
        report.add(finding::REFERENCED_RESOURCE_NOT_FOUND, words.labels, text);
        findings.append(&mut report.findings);
    }
}

fn names(group: &[&Selecting<'_>]) -> String {
    let kind = group
        .first()
        .map_or_else(String::new, |one| one.origin.kind.to_string());
    let names: Vec<&str> = group.iter().map(|one| one.origin.name.as_str()).collect();
    format!("{kind} {}", names.join(", "))
}

fn tell(
    scene: &Scene<'_>,
    group: &[&Selecting<'_>],
    code: Code,
    path: &str,
    text: &str,
    findings: &mut Vec<Finding>,
) {
    for one in group {
        let mut report = scene.report(one.origin);
        report.add(code, path, text);
        findings.append(&mut report.findings);
    }
}
