//! EndpointSlice.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::discovery::v1 as discovery;
use mesh_proto::{finding::Report, names::label};

use crate::model::{EndpointSlice, Health, Item, Origin, endpoint::SliceEndpoint};

pub fn convert(object: &discovery::EndpointSlice, origin: Origin, report: &mut Report) -> Option<Item> {
    // A slice of names is for nobody but DNS.
    if object.address_type == "FQDN" {
        return None;
    }
    let service = object.metadata.labels.as_ref()?.get(label::SERVICE_NAME)?.clone();
    let mut ports = BTreeMap::new();
    for (i, port) in object.ports.iter().flatten().enumerate() {
        // No number means all ports, which has no use here.
        let Some(number) = port.port else { continue };
        let Ok(number @ 1..) = u16::try_from(number) else {
            report.error(
                format!("ports[{i}].port"),
                format!("{number} is not a port (1 to 65535)"),
            );
            continue;
        };
        if port.protocol.as_deref().unwrap_or("TCP") == "TCP"
            || !ports.contains_key(port.name.as_deref().unwrap_or(""))
        {
            ports.insert(port.name.clone().unwrap_or_default(), number);
        }
    }
    let endpoints = object
        .endpoints
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, endpoint)| entry(endpoint, i, report))
        .collect();
    Some(Item::EndpointSlice(Arc::new(EndpointSlice {
        origin,
        service,
        ports,
        endpoints,
    })))
}

fn entry(endpoint: &discovery::Endpoint, i: usize, report: &mut Report) -> SliceEndpoint {
    let mut addresses = Vec::new();
    for (j, address) in endpoint.addresses.iter().enumerate() {
        match address.parse() {
            Ok(ip) => addresses.push(ip),
            Err(_) => report.error(
                format!("endpoints[{i}].addresses[{j}]"),
                format!("{address:?} is not an address"),
            ),
        }
    }
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|target| target.kind.as_deref() == Some("Pod"));
    SliceEndpoint {
        addresses,
        health: endpoint.conditions.as_ref().map_or(Health::Ready, health),
        pod: pod.and_then(|target| target.name.clone()),
        hostname: endpoint.hostname.clone().unwrap_or_default(),
        node: endpoint.node_name.clone().unwrap_or_default(),
        zone: endpoint.zone.clone().unwrap_or_default(),
    }
}

/// An unset `ready` or `serving` counts as true, an unset `terminating` as false (the API says so).
fn health(conditions: &discovery::EndpointConditions) -> Health {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, serving && conditions.terminating == Some(true)) {
        (true, _) => Health::Ready,
        (false, true) => Health::Draining,
        (false, false) => Health::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::item;

    #[test]
    fn slices() {
        let text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
            metadata: {name: a-x, namespace: ns, labels: {kubernetes.io/service-name: a}}\n\
            ports: [{name: http, port: 8080}]\nendpoints:\n\
            - {addresses: [10.0.0.1], targetRef: {kind: Pod, name: p1}}\n\
            - {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}\n\
            - {addresses: [10.0.0.3], conditions: {ready: false}}\n";
        let Item::EndpointSlice(slice) = item(text) else {
            panic!()
        };
        assert_eq!(
            (slice.service.as_str(), slice.ports.get("http")),
            ("a", Some(&8080))
        );
        let health: Vec<Health> = slice.endpoints.iter().map(|endpoint| endpoint.health).collect();
        assert_eq!(health, [Health::Ready, Health::Draining, Health::NotReady]);
        assert!(slice.names_pod("p1") && !slice.names_pod("p2"));
    }
}
