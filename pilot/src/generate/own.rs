//! The ports of the workload beside a proxy, as the services that select it declare them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::names::port;

use crate::{
    model::{Protocol, Service, TargetPort},
    view::View,
};

/// One port of the workload, declared by a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPort {
    pub number: u16,
    pub protocol: Protocol,
    pub service: Arc<Service>,
    pub service_port: u16,
}

/// Ports on which the proxy itself answers; they are never redirected.
const PROXY: &[u16] = &[
    port::ADMIN,
    port::OUTBOUND,
    port::INBOUND,
    port::METRICS,
    port::HEALTH,
    port::STATS,
];

/// By number. Where two services disagree about a port, the older one counts.
pub fn ports(view: &View<'_>) -> Vec<OwnPort> {
    let viewer = view.viewer;
    let mut ports: BTreeMap<u16, OwnPort> = BTreeMap::new();
    for service in view.snapshot.services.of_namespace(&viewer.namespace) {
        if !service
            .selector
            .as_ref()
            .is_some_and(|selector| selector.matches(&viewer.labels))
        {
            continue;
        }
        for declared in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let number = match &declared.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => viewer.named_ports.get(name).copied(),
            };
            let Some(number) = number.filter(|number| *number > 0 && !PROXY.contains(number)) else {
                continue;
            };
            ports.entry(number).or_insert_with(|| OwnPort {
                number,
                protocol: declared.protocol,
                service: service.clone(),
                service_port: declared.number,
            });
        }
    }
    ports.into_values().collect()
}

/// The port of the gateway's workload that is behind a port of its service; without a service, the port itself.
pub fn behind(view: &View<'_>, service_port: u16) -> u16 {
    let own = ports(view);
    own.iter()
        .find(|port| port.service_port == service_port)
        .map_or(service_port, |port| port.number)
}
