//! What the mesh does with a pod or a service, in words: which Services lead to it, which rules count for each, whether
//! mTLS is on, who may talk to it, how it is reached from outside. Pure: pilot's understanding of the objects in, lines
//! out. Lines are like istioctl's, so that what is looked for in them is found.

use std::fmt::Write as _;

use mesh_pilot::model::{
    DestinationPolicy, GatewayRef, Host, Labels, Service, TargetPort, VirtualService, Workload, authn,
};
use mesh_proto::names::{PROXY_UID, container, label};
use serde_json::Value;

use crate::world::Understood;

mod rules;

/// Lines that are indented by three for each level.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    pub fn add(&mut self, level: usize, text: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:1$}{text}", "", level * 3);
    }

    pub fn rule(&mut self) {
        self.add(0, "--------------------");
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A pod by its object.
pub fn pod(mesh: &Understood, object: &Value, all: bool) -> String {
    let mut lines = Lines::default();
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    lines.add(0, format!("Pod: {}", dotted(name, namespace)));
    let workload = mesh
        .world()
        .workloads
        .values()
        .find(|workload| workload.namespace == namespace && workload.name == name);
    let Some(workload) = workload else {
        let phase = text("/status/phase");
        lines.add(
            1,
            format!("WARNING: it is no part of the mesh: its phase is {phase:?}"),
        );
        return lines.finish();
    };
    about(workload, object, &mut lines);
    if !workload.has_proxy && !all {
        lines.add(
            0,
            format!(
                "WARNING: {} is not part of mesh; no sidecar",
                dotted(name, namespace)
            ),
        );
        lines.add(
            0,
            "Its rules are those of whoever calls it; --ignoreUnmeshed shows them all the same.",
        );
        return lines.finish();
    }
    let services: Vec<&Service> = mesh
        .world()
        .services
        .values()
        .map(AsRef::as_ref)
        .filter(|service| leads_to(service, workload))
        .collect();
    if services.is_empty() {
        lines.add(1, "No Service leads to it.");
    }
    for service in services {
        lines.rule();
        service_lines(mesh, service, Some(workload), &mut lines);
    }
    lines.rule();
    security(mesh, workload, &mut lines);
    lines.finish()
}

/// A service, with the rules of all of its pods.
pub fn service(mesh: &Understood, service: &Service) -> String {
    let mut lines = Lines::default();
    service_lines(mesh, service, None, &mut lines);
    let pods: Vec<&Workload> = mesh
        .world()
        .workloads
        .values()
        .map(AsRef::as_ref)
        .filter(|workload| leads_to(service, workload))
        .collect();
    let meshed = pods.iter().filter(|pod| pod.has_proxy).count();
    match (pods.len(), meshed) {
        (0, _) => lines.add(0, "It has no pods."),
        (all, 0) => lines.add(
            0,
            format!(
                "WARNING: none of its {all} pods has a sidecar; `meshctl kube-inject`, or label the namespace"
            ),
        ),
        (all, some) if all != some => lines.add(0, format!("{some} of its {all} pods have a sidecar.")),
        (all, _) => lines.add(0, format!("All of its {all} pods have a sidecar.")),
    }
    for pod in pods.iter().filter(|pod| !pod.ready) {
        lines.add(0, format!("WARNING: pod {} is not ready", pod.name));
    }
    if let Some(pod) = pods.first() {
        lines.rule();
        security(mesh, pod, &mut lines);
    }
    lines.finish()
}

fn dotted(name: &str, namespace: &str) -> String {
    match namespace {
        "default" | "" => name.to_owned(),
        namespace => format!("{name}.{namespace}"),
    }
}

fn leads_to(service: &Service, workload: &Workload) -> bool {
    service.namespace == workload.namespace
        && service
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty() && selector.matches(&workload.labels))
}

fn about(workload: &Workload, object: &Value, lines: &mut Lines) {
    let revision = workload
        .labels
        .get(label::REVISION)
        .map_or("default", String::as_str);
    lines.add(1, format!("Pod Revision: {revision}"));
    let mut ports = Vec::new();
    for container in object
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        for port in container["ports"].as_array().into_iter().flatten() {
            let named = container["name"].as_str().unwrap_or_default();
            ports.push(format!("{} ({named})", port["containerPort"]));
        }
    }
    if ports.is_empty() {
        lines.add(1, "Pod does not expose ports");
    } else {
        lines.add(1, format!("Pod Ports: {}", ports.join(", ")));
    }
    for (field, what) in [
        ("containerStatuses", "Container"),
        ("initContainerStatuses", "Init Container"),
    ] {
        let statuses = object
            .pointer(&format!("/status/{field}"))
            .and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let done = status.pointer("/state/terminated/exitCode") == Some(&0.into());
            if status["ready"] == false && !done {
                lines.add(
                    0,
                    format!(
                        "WARNING: {what} {} NOT READY",
                        status["name"].as_str().unwrap_or_default()
                    ),
                );
            }
        }
    }
    let reserved = |value: Option<&Value>| value.and_then(Value::as_u64) == Some(PROXY_UID.into());
    let containers = object.pointer("/spec/containers").and_then(Value::as_array);
    let application = containers
        .into_iter()
        .flatten()
        .any(|one| one["name"] != container::PROXY);
    if application && reserved(object.pointer("/spec/securityContext/runAsUser")) {
        lines.add(
            1,
            format!("WARNING: user {PROXY_UID} is the proxy's; what runs as it is not redirected"),
        );
    }
    for (wanted, what) in [
        ([label::APP, label::APP_NAME, label::CANONICAL_NAME], "name"),
        (
            [label::VERSION, label::CANONICAL_REVISION, label::VERSION],
            "revision",
        ),
    ] {
        if !wanted.iter().any(|name| workload.labels.contains_key(*name)) {
            lines.add(
                0,
                format!(
                    "Suggestion: add the label {:?}, so that metrics know the {what} of the service",
                    wanted[0]
                ),
            );
        }
    }
}

