//! References to nothing (IST0101) and destinations that do not say which port (IST0112).

use mesh_proto::finding::{self, Finding, Report};

use super::Scene;
use crate::model::{
    DestinationPolicy, GatewayRef, Host, Kind, Origin, Service, VirtualService,
    matching::Pattern,
    route::{Destination, HttpAction},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for service in scene.world.virtual_services.values() {
        let mut report = scene.report(&service.origin);
        gateways(scene, service, &mut report);
        for (path, destination) in destinations(scene, service) {
            check_destination(scene, &service.origin, destination, &path, &mut report);
        }
        findings.append(&mut report.findings);
    }
    if scene.knows_namespaces() {
        authorization(scene, findings);
    }
}

/// Every destination with its field path.
fn destinations<'a>(scene: &Scene<'_>, service: &'a VirtualService) -> Vec<(String, &'a Destination)> {
    let manifest = scene.store.manifest(Kind::VirtualService, &service.origin.key());
    let mut found = Vec::new();
    for (i, route) in service.http.iter().enumerate() {
        if let HttpAction::Forward { destinations, .. } = &route.action {
            for (j, to) in destinations.iter().enumerate() {
                found.push((format!("spec.http[{i}].route[{j}].destination"), &to.destination));
            }
        }
        let single = manifest.is_some_and(|manifest| {
            manifest
                .value
                .pointer(&format!("/spec/http/{i}/mirror"))
                .is_some()
        });
        for (j, mirror) in route.mirrors.iter().enumerate() {
            let path = match single {
                true => format!("spec.http[{i}].mirror"),
                false => format!("spec.http[{i}].mirrors[{j}].destination"),
            };
            found.push((path, &mirror.destination));
        }
    }
    let others = [
        (
            "tls",
            service
                .tls
                .iter()
                .map(|route| &route.destinations)
                .collect::<Vec<_>>(),
        ),
        (
            "tcp",
            service.tcp.iter().map(|route| &route.destinations).collect(),
        ),
    ];
    for (protocol, routes) in others {
        for (i, destinations) in routes.into_iter().enumerate() {
            for (j, to) in destinations.iter().enumerate() {
                found.push((
                    format!("spec.{protocol}[{i}].route[{j}].destination"),
                    &to.destination,
                ));
            }
        }
    }
    found
}

fn gateways(scene: &Scene<'_>, service: &VirtualService, report: &mut Report) {
    for (i, gateway) in service.gateways.iter().enumerate() {
        if let GatewayRef::Gateway(key) = gateway
            && !scene.world.gateways.contains_key(key)
        {
            let text = format!("gateway {key} does not exist, so these routes are not used for it");
            report.add(
                finding::REFERENCED_RESOURCE_NOT_FOUND,
                format!("spec.gateways[{i}]"),
                text,
            );
        }
    }
}

pub(super) fn check_destination(
    scene: &Scene<'_>,
    origin: &Origin,
    to: &Destination,
    path: &str,
    report: &mut Report,
) {
    let Some(service) = find(scene, &to.host, &origin.namespace) else {
        let hint = similar(scene, &to.host)
            .map(|host| format!("; did you mean {host}?"))
            .unwrap_or_default();
        report.add(
            finding::REFERENCED_RESOURCE_NOT_FOUND,
            format!("{path}.host"),
            format!(
                "there is no service {} that namespace {} can see; requests get 503{hint}",
                to.host, origin.namespace
            ),
        );
        return;
    };
    let ports: Vec<u16> = service.ports.iter().map(|port| port.number).collect();
    match to.port {
        Some(port) if !ports.contains(&port) => report.add(
            finding::REFERENCED_RESOURCE_NOT_FOUND,
            format!("{path}.port.number"),
            format!("service {} has no port {port}; it has {ports:?}", to.host),
        ),
        None if ports.len() > 1 => report.add(
            finding::DESTINATION_PORT_REQUIRED,
            format!("{path}.port"),
            format!("service {} has the ports {ports:?}: say which one", to.host),
        ),
        _ => {}
    }
    if let Some(subset) = &to.subset {
        check_subset(scene, origin, to, subset, path, report);
    }
}

fn check_subset(
    scene: &Scene<'_>,
    origin: &Origin,
    to: &Destination,
    subset: &str,
    path: &str,
    report: &mut Report,
) {
    let visible = |policy: &&DestinationPolicy| {
        policy.host.covers(&to.host)
            && policy
                .visibility
                .allows(&policy.origin.namespace, &origin.namespace)
    };
    let policies: Vec<&DestinationPolicy> = scene
        .world
        .destination_policies
        .values()
        .map(AsRef::as_ref)
        .filter(visible)
        .collect();
    if policies.iter().any(|policy| policy.subset(subset).is_some()) {
        return;
    }
    let known: Vec<&str> = policies
        .iter()
        .flat_map(|policy| &policy.subsets)
        .map(|subset| subset.name.as_str())
        .collect();
    let hint = if known.is_empty() {
        "no DestinationRule for this host has subsets".to_owned()
    } else {
        format!("its DestinationRules have the subsets {}", known.join(", "))
    };
    report.add(
        finding::REFERENCED_RESOURCE_NOT_FOUND,
        format!("{path}.subset"),
        format!(
            "subset {subset} of {} does not exist, so requests get 503; {hint}",
            to.host
        ),
    );
}

/// The service that a destination means; a ServiceEntry's wildcard stands for many.
pub(super) fn find<'a>(scene: &Scene<'a>, host: &Host, viewer: &str) -> Option<&'a Service> {
    if let Some(service) = scene.registry.lookup(host, viewer) {
        return Some(service);
    }
    scene.registry.services().map(AsRef::as_ref).find(|service| {
        service.host.is_wildcard()
            && service.host.covers(host)
            && service.visibility.allows(&service.namespace, viewer)
    })
}

/// A service of the same short name, or a name that is two letters away.
pub(super) fn similar(scene: &Scene<'_>, host: &Host) -> Option<Host> {
    let short = |host: &str| host.split('.').next().unwrap_or_default().to_owned();
    let wanted = short(host.as_str());
    let candidates = scene.registry.services().map(|service| &service.host);
    candidates
        .map(|candidate| (distance(&wanted, &short(candidate.as_str())), candidate))
        .filter(|(far, _)| *far <= 2 && *far < wanted.chars().count())
        .min()
        .map(|(_, candidate)| candidate.clone())
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Namespaces that policies name.
fn authorization(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for policy in scene.world.authorization_policies.values() {
        let mut report = scene.report(&policy.origin);
        for (i, rule) in policy.rules.iter().enumerate() {
            for (j, source) in rule.from.iter().enumerate() {
                let lists = [
                    ("namespaces", &source.namespaces.any),
                    ("notNamespaces", &source.namespaces.none),
                ];
                for (name, list) in lists {
                    for (k, pattern) in list.iter().enumerate() {
                        let Pattern::Exact(namespace) = pattern else {
                            continue;
                        };
                        if !scene
                            .world
                            .namespaces
                            .values()
                            .any(|known| known.name == *namespace)
                        {
                            report.add(
                                finding::REFERENCED_RESOURCE_NOT_FOUND,
                                format!("spec.rules[{i}].from[{j}].source.{name}[{k}]"),
                                format!("namespace {namespace} does not exist"),
                            );
                        }
                    }
                }
            }
        }
        findings.append(&mut report.findings);
    }
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances() {
        assert_eq!(distance("reviews", "reviews"), 0);
        assert_eq!(distance("reviwes", "reviews"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
