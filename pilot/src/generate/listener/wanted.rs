//! Which listeners a proxy needs, from what it sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Input, gateway, outbound, workload};
use crate::{
    generate::{
        filter::{
            access_log::Logs,
            hcm::{Settings, Side},
            tcp::Target,
        },
        route::{self, gateway::Bound},
    },
    model::{
        GatewayRef, Host, Labels, Service, ServicePort,
        policy::{Algorithm, HashKey, PortPolicy},
        route::{TcpMatch, TlsMatch, WeightedDestination},
    },
    view::View,
};

pub fn inputs(view: &View<'_>) -> Vec<Input> {
    if view.is_gateway() {
        gateways(view)
    } else {
        sidecar(view)
    }
}

fn sidecar(view: &View<'_>) -> Vec<Input> {
    let settings = view.http_settings(Side::Outbound);
    let logs = view.logs(Side::Outbound);
    let virtual_outbound = outbound::Virtual {
        unknown: view.unknown(),
        logs: logs.clone(),
    };
    let mut inputs = vec![Input::VirtualOutbound(virtual_outbound)];
    inputs.extend(workload::inputs(view));
    let mut http_ports = BTreeSet::new();
    for service in view.services() {
        let http = view.ports(service).filter(|port| view.spoken(port).is_http());
        http_ports.extend(http.map(|port| port.number));
    }
    inputs.extend(http_ports.iter().map(|port| {
        Input::Http(outbound::Http {
            place: view.place(*port),
            port: *port,
            settings: settings.clone(),
        })
    }));
    let mut tcp: BTreeMap<(String, u16), outbound::Tcp> = BTreeMap::new();
    for service in view.services() {
        for port in view.ports(service) {
            let protocol = view.spoken(port);
            if protocol.is_tcp() || protocol.is_tls() || protocol.is_auto() {
                let port = ServicePort {
                    protocol,
                    ..port.clone()
                };
                add(view, service, &port, (&settings, &logs), &http_ports, &mut tcp);
            }
        }
    }
    inputs.extend(tcp.into_values().map(Input::Tcp));
    inputs
}

/// The listeners of one port that is not declared to be HTTP.
fn add(
    view: &View<'_>,
    service: &Arc<Service>,
    port: &ServicePort,
    (settings, logs): (&Settings, &Logs),
    http_ports: &BTreeSet<u16>,
    all: &mut BTreeMap<(String, u16), outbound::Tcp>,
) {
    let plain = vec![Target {
        weight: 1,
        ..target(
            mesh_proto::names::outbound_cluster(port.number, "", service.host.as_str()),
            view.policy(service).map(|rule| rule.effective(port.number, None)),
        )
    }];
    let chains = chains(view, service, port);
    let rest = rest(view, service, port).unwrap_or_else(|| plain.clone());
    let idle = view
        .policy(service)
        .and_then(|rule| rule.effective(port.number, None).pool?.tcp_idle_timeout);
    let place = view.place(port.number);
    let blank = |address: String| outbound::Tcp {
        address,
        port: port.number,
        bound: place.bound,
        chains: Vec::new(),
        rest: None,
        unknown: view.unknown_at(place),
        sniff: None,
        logs: logs.clone(),
        idle,
    };
    let sniff = port.protocol.is_auto().then(|| outbound::Sniff {
        settings: settings.clone(),
        routes: route::sidecar::auto_name(&service.host, port.number),
        timeout: view.mesh().protocol_detection_timeout.0,
        tell_alpn: !view.viewer.ours,
    });
    let addresses: Vec<IpAddr> = if place.address.is_some() {
        Vec::new()
    } else if service.is_headless() {
        view.snapshot.traits.headless(&service.key()).collect()
    } else {
        service
            .addresses
            .iter()
            .copied()
            .chain(service.auto_address.filter(|_| view.viewer.dns))
            .collect()
    };
    for address in &addresses {
        // Two services with one address and port: the first one stays.
        all.entry((address.to_string(), port.number))
            .or_insert_with(|| outbound::Tcp {
                chains: chains.clone(),
                rest: Some(rest.clone()),
                sniff: sniff.clone(),
                ..blank(address.to_string())
            });
    }
    // Without an address of its own a service is told apart by server name or range, on the listener of all addresses;
    // where a Sidecar says the listener's address, by server name alone.
    let ranges: &[ipnet::IpNet] = match place.address {
        Some(_) => &[],
        None => &service.ranges,
    };
    let anywhere = addresses.is_empty() && (place.address.is_some() || !service.is_headless());
    if (!anywhere && ranges.is_empty()) || http_ports.contains(&port.number) {
        return;
    }
    let everywhere = place.to_string();
    let shared = all
        .entry((everywhere.clone(), port.number))
        .or_insert_with(|| blank(everywhere));
    let mut more = chains;
    if !ranges.is_empty() {
        more.push(outbound::Chain {
            server_names: Vec::new(),
            destinations: ranges.to_vec(),
            targets: rest,
        });
    } else if port.protocol.is_tls() {
        let named = |chain: &outbound::Chain| chain.server_names.contains(&service.host);
        if !more.iter().any(named) {
            more.push(outbound::Chain {
                server_names: vec![service.host.clone()],
                destinations: Vec::new(),
                targets: rest,
            });
        }
    } else if shared.rest.is_none() {
        shared.rest = Some(rest);
        shared.sniff = shared.sniff.take().or(sniff);
    }
    // Envoy refuses two chains with equal conditions; the first one stays.
    for chain in more {
        let same = |other: &outbound::Chain| {
            other.server_names == chain.server_names && other.destinations == chain.destinations
        };
        if !shared.chains.iter().any(same) {
            shared.chains.push(chain);
        }
    }
}

