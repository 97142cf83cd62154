//! The ports of the workload beside a proxy, as the services that select it declare them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::names::{self, port};

use crate::{
    model::{Protocol, Service, ServicePort, TargetPort},
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
    let mut ports: BTreeMap<u16, OwnPort> = BTreeMap::new();
    for service in selecting(view) {
        for declared in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(number) = target(view, declared) else {
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

/// The port that a gateway's server is bound to: what the oldest Service that selects the gateway's pods and has the
/// server's port leads to; where there is none, the port itself. A Service may say that it does not count for this.
pub fn behind(view: &View<'_>, server_port: u16) -> u16 {
    selecting(view)
        .filter(|service| {
            !service
                .labels
                .contains_key(names::label::NO_GATEWAY_PORT_TRANSLATION)
        })
        .flat_map(|service| &service.ports)
        .filter(|port| port.number == server_port && port.protocol != Protocol::Udp)
        .find_map(|port| target(view, port))
        .unwrap_or(server_port)
}

/// The services that select the viewer's workload, the oldest first.
fn selecting<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Arc<Service>> {
    let viewer = view.viewer;
    let all = view.snapshot.services.of_namespace(&viewer.namespace).iter();
    all.filter(|service| {
        let selector = service.selector.as_ref();
        selector.is_some_and(|selector| selector.matches(&viewer.labels))
    })
}

/// The workload's port behind a service's one, if it has it and it is not one of the proxy's own.
fn target(view: &View<'_>, port: &ServicePort) -> Option<u16> {
    let number = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => view.viewer.named_ports.get(name).copied()?,
    };
    (number > 0 && !PROXY.contains(&number)).then_some(number)
}