fn service_lines(mesh: &Understood, service: &Service, workload: Option<&Workload>, lines: &mut Lines) {
    lines.add(
        0,
        format!("Service: {}", dotted(&service.name, &service.namespace)),
    );
    for port in &service.ports {
        let target = match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => workload
                .and_then(|workload| workload.named_ports.get(name))
                .map_or_else(|| name.clone(), ToString::to_string),
        };
        let protocol = match port.protocol.is_auto() {
            true => "auto-detect".to_owned(),
            false => port.protocol.to_string(),
        };
        lines.add(
            1,
            format!(
                "Port: {} {}/{protocol} targets pod port {target}",
                port.name, port.number
            ),
        );
    }
    let labels = workload.map(|workload| workload.labels.as_ref());
    for policy in policies(mesh, &service.host) {
        rules::destination_rule(policy, &service.host, labels, lines);
    }
    let subsets: Vec<String> = labels.map_or_else(Vec::new, |labels| subsets_of(mesh, &service.host, labels));
    for route in routes(mesh, &service.host) {
        rules::virtual_service(mesh, route, &service.host, workload.map(|_| &subsets[..]), lines);
    }
}

/// DestinationRules for a host.
fn policies<'a>(mesh: &'a Understood, host: &Host) -> Vec<&'a DestinationPolicy> {
    let all = mesh.world().destination_policies.values().map(AsRef::as_ref);
    all.filter(|policy: &&DestinationPolicy| policy.host.covers(host))
        .collect()
}

fn subsets_of(mesh: &Understood, host: &Host, labels: &Labels) -> Vec<String> {
    let inside = |wanted: &Labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
    policies(mesh, host)
        .into_iter()
        .flat_map(|policy| &policy.subsets)
        .filter(|subset| inside(&subset.labels))
        .map(|subset| subset.name.clone())
        .collect()
}

/// VirtualServices that lead to a host, or speak for it.
fn routes<'a>(mesh: &'a Understood, host: &Host) -> Vec<&'a VirtualService> {
    let concerns = |route: &&VirtualService| {
        let spoken = route.applies_to_mesh() && route.hosts.iter().any(|known| known.covers(host));
        spoken || route.destinations().any(|to| to.host == *host)
    };
    mesh.world()
        .virtual_services
        .values()
        .map(AsRef::as_ref)
        .filter(concerns)
        .collect()
}

fn security(mesh: &Understood, workload: &Workload, lines: &mut Lines) {
    let world = mesh.world();
    let root = &world.mesh.root_namespace;
    let effective = authn::effective(
        world.peer_authentications.values().map(AsRef::as_ref),
        root,
        &workload.namespace,
        &workload.labels,
    );
    lines.add(0, "Effective PeerAuthentication:");
    lines.add(1, format!("Workload mTLS mode: {}", effective.mode.as_str()));
    if !effective.ports.is_empty() {
        lines.add(1, "Port Level mTLS mode:");
        for (port, mode) in &effective.ports {
            lines.add(2, format!("{port}: {}", mode.as_str()));
        }
    }
    let applied: Vec<String> = world
        .peer_authentications
        .values()
        .filter(|policy| {
            let here = policy.origin.namespace == workload.namespace || policy.origin.namespace == *root;
            here && policy
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&workload.labels))
        })
        .map(|policy| format!("{}/{}", policy.origin.namespace, policy.origin.name))
        .collect();
    if !applied.is_empty() {
        lines.add(0, "Applied PeerAuthentication:");
        lines.add(1, applied.join(", "));
    }
    let policies: Vec<String> = world
        .authorization_policies
        .values()
        .filter(|policy| policy.applies_to(root, &workload.namespace, &workload.labels))
        .map(|policy| {
            format!(
                "{}/{} ({:?})",
                policy.origin.namespace, policy.origin.name, policy.action
            )
        })
        .collect();
    if policies.is_empty() {
        lines.add(0, "No AuthorizationPolicy applies: everybody may talk to it.");
    } else {
        lines.add(0, "Applied AuthorizationPolicies:");
        lines.add(1, policies.join(", "));
    }
}

/// Names of gateways, without the mesh itself.
fn gateways(route: &VirtualService) -> Vec<String> {
    let named = route.gateways.iter().filter_map(|gateway| match gateway {
        GatewayRef::Mesh => None,
        GatewayRef::Gateway(key) => Some(key.to_string()),
    });
    named.collect()
}

#[cfg(test)]
mod tests;
