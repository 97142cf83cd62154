//! DestinationRules: TLS that verifies nobody (IST0128, IST0129), and TLS that the destination does not take (IST0113).

use mesh_proto::finding::{self, Finding, Report};

use super::{Scene, describe};
use crate::model::{
    DestinationPolicy, Labels, MtlsMode, PeerAuthentication, TargetPort, authn,
    policy::{ClientTls, ClientTlsMode, PortPolicy},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for policy in scene.world.destination_policies.values() {
        let mut report = scene.report(&policy.origin);
        verification(policy, &mut report);
        mtls(scene, policy, &mut report);
        findings.append(&mut report.findings);
    }
}

fn verification(policy: &DestinationPolicy, report: &mut Report) {
    let unverified = |settings: &PortPolicy| settings.tls.as_ref().is_some_and(verifies_nobody);
    if unverified(&policy.policy.all) {
        report.add(
            finding::NO_SERVER_VERIFICATION,
            "spec.trafficPolicy.tls.caCertificates",
            format!("anybody may answer for {}: name caCertificates (such as the system's bundle) or a credentialName", policy.host),
        );
    }
    for (i, (port, settings)) in policy.policy.ports.iter().enumerate() {
        if unverified(settings) {
            report.add(
                finding::NO_SERVER_VERIFICATION_PORT,
                format!("spec.trafficPolicy.portLevelSettings[{i}].tls.caCertificates"),
                format!(
                    "anybody may answer for {} on port {port}: name caCertificates or a credentialName",
                    policy.host
                ),
            );
        }
    }
}

fn verifies_nobody(tls: &ClientTls) -> bool {
    matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
        && tls.ca_certificates.is_none()
        && tls.credential.is_none()
        && !tls.insecure_skip_verify
}

/// Only where the rule says something about TLS; what is automatic cannot conflict.
fn mtls(scene: &Scene<'_>, policy: &DestinationPolicy, report: &mut Report) {
    let Some(service) = scene.registry.lookup(&policy.host, &policy.origin.namespace) else {
        return;
    };
    if service.is_external() {
        return;
    }
    let none = Labels::new();
    let labels = service.selector.as_ref().map_or(&none, |selector| &selector.0);
    let root = &scene.world.mesh.root_namespace;
    let policies: Vec<&PeerAuthentication> = scene
        .world
        .peer_authentications
        .values()
        .map(AsRef::as_ref)
        .collect();
    let demanded = authn::effective(policies.iter().copied(), root, &service.namespace, labels);
    for port in &service.ports {
        let settings = policy.policy.for_port(port.number);
        let Some(tls) = &settings.tls else { continue };
        let target = match port.target {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => port.number,
        };
        let mode = demanded.for_port(target);
        let problem = match (tls.mode, mode) {
            (ClientTlsMode::MeshMutual, MtlsMode::Disable) => "sends mTLS, which is switched off there",
            (ClientTlsMode::MeshMutual, _) | (_, MtlsMode::Permissive | MtlsMode::Disable) => continue,
            (_, MtlsMode::Strict) => "does not send the mesh's mTLS, which is demanded there",
        };
        let by = policies
            .iter()
            .filter(|one| one.mode == Some(mode) || one.ports.values().any(|own| *own == Some(mode)))
            .find(|one| one.origin.namespace == service.namespace || one.origin.namespace == *root)
            .map(|one| {
                format!(
                    " by {}",
                    describe(one.origin.kind, &one.origin.namespace, &one.origin.name)
                )
            })
            .unwrap_or_default();
        report.add(
            finding::MTLS_POLICY_CONFLICT,
            "spec.trafficPolicy.tls.mode",
            format!(
                "port {} of {}: this rule {problem} ({}{by}), so connections fail; remove tls (mTLS is automatic) or use \
                 ISTIO_MUTUAL where it is demanded",
                port.number,
                policy.host,
                mode.as_str()
            ),
        );
        return;
    }
}
