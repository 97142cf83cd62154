//! The ports of the workload beside a proxy: as the services that select it declare them, or, where a Sidecar has ingress
//! listeners, those alone.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_proto::names::{self, port};

use crate::{
    model::{
        Protocol, Service, ServicePort, TargetPort,
        gateway::ServerTls,
        policy::ConnectionPool,
        sidecar::{Ingress, LocalEndpoint},
    },
    view::View,
};

/// One port of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPort {
    pub number: u16,
    pub protocol: Protocol,
    /// The service that declares it; of a Sidecar's port that no service declares, the oldest one of the workload.
    pub service: Option<Arc<Service>>,
    pub service_port: u16,
    /// Only what comes to this address.
    pub bind: Option<IpAddr>,
    /// The proxy is bound to the port; else it is redirected.
    pub bound: bool,
    /// Where it goes; `None`: to where the client wanted to go.
    pub endpoint: Option<SocketAddr>,
    pub tls: Option<ServerTls>,
    pub pool: Option<ConnectionPool>,
}

impl OwnPort {
    /// What spans of its requests are named.
    pub fn operation(&self) -> String {
        let host = self.service.as_ref().map_or("*", |service| service.host.as_str());
        format!("{host}:{}/*", self.service_port)
    }
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

/// By number.
pub fn ports(view: &View<'_>) -> Vec<OwnPort> {
    let declared = declared(view);
    let listeners = view.ingress();
    if listeners.is_empty() {
        return declared.into_values().collect();
    }
    let ports = listeners
        .iter()
        .filter(|listener| !PROXY.contains(&listener.port))
        .filter_map(|listener| Some((listener.port, taken(view, listener, &declared)?)));
    ports.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// A port that a Sidecar lets in. `None` where clients reach the application without the proxy, which then has no place to
/// listen.
fn taken(view: &View<'_>, listener: &Ingress, declared: &BTreeMap<u16, OwnPort>) -> Option<OwnPort> {
    let bound = view.is_bound(listener.capture);
    let endpoint = listener.endpoint.map(|endpoint| match endpoint {
        LocalEndpoint::Loopback { ipv6: false, port } => (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into(),
        LocalEndpoint::Loopback { ipv6: true, port } => (IpAddr::V6(Ipv6Addr::LOCALHOST), port).into(),
        LocalEndpoint::Pod { port } => {
            let address = view.viewer.address;
            SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port)
        }
    });
    if bound && endpoint.is_none_or(|to| to.port() == listener.port && listener.bind.is_none()) {
        return None;
    }
    let same = declared.get(&listener.port);
    let service = same.and_then(|port| port.service.clone());
    Some(OwnPort {
        number: listener.port,
        protocol: match (&listener.tls, listener.protocol) {
            // What is inside when the proxy has ended it.
            (Some(_), Protocol::Https) => Protocol::Http,
            (Some(_), Protocol::Tls) => Protocol::Tcp,
            (_, protocol) => protocol,
        },
        service: service.or_else(|| selecting(view).next().cloned()),
        service_port: same.map_or(listener.port, |port| port.service_port),
        bind: listener.bind.filter(|bind| !bind.is_unspecified() || bound),
        bound,
        endpoint,
        tls: listener.tls.clone(),
        pool: listener.pool.as_ref().or(view.inbound_pool()).cloned(),
    })
}

/// As services declare them. Where two services disagree about a port, the older one counts.
fn declared(view: &View<'_>) -> BTreeMap<u16, OwnPort> {
    let mut ports: BTreeMap<u16, OwnPort> = BTreeMap::new();
    for service in selecting(view) {
        for declared in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(number) = target(view, declared) else {
                continue;
            };
            ports.entry(number).or_insert_with(|| OwnPort {
                number,
                protocol: declared.protocol,
                service: Some(service.clone()),
                service_port: declared.number,
                bind: None,
                bound: false,
                endpoint: None,
                tls: None,
                pool: view.inbound_pool().cloned(),
            });
        }
    }
    ports
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
