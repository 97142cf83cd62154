//! Gateways: workloads and credentials that are not there (IST0101), broken credentials (IST0161), ports that no Service
//! leads to (IST0162), Gateways that contradict each other (IST0145) or share a certificate (IST0138).

use std::collections::BTreeSet;

use mesh_proto::{
    finding::{self, Finding, Report},
    names,
};

use super::{Scene, describe};
use crate::model::{
    Gateway, Host, Key, Kind, Server, TargetPort, Workload,
    gateway::{ServerTls, ServerTlsMode},
};

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for gateway in scene.world.gateways.values() {
        let mut report = scene.report(&gateway.origin);
        let workloads = workloads(scene, gateway);
        if scene.knows_pods() && workloads.is_empty() {
            let labels: Vec<String> = gateway
                .selector
                .0
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let text = format!(
                "no pod has the labels {}, so nobody serves this gateway",
                labels.join(",")
            );
            report.add(finding::REFERENCED_RESOURCE_NOT_FOUND, "spec.selector", text);
        }
        for (i, server) in gateway.servers.iter().enumerate() {
            credentials(
                scene,
                gateway,
                server,
                &workloads,
                &format!("spec.servers[{i}]"),
                &mut report,
            );
            port(
                scene,
                server,
                &workloads,
                &format!("spec.servers[{i}].port.number"),
                &mut report,
            );
        }
        findings.append(&mut report.findings);
    }
    conflicts(scene, findings);
    shared_certificates(scene, findings);
}

fn workloads<'a>(scene: &Scene<'a>, gateway: &Gateway) -> Vec<&'a Workload> {
    let all = scene.world.workloads.values().map(AsRef::as_ref);
    // Without a selector it is every gateway's; those cannot be told from other pods by labels.
    all.filter(|workload: &&Workload| {
        !gateway.selector.is_empty() && gateway.selector.matches(&workload.labels)
    })
    .collect()
}

/// A credential is a Secret of the gateway workload's namespace.
fn credentials(
    scene: &Scene<'_>,
    gateway: &Gateway,
    server: &Server,
    workloads: &[&Workload],
    at: &str,
    report: &mut Report,
) {
    let Some(tls) = &server.tls else { return };
    let mut namespaces: BTreeSet<&str> = workloads
        .iter()
        .map(|workload| workload.namespace.as_str())
        .collect();
    if namespaces.is_empty() {
        if scene.knows_pods() {
            return;
        }
        namespaces.insert(&gateway.origin.namespace);
    }
    for namespace in tls.clients.ca_credential.iter().flat_map(|_| &namespaces) {
        let name = tls.clients.ca_credential.as_deref().unwrap_or_default();
        let held = scene.world.credentials.get(&Key::new(*namespace, name));
        if held.is_none_or(|credential| credential.ca_certificates.is_none()) {
            let secret = describe(Kind::Secret, namespace, name);
            let text =
                format!("there is no {secret} with ca.crt; no client can be verified until it is there");
            report.add(
                finding::REFERENCED_RESOURCE_NOT_FOUND,
                format!("{at}.tls.caCertCredentialName"),
                text,
            );
        }
    }
    for name in &tls.credentials {
        for namespace in &namespaces {
            let key = Key::new(*namespace, name);
            let path = format!("{at}.tls.credentialName");
            let secret = describe(Kind::Secret, namespace, name);
            match (scene.world.credentials.get(&key), scene.store.is_current(Kind::Secret, &key)) {
                (_, None) => report.add(
                    finding::REFERENCED_RESOURCE_NOT_FOUND,
                    path,
                    format!("there is no {secret}; the server refuses connections until it is there (it must be in the \
                             namespace of the gateway's pods)"),
                ),
                (None, Some(_)) => report.add(
                    finding::INVALID_GATEWAY_CREDENTIAL,
                    path,
                    format!("{secret} holds no usable certificate and key; see its own findings"),
                ),
                (Some(credential), Some(_)) => {
                    let mutual = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
                    let ca = scene.world.credentials.contains_key(&Key::new(*namespace, format!("{name}-cacert")));
                    let elsewhere = tls.clients.ca_credential.is_some() || tls.clients.accept_untrusted;
                    if mutual && credential.ca_certificates.is_none() && !ca && !elsewhere {
                        report.add(
                            finding::INVALID_GATEWAY_CREDENTIAL,
                            path,
                            format!("{secret} has no ca.crt, which MUTUAL needs to verify clients"),
                        );
                    }
                }
            }
        }
    }
}

