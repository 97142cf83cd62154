//! Telemetries that ask for access logs nobody writes (IST0157).

use mesh_proto::finding::{self, Finding};

use super::Scene;

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mesh = &scene.world.mesh;
    if !mesh.default_providers.access_logging.is_empty() || !mesh.access_log_file.is_empty() {
        return;
    }
    for telemetry in scene.world.telemetries.values() {
        let mut report = scene.report(&telemetry.origin);
        for (i, rule) in telemetry.access_logs.iter().enumerate() {
            if rule.providers.is_empty() && !rule.disabled {
                report.add(
                    finding::INVALID_TELEMETRY_PROVIDER,
                    format!("spec.accessLogging[{i}].providers"),
                    "no provider is named and the mesh has no default one, so nothing is logged; name one of the mesh's \
                     extensionProviders, or set accessLogFile",
                );
            }
        }
        findings.append(&mut report.findings);
    }
}
