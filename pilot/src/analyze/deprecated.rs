//! Fields and annotations that have successors (IST0002, IST0135).

use mesh_proto::{
    finding::{self, Finding, Report},
    kube::Manifest,
};
use serde_json::Value;

use super::{Scene, annotations, report_of};
use crate::model::Kind;

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for manifest in scene.written(Kind::VirtualService) {
        let mut report = report_of(manifest);
        virtual_service(manifest, &mut report);
        findings.append(&mut report.findings);
    }
    for manifest in scene.written(Kind::Sidecar) {
        let mut report = report_of(manifest);
        let proxy = manifest.value.pointer("/spec/outboundTrafficPolicy/egressProxy");
        if proxy.is_some_and(|value| !value.is_null()) {
            report.add(
                finding::DEPRECATED,
                "spec.outboundTrafficPolicy.egressProxy",
                "egressProxy is deprecated; route through an egress gateway with a VirtualService, which can tell destinations apart",
            );
        }
        findings.append(&mut report.findings);
    }
    annotations::check(scene, findings);
}

fn virtual_service(manifest: &Manifest, report: &mut Report) {
    let routes = manifest.value.pointer("/spec/http").and_then(Value::as_array);
    for (i, route) in routes.into_iter().flatten().enumerate() {
        let at = |pointer: &str| route.pointer(pointer).is_some_and(|value| !value.is_null());
        if at("/fault/delay/percent") {
            report.add(
                finding::DEPRECATED,
                format!("spec.http[{i}].fault.delay.percent"),
                "use percentage.value, which also takes fractions",
            );
        }
        for field in ["mirrorPercent", "mirror_percent"] {
            if at(&format!("/{field}")) {
                report.add(
                    finding::DEPRECATED,
                    format!("spec.http[{i}].{field}"),
                    "use mirrorPercentage.value, which also takes fractions",
                );
            }
        }
    }
}
