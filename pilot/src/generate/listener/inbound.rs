//! `virtualInbound`: everything that reaches a workload. Each declared port has chains of its own, chosen by what the
//! client speaks: the mesh's TLS with HTTP or bytes inside, plain HTTP, plain bytes, or somebody else's TLS. Which of them
//! exist says PeerAuthentication. Ports that no service declares are passed on, under the same rules.

use std::{net::IpAddr, sync::Arc, time::Duration};

use mesh_proto::{
    envoy::config::{
        core::v3::TrafficDirection,
        listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
    },
    names,
};

use super::{
    MESH_HTTP, PLAIN_HTTP, chain, http_inspector, listener, original_dst, owned, tls, tls_inspector,
};
use crate::{
    generate::{
        filter::{
            access_log::Logs,
            hcm::{self, Routes, Settings},
            rbac,
            tcp::{self, Target},
        },
        value::{cidr, duration, uint},
    },
    model::{AuthorizationPolicy, MtlsMode, Protocol, gateway::ServerTls},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Sorted by number, no number twice.
    pub ports: Vec<Port>,
    /// Ports that no service declares, where a policy names one of them.
    pub undeclared: Vec<(u16, MtlsMode)>,
    /// All the others.
    pub mode: MtlsMode,
    pub tls: tls::Mesh,
    pub settings: Settings,
    /// How long to wait for the client's first byte.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
    pub mode: MtlsMode,
    /// Of its spans: `reviews.default.svc.cluster.local:9080/*`
    pub operation: String,
    /// Only what came to this address.
    pub bind: Option<ipnet::IpNet>,
    /// Other TLS than the mesh's is ended with this; nothing comes without TLS then.
    pub tls: Option<ServerTls>,
    /// How long a connection of bytes may be silent.
    pub idle: Option<Duration>,
}

/// One port that the proxy itself is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    pub address: IpAddr,
    pub port: Port,
    /// Without ports.
    pub all: Input,
}

pub fn generate(name: String, input: &Input) -> Listener {
    let mut all = listener(
        name,
        "0.0.0.0",
        names::port::INBOUND,
        TrafficDirection::Inbound,
        true,
    );
    all.listener_filters = vec![original_dst(), tls_inspector()];
    // Plain connections need another look only where their protocol is not declared.
    if input
        .ports
        .iter()
        .any(|port| port.protocol.is_auto() && port.mode != MtlsMode::Strict)
    {
        all.listener_filters.push(http_inspector());
    }
    all.listener_filters_timeout = Some(duration(input.timeout));
    all.continue_on_listener_filters_timeout = true;
    let nowhere = tcp::generate(
        names::cluster::BLACK_HOLE,
        &Target::only(names::cluster::BLACK_HOLE),
        None,
        &Logs::default(),
    );
    all.filter_chains = vec![chain(
        "virtualInbound-blackhole",
        Some(at(Some(names::port::INBOUND))),
        vec![nowhere],
    )];
    for port in &input.ports {
        let here = FilterChainMatch {
            prefix_ranges: port.bind.iter().map(cidr).collect(),
            ..at(Some(port.number))
        };
        all.filter_chains.extend(declared(port, &here, input));
    }
    for (port, mode) in &input.undeclared {
        all.filter_chains.extend(passed(Some(*port), *mode, input));
    }
    all.filter_chains.extend(passed(None, input.mode, input));
    all
}

pub fn bound(name: String, input: &Bound) -> Listener {
    let port = &input.port;
    let address = input.address.to_string();
    let mut own = listener(name, &address, port.number, TrafficDirection::Inbound, true);
    own.listener_filters = vec![tls_inspector()];
    own.listener_filters_timeout = Some(duration(input.all.timeout));
    own.continue_on_listener_filters_timeout = true;
    own.filter_chains = declared(port, &FilterChainMatch::default(), &input.all);
    own
}

fn at(port: Option<u16>) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: port.map(|port| uint(u32::from(port))),
        ..FilterChainMatch::default()
    }
}

/// What the connection starts with.
fn starts(here: &FilterChainMatch, transport: &str, protocols: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: transport.to_owned(),
        application_protocols: owned(protocols),
        ..here.clone()
    }
}

