//! ServiceEntries whose traffic cannot be told from other traffic (IST0134), or that contradict each other (IST0177).

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::finding::{self, Finding};

use super::{Scene, virtual_services::meet};
use crate::model::{Host, Protocol, Service, ServiceEntry};

/// In the mesh's proxy metadata; `false` switches the proxies' DNS off, and with it addresses that are chosen for hosts.
const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for entry in scene.world.service_entries.values() {
        addresses(scene, entry, findings);
    }
    protocols(scene, findings);
}

fn addresses(scene: &Scene<'_>, entry: &ServiceEntry, findings: &mut Vec<Finding>) {
    let metadata = &scene.world.mesh.default_config.proxy_metadata;
    let answers_dns = metadata.get(DNS_CAPTURE).is_none_or(|value| value != "false");
    let mut report = scene.report(&entry.origin);
    let bare = |service: &&Service| {
        let chosen = scene
            .registry
            .service(&service.key())
            .is_some_and(|known| known.auto_address.is_some());
        service.addresses.is_empty() && service.ranges.is_empty() && !(answers_dns && chosen)
    };
    let Some(service) = entry.services.iter().find(bare) else {
        return;
    };
    let written = scene
        .store
        .manifest(entry.origin.kind, &entry.origin.key())
        .and_then(|manifest| manifest.value.pointer("/spec/ports"));
    for port in &service.ports {
        if !(port.protocol.is_tcp() || port.protocol.is_auto()) {
            continue;
        }
        let position = written.and_then(serde_json::Value::as_array).and_then(|ports| {
            ports
                .iter()
                .position(|written| written["number"].as_u64() == Some(u64::from(port.number)))
        });
        let text = format!(
            "{} has no address of its own, so connections to port {} of any destination are taken for it; set addresses",
            service.host, port.number
        );
        report.add(
            finding::SERVICE_ENTRY_ADDRESSES_REQUIRED,
            position.map_or_else(|| "spec.addresses".to_owned(), |i| format!("spec.ports[{i}]")),
            text,
        );
    }
    findings.append(&mut report.findings);
}

/// A port of a host, as one entry declares it.
type Declared<'a> = (&'a ServiceEntry, &'a Service, Protocol);

/// Each entry is told once, however many of its ports are in conflict.
fn protocols(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mut declared: BTreeMap<(&Host, u16), Vec<Declared<'_>>> = BTreeMap::new();
    for entry in scene.world.service_entries.values() {
        for service in &entry.services {
            for port in &service.ports {
                declared.entry((&service.host, port.number)).or_default().push((
                    entry,
                    service,
                    port.protocol,
                ));
            }
        }
    }
    let mut told = BTreeSet::new();
    for ((host, port), group) in declared {
        for (entry, service, protocol) in &group {
            let rival = group.iter().find(|(other, rival, theirs)| {
                other.origin != entry.origin
                    && theirs != protocol
                    && meet(
                        (&service.namespace, &service.visibility),
                        (&rival.namespace, &rival.visibility),
                    )
            });
            let Some((other, _, theirs)) = rival else { continue };
            if told.insert(&entry.origin) {
                let mut report = scene.report(&entry.origin);
                let text = format!(
                    "port {port} of {host} is {protocol} here and {theirs} in ServiceEntry {}; only one of them counts",
                    other.origin.key()
                );
                report.add(finding::CONFLICTING_SERVICE_ENTRY_PROTOCOLS, "spec.ports", text);
                findings.append(&mut report.findings);
            }
        }
    }
}