/// What VirtualServices say about connections of this port: TLS by server name, TCP by destination.
fn chains(view: &View<'_>, service: &Service, port: &ServicePort) -> Vec<outbound::Chain> {
    let Some(source) = view.route_of(&service.host) else {
        return Vec::new();
    };
    let mut chains: Vec<outbound::Chain> = Vec::new();
    let mut push = |chain: outbound::Chain| {
        let same = |other: &outbound::Chain| {
            other.server_names == chain.server_names && other.destinations == chain.destinations
        };
        if !chains.iter().any(same) {
            chains.push(chain);
        }
    };
    if port.protocol.is_tls() || port.protocol.is_auto() {
        for route in &source.tls {
            for wanted in route
                .matches
                .iter()
                .filter(|own| tls_applies(view, own, &GatewayRef::Mesh, port.number))
            {
                push(outbound::Chain {
                    server_names: wanted.sni_hosts.clone(),
                    destinations: wanted.destination_subnets.clone(),
                    targets: targets(view, &route.destinations, port.number),
                });
            }
        }
    }
    for route in &source.tcp {
        for wanted in route
            .matches
            .iter()
            .filter(|own| tcp_applies(view, own, &GatewayRef::Mesh, port.number))
        {
            if !wanted.destination_subnets.is_empty() {
                push(outbound::Chain {
                    server_names: Vec::new(),
                    destinations: wanted.destination_subnets.clone(),
                    targets: targets(view, &route.destinations, port.number),
                });
            }
        }
    }
    chains
}

/// Where a VirtualService sends all connections of this port; `None`: nowhere else.
fn rest(view: &View<'_>, service: &Service, port: &ServicePort) -> Option<Vec<Target>> {
    let source = view.route_of(&service.host)?;
    let route = source.tcp.iter().find(|route| {
        route.matches.is_empty()
            || route.matches.iter().any(|own| {
                own.destination_subnets.is_empty() && tcp_applies(view, own, &GatewayRef::Mesh, port.number)
            })
    })?;
    Some(targets(view, &route.destinations, port.number))
}

fn source_is(view: &View<'_>, labels: &Labels, namespace: Option<&String>, place: &GatewayRef) -> bool {
    *place != GatewayRef::Mesh
        || (labels
            .iter()
            .all(|(key, value)| view.viewer.labels.get(key) == Some(value))
            && namespace.is_none_or(|own| *own == view.viewer.namespace))
}

fn tls_applies(view: &View<'_>, own: &TlsMatch, place: &GatewayRef, port: u16) -> bool {
    source_is(view, &own.source_labels, own.source_namespace.as_ref(), place)
        && own.port.is_none_or(|wanted| wanted == port)
        && (own.gateways.is_empty() || own.gateways.contains(place))
}

fn tcp_applies(view: &View<'_>, own: &TcpMatch, place: &GatewayRef, port: u16) -> bool {
    source_is(view, &own.source_labels, own.source_namespace.as_ref(), place)
        && own.port.is_none_or(|wanted| wanted == port)
        && (own.gateways.is_empty() || own.gateways.contains(place))
}

fn targets(view: &View<'_>, destinations: &[WeightedDestination], port: u16) -> Vec<Target> {
    let mut targets: Vec<Target> = destinations
        .iter()
        .map(|own| Target {
            weight: own.weight,
            ..target(
                route::sidecar::cluster(view, &own.destination, port),
                route::sidecar::policy(view, &own.destination, port),
            )
        })
        .collect();
    // Among several, one without a weight gets nothing.
    if targets.len() > 1 && targets.iter().any(|target| target.weight > 0) {
        targets.retain(|target| target.weight > 0);
    }
    targets
}

