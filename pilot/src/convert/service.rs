//! Service.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use mesh_proto::{finding::Report, names::annotation};

use super::{DOMAIN, visibility};
use crate::model::{
    Distribution, Host, Item, Location, MeshConfig, Origin, Protocol, Resolution, Selector, Service,
    ServicePort, TargetPort,
};

const EXPORT_TO: &str = "networking.istio.io/exportTo";

pub fn convert(
    object: &core::Service,
    origin: Origin,
    mesh: &MeshConfig,
    report: &mut Report,
) -> Option<Item> {
    let spec = object.spec.clone().unwrap_or_default();
    let mut ports: Vec<ServicePort> = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let Some(port) = service_port(port, i, report) else {
            continue;
        };
        // One number may stand twice, for TCP and for UDP: the proxy carries TCP.
        match ports.iter_mut().find(|known| known.number == port.number) {
            Some(known) if known.protocol == Protocol::Udp => *known = port,
            Some(_) => {}
            None => ports.push(port),
        }
    }
    ports.sort_by_key(|port| port.number);
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    let all_ips: BTreeSet<String> = ips.iter().chain(&spec.cluster_ip).cloned().collect();
    let headless = all_ips.contains("None");
    let external_name = match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.as_deref().map(Host::new),
        _ => None,
    };
    let resolution = match (&external_name, headless) {
        (Some(_), _) => Resolution::Dns,
        (None, true) => Resolution::Headless,
        (None, false) => Resolution::Static,
    };
    let selector = spec
        .selector
        .clone()
        .filter(|selector| !selector.is_empty())
        .map(Selector);
    let export_to: Vec<String> = object
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(EXPORT_TO))
        .map(|list| {
            list.split(',')
                .map(|entry| entry.trim().to_owned())
                .filter(|entry| !entry.is_empty())
                .collect()
        })
        .unwrap_or_default();
    let service = Service {
        host: Host::of_service(&origin.name, &origin.namespace, DOMAIN),
        name: origin.name.clone(),
        namespace: origin.namespace.clone(),
        ports,
        addresses: all_ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        ranges: Vec::new(),
        auto_address: None,
        resolution,
        location: if external_name.is_some() {
            Location::External
        } else {
            Location::Internal
        },
        visibility: visibility(&export_to, &origin.namespace, &mesh.default_service_export_to),
        selector,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        accounts: BTreeSet::new(),
        external_name,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        distribution: distribution(object, spec.traffic_distribution.as_deref()),
        origin,
    };
    Some(Item::Service(Arc::new(service)))
}

/// The annotation counts more than the field, as in Istio; what neither of us knows is left to newer versions.
fn distribution(object: &core::Service, field: Option<&str>) -> Distribution {
    let annotations = object.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(annotation::TRAFFIC_DISTRIBUTION));
    annotated
        .map(String::as_str)
        .or(field)
        .and_then(Distribution::parse)
        .unwrap_or_default()
}

fn service_port(port: &core::ServicePort, i: usize, report: &mut Report) -> Option<ServicePort> {
    let at = format!("spec.ports[{i}]");
    let Ok(number @ 1..) = u16::try_from(port.port) else {
        report.error(
            format!("{at}.port"),
            format!("{} is not a port (1 to 65535)", port.port),
        );
        return None;
    };
    let name = port.name.clone().unwrap_or_default();
    let target = match &port.target_port {
        None => TargetPort::Number(number),
        Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => match u16::try_from(*target) {
            Ok(target) => TargetPort::Number(target),
            Err(_) => {
                report.error(
                    format!("{at}.targetPort"),
                    format!("{target} is not a port (1 to 65535)"),
                );
                return None;
            }
        },
    };
    let transport = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = Protocol::of_service_port(transport, port.app_protocol.as_deref(), &name, number);
    Some(ServicePort {
        number,
        name,
        protocol,
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::item;

    fn service(spec: &str) -> Arc<Service> {
        let text =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}");
        match item(&text) {
            Item::Service(service) => service,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports() {
        let service = service(
            "{clusterIP: 10.0.0.1, selector: {app: a}, ports: [{port: 9080, name: http, targetPort: web}, \
             {port: 80, name: x, appProtocol: grpc, targetPort: 8080}, {port: 53, protocol: UDP, name: u}, {port: 53, name: tcp-dns}]}",
        );
        let got: Vec<(u16, Protocol, TargetPort)> = service
            .ports
            .iter()
            .map(|port| (port.number, port.protocol, port.target.clone()))
            .collect();
        assert_eq!(
            got,
            [
                (53, Protocol::Tcp, TargetPort::Number(53)),
                (80, Protocol::Grpc, TargetPort::Number(8080)),
                (9080, Protocol::Http, TargetPort::Name("web".into())),
            ]
        );
        assert_eq!(service.host.as_str(), "a.ns.svc.cluster.local");
        assert_eq!(service.resolution, Resolution::Static);
        assert_eq!(
            service.addresses,
            ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    #[test]
    fn kinds_of_services() {
        assert_eq!(
            service("{clusterIP: None, selector: {a: b}}").resolution,
            Resolution::Headless
        );
        let external = service("{type: ExternalName, externalName: example.com}");
        assert_eq!(
            (external.resolution, external.location),
            (Resolution::Dns, Location::External)
        );
        assert_eq!(service("{selector: {}}").selector, None);
        let near = service("{trafficDistribution: PreferClose, internalTrafficPolicy: Cluster}");
        assert_eq!(
            (near.distribution, near.needs_node()),
            (Distribution::Zone, false)
        );
        assert!(service("{trafficDistribution: PreferSameNode}").needs_node());
        assert!(service("{internalTrafficPolicy: Local}").needs_node());
    }
}
