//! Objects whose status says that something is not as it should be (IST0171). The conditions are written by the control
//! plane of the mesh or by another controller; files usually have none.

use mesh_proto::finding::{self, Finding};
use serde_json::Value;

use super::{Scene, report_of};
use crate::model::Kind;

/// Types of conditions whose `False` is bad news. Others are neutral, or not about the mesh.
const GOOD_WHEN_TRUE: [&str; 7] = [
    "Accepted",
    "Programmed",
    "Reconciled",
    "ResolvedRefs",
    "istio.io/WaypointBound",
    "WaypointAccepted",
    "ZtunnelAccepted",
];

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let judged = |kind: Kind| kind.is_mesh() || kind == Kind::Service;
    for manifest in scene.store.manifests().filter(|manifest| judged(manifest.kind)) {
        let conditions = manifest
            .value
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let mut report = report_of(manifest);
        for (i, condition) in conditions.into_iter().flatten().enumerate() {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            if text("status") == "False" && GOOD_WHEN_TRUE.contains(&text("type")) {
                let why = [text("reason"), text("message")]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(": ");
                let why = if why.is_empty() {
                    "no reason is given"
                } else {
                    &why
                };
                report.add(
                    finding::NEGATIVE_CONDITION,
                    format!("status.conditions[{i}]"),
                    format!("{} is False: {why}", text("type")),
                );
            }
        }
        findings.append(&mut report.findings);
    }
}
