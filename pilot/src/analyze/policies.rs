//! Policies that select no workload (IST0127).

use mesh_proto::finding::{self, Finding};

use super::Scene;
use crate::model::{Origin, Selector};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    if !scene.knows_pods() {
        return;
    }
    let world = scene.world;
    const MATCH_LABELS: &str = "spec.selector.matchLabels";
    for policy in world.peer_authentications.values() {
        one(
            scene,
            &policy.origin,
            policy.selector.as_ref(),
            MATCH_LABELS,
            findings,
        );
    }
    for policy in world.request_authentications.values() {
        one(
            scene,
            &policy.origin,
            policy.selector.as_ref(),
            MATCH_LABELS,
            findings,
        );
    }
    for policy in world.authorization_policies.values() {
        one(
            scene,
            &policy.origin,
            policy.selector.as_ref(),
            MATCH_LABELS,
            findings,
        );
    }
    for policy in world.telemetries.values() {
        one(
            scene,
            &policy.origin,
            policy.selector.as_ref(),
            MATCH_LABELS,
            findings,
        );
    }
    for sidecar in world.sidecars.values() {
        one(
            scene,
            &sidecar.origin,
            sidecar.selector.as_ref(),
            "spec.workloadSelector.labels",
            findings,
        );
    }
}

fn one(
    scene: &Scene<'_>,
    origin: &Origin,
    selector: Option<&Selector>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(selector) = selector else { return };
    let everywhere = origin.namespace == scene.world.mesh.root_namespace;
    let matches = scene.world.workloads.values().any(|workload| {
        (everywhere || workload.namespace == origin.namespace) && selector.matches(&workload.labels)
    });
    if !matches {
        let labels: Vec<String> = selector
            .0
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let place = if everywhere {
            "the mesh".to_owned()
        } else {
            format!("namespace {}", origin.namespace)
        };
        let mut report = scene.report(origin);
        report.add(
            finding::NO_MATCHING_WORKLOADS,
            path,
            format!(
                "no pod of {place} has the labels {}, so this has no effect",
                labels.join(",")
            ),
        );
        findings.append(&mut report.findings);
    }
}
