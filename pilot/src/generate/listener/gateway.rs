//! A gateway's listener: one bound port, and a chain for each server on it. TLS servers are told apart by server name.

use mesh_proto::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChain, FilterChainMatch, Listener},
};

use super::{chain, listener, tls, tls_inspector};
use crate::{
    generate::{
        cluster::tls::IdentitySource,
        filter::{
            hcm::{self, Routes, Settings},
            rbac,
            tcp::{self, Target},
        },
        value::cidr,
    },
    model::{Host, gateway::ServerTls},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    pub bind: String,
    pub port: u16,
    pub chains: Vec<Chain>,
    pub settings: Settings,
    pub source: IdentitySource,
    pub trust_domains: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Server names; empty: all, and connections without TLS.
    pub server_names: Vec<Host>,
    pub destinations: Vec<ipnet::IpNet>,
    /// TLS that is ended here.
    pub tls: Option<ServerTls>,
    /// The connection is TLS, ended here or not.
    pub over_tls: bool,
    pub serves: Serves,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Serves {
    /// HTTP by the route table of this name.
    Http {
        routes: String,
    },
    Tcp(Vec<Target>),
}

pub fn generate(name: String, input: &Input) -> Listener {
    let mut all = listener(
        name.clone(),
        &input.bind,
        input.port,
        TrafficDirection::Outbound,
        true,
    );
    if input.chains.iter().any(|chain| chain.over_tls) {
        all.listener_filters.push(tls_inspector());
    }
    let chains = input.chains.iter().enumerate();
    all.filter_chains = chains
        .map(|(index, own)| one(&format!("{name}_{index}"), own, input))
        .collect();
    all
}

fn one(name: &str, own: &Chain, input: &Input) -> FilterChain {
    let mut wanted = FilterChainMatch {
        prefix_ranges: own.destinations.iter().map(cidr).collect(),
        ..FilterChainMatch::default()
    };
    if own.over_tls && !own.server_names.iter().any(|host| host.as_str() == "*") {
        wanted.server_names = own
            .server_names
            .iter()
            .map(|host| host.as_str().to_owned())
            .collect();
    }
    let http = matches!(own.serves, Serves::Http { .. });
    let filters = match &own.serves {
        Serves::Http { routes } => {
            let prefix = format!("outbound_{}_{}", input.bind, input.port);
            vec![hcm::generate(
                &prefix,
                &input.settings,
                &Routes::Named(routes.clone()),
            )]
        }
        Serves::Tcp(targets) => {
            let prefix = targets
                .first()
                .map(|target| target.cluster.clone())
                .unwrap_or_default();
            let authorize = rbac::network(&input.settings.authorization).into_iter();
            authorize
                .map(|config| tcp::network(rbac::NETWORK, config))
                .chain([tcp::generate(&prefix, targets, None, &input.settings.logs)])
                .collect()
        }
    };
    let wanted = (wanted != FilterChainMatch::default()).then_some(wanted);
    FilterChain {
        transport_socket: own
            .tls
            .as_ref()
            .and_then(|tls| tls::server(tls, &input.source, &input.trust_domains, http)),
        ..chain(name, wanted, filters)
    }
}