/// A cluster, with what its policy says about connections to it.
fn target(cluster: String, policy: Option<PortPolicy>) -> Target {
    let policy = policy.unwrap_or_default();
    let by_source = policy.balancer.is_some_and(|balancer| {
        matches!(
            balancer.algorithm,
            Algorithm::Hash {
                on: HashKey::SourceIp,
                ..
            }
        )
    });
    Target {
        cluster,
        weight: 0,
        tunnel: policy.tunnel,
        by_source,
    }
}

fn gateways(view: &View<'_>) -> Vec<Input> {
    let settings = view.http_settings(Side::Gateway);
    let listener = |((bind, port), servers): ((String, u16), Vec<Bound<'_>>)| {
        let chains = server_chains(view, &servers);
        (!chains.is_empty()).then(|| {
            Input::Gateway(Box::new(gateway::Input {
                bind,
                port,
                chains,
                settings: settings.clone(),
                source: view.viewer.source.clone(),
                trust_domains: view.trust_domains(),
            }))
        })
    };
    route::gateway::servers(view)
        .into_iter()
        .filter_map(listener)
        .collect()
}

/// The chains of one port. No two have the same condition: the older gateway's stays.
fn server_chains(view: &View<'_>, servers: &[Bound<'_>]) -> Vec<gateway::Chain> {
    let mut chains: Vec<gateway::Chain> = Vec::new();
    let mut names: BTreeSet<(Option<Host>, Vec<ipnet::IpNet>)> = BTreeSet::new();
    for bound in servers {
        for mut chain in server(view, bound) {
            if chain.server_names.is_empty() || !chain.over_tls {
                if !names.insert((None, chain.destinations.clone())) {
                    continue;
                }
            } else {
                chain
                    .server_names
                    .retain(|host| names.insert((Some(host.clone()), chain.destinations.clone())));
                if chain.server_names.is_empty() {
                    continue;
                }
            }
            chains.push(chain);
        }
    }
    chains
}

fn server(view: &View<'_>, bound: &Bound<'_>) -> Vec<gateway::Chain> {
    let server = bound.server;
    let over_tls = route::gateway::over_tls(server);
    let hosts: Vec<Host> = server.hosts.iter().map(|own| own.host.clone()).collect();
    if let Some(routes) = &bound.table {
        return vec![gateway::Chain {
            server_names: if over_tls { hosts } else { Vec::new() },
            destinations: Vec::new(),
            tls: server.tls.clone().filter(|_| server.terminates_tls()),
            over_tls,
            serves: gateway::Serves::Http {
                routes: routes.clone(),
            },
        }];
    }
    let ended = server.tls.clone().filter(|_| server.terminates_tls());
    let place = bound.gateway.reference();
    let mut chains = Vec::new();
    for source in view.routes_at(&place) {
        let own = (
            source.origin.namespace.as_str(),
            bound.gateway.origin.namespace.as_str(),
        );
        if over_tls && ended.is_none() {
            for route in &source.tls {
                for wanted in route
                    .matches
                    .iter()
                    .filter(|m| tls_applies(view, m, &place, server.port))
                {
                    let admitted = wanted
                        .sni_hosts
                        .iter()
                        .flat_map(|host| server.admits(own.0, own.1, host));
                    chains.push(gateway::Chain {
                        server_names: admitted.cloned().collect(),
                        destinations: wanted.destination_subnets.clone(),
                        tls: None,
                        over_tls: true,
                        serves: gateway::Serves::Tcp(targets(view, &route.destinations, server.port)),
                    });
                }
            }
            chains.retain(|chain: &gateway::Chain| !chain.server_names.is_empty());
        } else if source
            .hosts
            .iter()
            .any(|host| !server.admits(own.0, own.1, host).is_empty())
        {
            for route in &source.tcp {
                let wanted = |own: &&TcpMatch| tcp_applies(view, own, &place, server.port);
                let first = route.matches.iter().find(wanted);
                if first.is_none() && !route.matches.is_empty() {
                    continue;
                }
                chains.push(gateway::Chain {
                    server_names: if over_tls { hosts.clone() } else { Vec::new() },
                    destinations: first
                        .map(|own| own.destination_subnets.clone())
                        .unwrap_or_default(),
                    tls: ended.clone(),
                    over_tls,
                    serves: gateway::Serves::Tcp(targets(view, &route.destinations, server.port)),
                });
            }
        }
    }
    chains
}
