//! Sidecars that select the same pods (IST0110, IST0111).

use std::collections::BTreeMap;

use mesh_proto::finding::{self, Finding};

use super::Scene;
use crate::model::Sidecar;

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mut by_namespace: BTreeMap<&str, Vec<&Sidecar>> = BTreeMap::new();
    for sidecar in scene.world.sidecars.values() {
        by_namespace
            .entry(&sidecar.origin.namespace)
            .or_default()
            .push(sidecar);
    }
    for (namespace, sidecars) in by_namespace {
        let open: Vec<&Sidecar> = sidecars
            .iter()
            .copied()
            .filter(|sidecar| sidecar.selector.is_none())
            .collect();
        if open.len() > 1 {
            let text = format!(
                "{} have no workloadSelector; only the oldest counts: keep one",
                names(&open)
            );
            tell(
                scene,
                &open,
                finding::MULTIPLE_SIDECARS_WITHOUT_SELECTOR,
                "spec",
                &text,
                findings,
            );
        }
        let mut told: Vec<Vec<&Sidecar>> = Vec::new();
        for workload in scene
            .world
            .workloads
            .values()
            .filter(|workload| workload.namespace == namespace)
        {
            let selecting: Vec<&Sidecar> = sidecars
                .iter()
                .copied()
                .filter(|sidecar| {
                    sidecar
                        .selector
                        .as_ref()
                        .is_some_and(|selector| selector.matches(&workload.labels))
                })
                .collect();
            if selecting.len() > 1 && !told.contains(&selecting) {
                let text = format!(
                    "{} select pod {}; only the oldest counts",
                    names(&selecting),
                    workload.name
                );
                tell(
                    scene,
                    &selecting,
                    finding::CONFLICTING_SIDECAR_SELECTORS,
                    "spec.workloadSelector",
                    &text,
                    findings,
                );
                told.push(selecting);
            }
        }
    }
}

fn names(sidecars: &[&Sidecar]) -> String {
    let names: Vec<&str> = sidecars
        .iter()
        .map(|sidecar| sidecar.origin.name.as_str())
        .collect();
    format!("Sidecars {}", names.join(", "))
}

fn tell(
    scene: &Scene<'_>,
    sidecars: &[&Sidecar],
    code: finding::Code,
    path: &str,
    text: &str,
    findings: &mut Vec<Finding>,
) {
    for sidecar in sidecars {
        let mut report = scene.report(&sidecar.origin);
        report.add(code, path, text);
        findings.append(&mut report.findings);
    }
}
