//! ServiceEntry → services and endpoints.

use std::collections::BTreeSet;

use mesh_proto::{
    kube::{Object, networking as api},
    names,
    validate::field::parse_range,
};

use super::{port, visibility, workload_entry};
use crate::model::{
    Distribution, Host, Location, MeshConfig, Origin, Protocol, Resolution, Selector, Service, ServiceEntry,
    ServicePort, TargetPort,
};

pub fn convert(object: &Object<api::ServiceEntry>, origin: Origin, mesh: &MeshConfig) -> ServiceEntry {
    let spec = &object.spec;
    let mut hosts: Vec<Host> = Vec::new();
    for host in spec.hosts.iter().map(|host| Host::new(host)) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let services = hosts
        .into_iter()
        .map(|host| service(spec, host, &origin, object, mesh))
        .collect();
    let workload_selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| Selector(selector.labels.clone()));
    ServiceEntry {
        services,
        endpoints: spec.endpoints.iter().map(workload_entry::endpoint).collect(),
        workload_selector,
        origin,
    }
}

fn service(
    spec: &api::ServiceEntry,
    host: Host,
    origin: &Origin,
    object: &Object<api::ServiceEntry>,
    mesh: &MeshConfig,
) -> Service {
    let ranges: Vec<ipnet::IpNet> = spec
        .addresses
        .iter()
        .filter_map(|text| parse_range(text))
        .collect();
    let single = |range: &ipnet::IpNet| range.prefix_len() == range.max_prefix_len();
    let mut ports: Vec<ServicePort> = spec.ports.iter().map(service_port).collect();
    ports.sort_by_key(|port| port.number);
    Service {
        name: host.to_string(),
        host,
        namespace: origin.namespace.clone(),
        ports,
        addresses: ranges
            .iter()
            .filter(|range| single(range))
            .map(ipnet::IpNet::addr)
            .collect(),
        ranges: ranges.iter().filter(|range| !single(range)).copied().collect(),
        auto_address: None,
        resolution: match spec.resolution {
            api::EntryResolution::None | api::EntryResolution::DynamicDns => Resolution::None,
            api::EntryResolution::Static => Resolution::Static,
            api::EntryResolution::Dns => Resolution::Dns,
            api::EntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        },
        location: match spec.location {
            api::EntryLocation::MeshExternal => Location::External,
            api::EntryLocation::MeshInternal => Location::Internal,
        },
        visibility: visibility(
            &spec.export_to,
            &origin.namespace,
            &mesh.default_service_export_to,
        ),
        selector: None,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        accounts: spec.subject_alt_names.iter().cloned().collect::<BTreeSet<_>>(),
        external_name: None,
        publish_not_ready: false,
        node_local: false,
        distribution: object
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(names::annotation::TRAFFIC_DISTRIBUTION))
            .and_then(|text| Distribution::parse(text))
            .unwrap_or_default(),
        origin: origin.clone(),
    }
}

fn service_port(declared: &api::Port) -> ServicePort {
    let number = port(declared.number);
    let protocol = if declared.protocol.is_empty() {
        Protocol::of_service_port("TCP", None, &declared.name, number)
    } else {
        Protocol::declared(&declared.protocol).unwrap_or(Protocol::Auto)
    };
    let target = TargetPort::Number(declared.target_port.map_or(number, port));
    ServicePort {
        number,
        name: declared.name.clone(),
        protocol,
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind, endpoint::Address},
    };

    #[test]
    fn entries() {
        let item = of_spec(
            Kind::ServiceEntry,
            "hosts: [A.example.com, '*.b.com']\naddresses: [10.1.0.1, 10.2.0.0/16]\nlocation: MESH_INTERNAL\nresolution: STATIC\n\
             ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}, {number: 80, name: http}]\n\
             endpoints: [{address: 1.2.3.4, ports: {tls: 9443}, labels: {v: '1'}, locality: r/z/s}]\nexportTo: ['.']\n",
        );
        let Item::ServiceEntry(entry) = item else { panic!() };
        let hosts: Vec<&str> = entry
            .services
            .iter()
            .map(|service| service.host.as_str())
            .collect();
        assert_eq!(hosts, ["a.example.com", "*.b.com"]);
        let service = &entry.services[0];
        assert_eq!((service.addresses.len(), service.ranges.len()), (1, 1));
        assert_eq!(
            (service.ports[0].protocol, service.ports[1].target.clone()),
            (Protocol::Http, TargetPort::Number(8443))
        );
        assert!(!service.visibility.allows("ns", "x") && !service.is_external());
        assert_eq!(
            entry.endpoints[0].address,
            Address::Ip("1.2.3.4".parse().unwrap())
        );
        assert_eq!(entry.endpoints[0].locality.zone, "z");
    }
}