/// The chains of one declared port, whose connections are told by `here`. HTTP that is declared is looked into whatever the
/// client called it.
fn declared(port: &Port, here: &FilterChainMatch, input: &Input) -> Vec<FilterChain> {
    let number = port.number;
    let protocol = port.protocol;
    let http = || http_filters(port, input);
    let tcp = || tcp_filters(&names::inbound_cluster(number), port.idle, input);
    let (looks, passes) = (protocol.is_http() || protocol.is_auto(), !protocol.is_http());
    let label = |what: &str| format!("{number}_{what}");
    let mut chains = Vec::new();
    if port.mode != MtlsMode::Disable {
        let strict = port.mode == MtlsMode::Strict;
        let mut https: Vec<&str> = MESH_HTTP.to_vec();
        let mut bytes: Vec<&str> = vec![names::alpn::TCP];
        if protocol.is_http() {
            https.append(&mut bytes);
        }
        // In STRICT mode there is no other TLS to be told apart, so any client with a certificate of the mesh may come.
        if strict {
            if passes { bytes.clear() } else { https.clear() }
        }
        if looks {
            let own = chain(&label("mtls_http"), Some(starts(here, "tls", &https)), http());
            chains.push(FilterChain {
                transport_socket: Some(tls::mesh(&input.tls, true)),
                ..own
            });
        }
        if passes {
            let own = chain(&label("mtls_tcp"), Some(starts(here, "tls", &bytes)), tcp());
            chains.push(FilterChain {
                transport_socket: Some(tls::mesh(&input.tls, false)),
                ..own
            });
        }
        if strict {
            return chains;
        }
    }
    if let Some(tls) = &port.tls {
        let filters = if protocol.is_http() { http() } else { tcp() };
        let own = chain(&label("tls"), Some(starts(here, "tls", &[])), filters);
        let (source, domains) = (&input.tls.source, &input.tls.trust_domains);
        chains.push(FilterChain {
            transport_socket: tls::server(tls, source, domains, protocol.is_http()),
            ..own
        });
        return chains;
    }
    if port.mode != MtlsMode::Disable {
        // The application's own TLS.
        chains.push(chain(&label("tls"), Some(starts(here, "tls", &[])), tcp()));
    }
    if protocol.is_auto() {
        chains.push(chain(
            &label("http"),
            Some(starts(here, "raw_buffer", PLAIN_HTTP)),
            http(),
        ));
    }
    let rest = if protocol.is_http() { http() } else { tcp() };
    // With TLS told apart this is what is left; without, it is everything.
    let transport = if port.mode == MtlsMode::Disable && !protocol.is_auto() {
        ""
    } else {
        "raw_buffer"
    };
    chains.push(chain(
        &label(if protocol.is_http() { "http" } else { "tcp" }),
        Some(starts(here, transport, &[])),
        rest,
    ));
    if port.mode == MtlsMode::Disable && protocol.is_auto() {
        chains.push(chain(&label("tls"), Some(starts(here, "tls", &[])), tcp()));
    }
    chains
}

/// The chains of ports that no service declares: bytes, to where the client wanted to go.
fn passed(port: Option<u16>, mode: MtlsMode, input: &Input) -> Vec<FilterChain> {
    let filters = || tcp_filters(names::cluster::INBOUND_PASSTHROUGH, None, input);
    let label = |what: &str| match port {
        Some(port) => format!("{port}_{what}"),
        None => format!("virtualInbound-catchall-{what}"),
    };
    let mut chains = Vec::new();
    if mode != MtlsMode::Disable {
        let offered: Vec<&str> = match mode {
            MtlsMode::Strict => Vec::new(),
            _ => MESH_HTTP.iter().copied().chain([names::alpn::TCP]).collect(),
        };
        let own = chain(
            &label("mtls"),
            Some(starts(&at(port), "tls", &offered)),
            filters(),
        );
        chains.push(FilterChain {
            transport_socket: Some(tls::mesh(&input.tls, false)),
            ..own
        });
    }
    if mode != MtlsMode::Strict {
        chains.push(chain(&label("tcp"), Some(at(port)), filters()));
    }
    chains
}

fn http_filters(port: &Port, input: &Input) -> Vec<Filter> {
    let cluster = names::inbound_cluster(port.number);
    let routes = Routes::To {
        cluster,
        operation: port.operation.clone(),
    };
    vec![hcm::generate(
        &format!("inbound_0.0.0.0_{}", port.number),
        &input.settings,
        &routes,
    )]
}

fn tcp_filters(cluster: &str, idle: Option<Duration>, input: &Input) -> Vec<Filter> {
    let mut filters = authorize(&input.settings.authorization);
    filters.push(tcp::generate(
        cluster,
        &Target::only(cluster),
        idle,
        &input.settings.logs,
    ));
    filters
}

fn authorize(policies: &[Arc<AuthorizationPolicy>]) -> Vec<Filter> {
    rbac::network(policies)
        .into_iter()
        .map(|config| tcp::network(rbac::NETWORK, config))
        .collect()
}
