//! Ports of Services whose protocol is not declared (IST0118), which an ExternalName Service must declare
//! (IST0150).

use mesh_proto::finding::{self, Finding};

use super::{Scene, is_system};
use crate::model::Kind;

pub fn check(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for service in scene
        .world
        .services
        .values()
        .filter(|service| !is_system(&service.namespace))
    {
        let Some(manifest) = scene.store.manifest(Kind::Service, &service.origin.key()) else {
            continue;
        };
        let mut report = scene.report(&service.origin);
        let ports = manifest
            .value
            .pointer("/spec/ports")
            .and_then(serde_json::Value::as_array);
        let external = service.external_name.is_some();
        for (i, written) in ports.into_iter().flatten().enumerate() {
            let number = written.get("port").and_then(serde_json::Value::as_u64);
            let found = service
                .ports
                .iter()
                .find(|port| Some(u64::from(port.number)) == number);
            // A plain name takes whatever goes to that port number, wherever it wanted to go.
            let plain = written.get("name").and_then(serde_json::Value::as_str) == Some("tcp");
            if let Some(port) = found.filter(|port| external && (plain || port.protocol.is_auto())) {
                report.add(
                    finding::EXTERNAL_NAME_PORT,
                    format!("spec.ports[{i}].name"),
                    format!(
                        "port {} of an ExternalName Service is not declared to be of a protocol that names its host, so it \
                         takes all traffic to port {}; name it http, https or tls",
                        port.number, port.number
                    ),
                );
            } else if let Some(port) = found.filter(|port| port.protocol.is_auto()) {
                let name = if port.name.is_empty() {
                    "it has no name".to_owned()
                } else {
                    format!("its name is {:?}", port.name)
                };
                report.add(
                    finding::PORT_NAME_CONVENTION,
                    format!("spec.ports[{i}].name"),
                    format!(
                        "the protocol of port {} is not declared ({name}), so the proxy has to find it out; name it \
                         protocol-something (http-web, tcp-db) or set appProtocol",
                        port.number
                    ),
                );
            }
        }
        findings.append(&mut report.findings);
    }
}