/// Does a Service of the workloads lead to the server's port, or to the port that it is bound to?
fn port(scene: &Scene<'_>, server: &Server, workloads: &[&Workload], path: &str, report: &mut Report) {
    let Some(workload) = workloads.first() else { return };
    let services: Vec<_> = scene
        .world
        .services
        .values()
        .filter(|service| {
            service.namespace == workload.namespace
                && service
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(&workload.labels))
        })
        .collect();
    if services.is_empty() {
        return;
    }
    let all = services
        .iter()
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let leads = all.into_iter().any(|(service, port)| {
        let translates = !service
            .labels
            .contains_key(names::label::NO_GATEWAY_PORT_TRANSLATION);
        (port.number == server.port && translates)
            || match &port.target {
                TargetPort::Number(number) => *number == server.port,
                TargetPort::Name(name) => workload.named_ports.get(name) == Some(&server.port),
            }
    });
    if !leads {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        let text = format!(
            "port {} is served by the gateway's pods, but no port of Service {} leads there",
            server.port,
            names.join(", ")
        );
        report.add(finding::GATEWAY_PORT_NOT_ON_SERVICE, path, text);
    }
}

/// Same workloads, same port, same host.
fn conflicts(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let gateways: Vec<&Gateway> = scene.world.gateways.values().map(AsRef::as_ref).collect();
    for gateway in &gateways {
        let mut report = scene.report(&gateway.origin);
        for other in &gateways {
            if gateway.origin == other.origin || gateway.selector != other.selector {
                continue;
            }
            for (i, server) in gateway.servers.iter().enumerate() {
                let rivals = other
                    .servers
                    .iter()
                    .filter(|rival| rival.port == server.port && rival.bind == server.bind);
                let shared: BTreeSet<&Host> = rivals
                    .flat_map(|rival| same_hosts(gateway, server, other, rival))
                    .collect();
                if !shared.is_empty() {
                    let hosts: Vec<String> = shared.iter().map(|host| host.to_string()).collect();
                    let text = format!(
                        "{} serves {} on port {} of the same workloads too: keep one of them",
                        describe(other.origin.kind, &other.origin.namespace, &other.origin.name),
                        hosts.join(", "),
                        server.port
                    );
                    report.add(
                        finding::CONFLICTING_GATEWAYS,
                        format!("spec.servers[{i}].hosts"),
                        text,
                    );
                }
            }
        }
        findings.append(&mut report.findings);
    }
}

/// Two Gateways of the same workloads with the same certificate: a client that reuses its HTTP/2 connection for a host of
/// the other one comes to a listener that does not know the host. Gateways that serve the same port share the listener,
/// but the chains behind it are each Gateway's own, so they are told too.
fn shared_certificates(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let gateways: Vec<&Gateway> = scene.world.gateways.values().map(AsRef::as_ref).collect();
    for gateway in &gateways {
        let mut report = scene.report(&gateway.origin);
        for (i, server) in gateway.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let rival = gateways.iter().find(|other| {
                let together = gateway
                    .selector
                    .0
                    .iter()
                    .all(|pair| other.selector.0.iter().any(|own| own == pair));
                let mut servers = other.servers.iter();
                gateway.origin != other.origin
                    && together
                    && servers.any(|server| {
                        server
                            .tls
                            .as_ref()
                            .is_some_and(|theirs| same_certificate(tls, theirs))
                    })
            });
            if let Some(other) = rival {
                let text = format!(
                    "{} uses the same certificate for the same workloads: browsers that reuse an HTTP/2 connection for \
                     another host get 404; serve these hosts from one Gateway",
                    describe(other.origin.kind, &other.origin.namespace, &other.origin.name)
                );
                report.add(
                    finding::DUPLICATE_CERTIFICATE,
                    format!("spec.servers[{i}].tls"),
                    text,
                );
            }
        }
        findings.append(&mut report.findings);
    }
}

fn same_certificate(a: &ServerTls, b: &ServerTls) -> bool {
    match (a.credentials.is_empty(), b.credentials.is_empty()) {
        (false, false) => a.credentials.iter().any(|name| b.credentials.contains(name)),
        (true, true) => a.files.iter().any(|pair| b.files.contains(pair)),
        _ => false,
    }
}

/// Hosts that both serve for the same namespaces. Overlap alone is no conflict: the narrower host counts.
fn same_hosts<'a>(gateway: &Gateway, server: &'a Server, other: &Gateway, rival: &Server) -> Vec<&'a Host> {
    use crate::model::gateway::HostScope::{Any, Namespace, Own};
    let place = |scope: &crate::model::gateway::HostScope, own: &str| match scope {
        Any => None,
        Own => Some(own.to_owned()),
        Namespace(name) => Some(name.clone()),
    };
    let same = |mine: &&crate::model::gateway::ServerHost| {
        rival.hosts.iter().any(|theirs| {
            mine.host == theirs.host
                && match (
                    place(&mine.scope, &gateway.origin.namespace),
                    place(&theirs.scope, &other.origin.namespace),
                ) {
                    (None, _) | (_, None) => true,
                    (Some(a), Some(b)) => a == b,
                }
        })
    };
    server.hosts.iter().filter(same).map(|mine| &mine.host).collect()
}
