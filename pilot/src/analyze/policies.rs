//! Policies that select no workload (IST0127), and tokens on ports where nobody looks at them (IST0119).

use std::collections::BTreeSet;

use mesh_proto::finding::{self, Finding};

use super::{Scene, listed};
use crate::model::{Origin, Protocol, RequestAuthentication, Selector};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let world = scene.world;
    for policy in world.request_authentications.values() {
        ports(scene, policy, findings);
    }
    if !scene.knows_pods() {
        return;
    }
    for policy in world.peer_authentications.values() {
        one(scene, &policy.origin, policy.selector.as_ref(), findings);
    }
    for policy in world.request_authentications.values() {
        one(scene, &policy.origin, policy.selector.as_ref(), findings);
    }
    for policy in world.authorization_policies.values() {
        one(scene, &policy.origin, policy.selector.as_ref(), findings);
    }
}

fn one(scene: &Scene<'_>, origin: &Origin, selector: Option<&Selector>, findings: &mut Vec<Finding>) {
    let Some(selector) = selector else { return };
    let reach = scene.reach(origin);
    if scene.pod_labels(reach).any(|labels| selector.matches(labels)) {
        return;
    }
    let place = reach.map_or_else(|| "the mesh".to_owned(), |name| format!("namespace {name}"));
    let mut report = scene.report(origin);
    report.add(
        finding::NO_MATCHING_WORKLOADS,
        "spec.selector.matchLabels",
        format!(
            "no pod of {place} has the labels {}, so this has no effect",
            listed(&selector.0)
        ),
    );
    findings.append(&mut report.findings);
}

/// Ports of the selected workloads that are declared to be something else than HTTP. A policy without a selector is meant
/// for whatever speaks HTTP, so it is not judged.
fn ports(scene: &Scene<'_>, policy: &RequestAuthentication, findings: &mut Vec<Finding>) {
    let Some(selector) = policy.selector.as_ref().filter(|_| !policy.rules.is_empty()) else {
        return;
    };
    let mut odd = BTreeSet::new();
    for service in scene.registry.services() {
        let Some(of_service) = &service.selector else {
            continue;
        };
        let inside = scene
            .reach(&policy.origin)
            .is_none_or(|namespace| namespace == service.namespace);
        let together = inside
            && scene
                .pod_labels(Some(&service.namespace))
                .any(|labels| selector.matches(labels) && of_service.matches(labels));
        for port in service.ports.iter().filter(|_| together) {
            if !(port.protocol.is_http() || port.protocol.is_auto() || port.protocol == Protocol::Udp) {
                odd.insert((&service.host, port.number, port.protocol));
            }
        }
    }
    let mut report = scene.report(&policy.origin);
    for (host, port, protocol) in odd {
        report.add(
            finding::JWT_PORT_NOT_HTTP,
            "spec.selector",
            format!(
                "port {port} of {host} is declared to be {protocol}, where no token is looked at; name the port http-... \
                 if it speaks HTTP"
            ),
        );
    }
    findings.append(&mut report.findings);
}
