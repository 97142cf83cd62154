//! VirtualServices that contradict each other (IST0109, IST0140) or their gateways (IST0132), or delegate to what cannot
//! take over (IST0101, IST0130). Routes that cannot be
//! reached (IST0130, IST0131) are found by `validate`, which needs one object only.

use std::collections::BTreeMap;

use mesh_proto::finding::{self, Finding};

use super::{Scene, describe};
use crate::{
    model::{GatewayRef, Host, VirtualService, Visibility, route::HttpAction},
    snapshot::delegate,
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    conflicts(scene, findings);
    for service in scene.world.virtual_services.values() {
        not_in_gateway(scene, service, findings);
        without_subset(scene, service, findings);
        delegates(scene, service, findings);
    }
}

/// Two objects for the mesh's own traffic with the same host, seen from the same namespace.
fn conflicts(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mut by_host: BTreeMap<&Host, Vec<&VirtualService>> = BTreeMap::new();
    for service in scene
        .world
        .virtual_services
        .values()
        .filter(|service| service.applies_to_mesh())
    {
        for host in &service.hosts {
            by_host.entry(host).or_default().push(service);
        }
    }
    for (host, mut services) in by_host.into_iter().filter(|(_, services)| services.len() > 1) {
        services.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        for (i, service) in services.iter().enumerate() {
            let other = services.iter().enumerate().find(|(j, other)| {
                let side = |one: &VirtualService| (one.origin.namespace.clone(), one.visibility.clone());
                let (a, b) = (side(service), side(other));
                i != *j && meet((&a.0, &a.1), (&b.0, &b.1))
            });
            let Some((j, other)) = other else { continue };
            let mut report = scene.report(&service.origin);
            let at = service
                .hosts
                .iter()
                .position(|known| known == host)
                .unwrap_or_default();
            let which = if i < j {
                "this one, the older, counts"
            } else {
                "the older one counts, this one does not"
            };
            let text = format!(
                "{host} is also a host of {}, for the mesh's own traffic too; {which}: merge them",
                describe(other.origin.kind, &other.origin.namespace, &other.origin.name)
            );
            report.add(finding::CONFLICTING_MESH_HOSTS, format!("spec.hosts[{at}]"), text);
            findings.append(&mut report.findings);
        }
    }
}

/// Is there a namespace that sees both? Each by its own namespace and who may see it.
pub(super) fn meet((own_a, a): (&str, &Visibility), (own_b, b): (&str, &Visibility)) -> bool {
    use Visibility::{Namespaces, None, Private, Public};
    match (a, b) {
        (None, _) | (_, None) => false,
        (Public, _) | (_, Public) => true,
        (Private, other) => other.allows(own_b, own_a),
        (other, Private) => other.allows(own_a, own_b),
        (Namespaces(a), Namespaces(b)) => !a.is_disjoint(b),
    }
}

/// Routes that delegate: to something that can be delegated to (IST0101), none of whose routes asks for what the delegating
/// one excludes (IST0130).
fn delegates(scene: &Scene<'_>, service: &VirtualService, findings: &mut Vec<Finding>) {
    let mut report = scene.report(&service.origin);
    for (i, route) in service.http.iter().enumerate() {
        let HttpAction::Delegate { to, .. } = &route.action else {
            continue;
        };
        let path = format!("spec.http[{i}].delegate");
        match delegate::find(service, to, &scene.world.virtual_services) {
            Err(why) => {
                let text = format!("{why}; what this route matches goes on to the next one");
                report.add(finding::REFERENCED_RESOURCE_NOT_FOUND, path, text);
            }
            Ok(other) => {
                for (j, inner) in other.http.iter().enumerate() {
                    if delegate::join(route, inner, other).is_none() {
                        let text = format!(
                            "http[{j}] of VirtualService {to} is never used here: none of the conditions of this route fits \
                             all that it asks for; each must be the same or wider"
                        );
                        report.add(finding::UNREACHABLE_RULE, path.clone(), text);
                    }
                }
            }
        }
    }
    findings.append(&mut report.findings);
}

/// A gateway sends to a host as a whole what the mesh's own traffic has divided into subsets.
fn without_subset(scene: &Scene<'_>, service: &VirtualService, findings: &mut Vec<Finding>) {
    if !service
        .gateways
        .iter()
        .any(|gateway| *gateway != GatewayRef::Mesh)
    {
        return;
    }
    let mut report = scene.report(&service.origin);
    for (i, route) in service.http.iter().enumerate() {
        let HttpAction::Forward { destinations, .. } = &route.action else {
            continue;
        };
        for (j, to) in destinations.iter().enumerate() {
            // Of a single subset nothing can be missed.
            if to.destination.subset.is_some() || subsets(scene, &to.destination.host) < 2 {
                continue;
            }
            let divided = scene.world.virtual_services.values().find(|other| {
                other.origin != service.origin
                    && other.applies_to_mesh()
                    && other.hosts.contains(&to.destination.host)
                    && divides(other, &to.destination.host)
            });
            if let Some(other) = divided {
                let text = format!(
                    "{} divides {} into subsets for the mesh's own traffic; what comes through the gateway goes to all of \
                     them alike: name a subset here if it is to count",
                    describe(other.origin.kind, &other.origin.namespace, &other.origin.name),
                    to.destination.host
                );
                report.add(
                    finding::INGRESS_WITHOUT_SUBSET,
                    format!("spec.http[{i}].route[{j}].destination"),
                    text,
                );
            }
        }
    }
    findings.append(&mut report.findings);
}

fn subsets(scene: &Scene<'_>, host: &Host) -> usize {
    let policies = scene.world.destination_policies.values();
    policies
        .filter(|policy| policy.host == *host)
        .map(|policy| policy.subsets.len())
        .sum()
}

fn divides(service: &VirtualService, host: &Host) -> bool {
    service.http.iter().any(|route| match &route.action {
        HttpAction::Forward { destinations, .. } => destinations
            .iter()
            .any(|to| to.destination.host == *host && to.destination.subset.is_some()),
        _ => false,
    })
}

fn not_in_gateway(scene: &Scene<'_>, service: &VirtualService, findings: &mut Vec<Finding>) {
    let mut report = scene.report(&service.origin);
    let namespace = &service.origin.namespace;
    for reference in &service.gateways {
        let GatewayRef::Gateway(key) = reference else {
            continue;
        };
        let Some(gateway) = scene.world.gateways.get(key) else {
            continue;
        };
        for (i, host) in service.hosts.iter().enumerate() {
            let served = gateway.servers.iter().any(|server| {
                !server
                    .admits(namespace, &gateway.origin.namespace, host)
                    .is_empty()
            });
            if !served {
                let hosts: Vec<String> = gateway
                    .servers
                    .iter()
                    .flat_map(|server| &server.hosts)
                    .map(|server| server.host.to_string())
                    .collect();
                report.add(
                    finding::HOST_NOT_IN_GATEWAY,
                    format!("spec.hosts[{i}]"),
                    format!(
                        "gateway {key} does not serve {host} for namespace {namespace}; it serves {}",
                        hosts.join(", ")
                    ),
                );
            }
        }
    }
    findings.append(&mut report.findings);
}
