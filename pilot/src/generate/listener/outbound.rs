//! Listeners for what a workload sends. Every connection arrives at `virtualOutbound`, which hands it to the listener of
//! the address that the workload wanted: `10.96.1.2_6379` for one service's TCP port, `0.0.0.0_9080` for all HTTP services
//! of a port. What no listener is there for goes on as it is, or nowhere, as the mesh says.

use std::time::Duration;

use mesh_proto::{
    envoy::{
        config::{
            core::v3::{SubstitutionFormatString, TrafficDirection, substitution_format_string::Format},
            listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
        },
        extensions::filters::{
            common::set_filter_state::v3::{FilterStateValue, filter_state_value},
            network::set_filter_state::v3::Config as SetFilterState,
        },
    },
    names,
};

use super::{PLAIN_HTTP, chain, http_inspector, listener, original_dst, owned, tls_inspector};
use crate::{
    generate::{
        destination::Unknown,
        filter::{
            access_log::Logs,
            hcm::{self, Routes, Settings},
            tcp::{self, Target},
        },
        value::{any, boolean, cidr, duration, inline_string, uint},
    },
    model::Host,
    view::Place,
};

/// `virtualOutbound`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Virtual {
    pub unknown: Unknown,
    pub logs: Logs,
}

/// `0.0.0.0_<port>`: HTTP to all services of this port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    pub place: Place,
    pub port: u16,
    pub settings: Settings,
}

/// `<address>_<port>`: TCP, TLS passed through, or a protocol to be found out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tcp {
    /// `0.0.0.0` for all addresses.
    pub address: String,
    pub port: u16,
    /// The proxy has a socket there.
    pub bound: bool,
    pub chains: Vec<Chain>,
    /// Where connections go that are none of `chains`; `None`: as `unknown` says.
    pub rest: Option<Vec<Target>>,
    pub unknown: Unknown,
    pub sniff: Option<Sniff>,
    pub logs: Logs,
    pub idle: Option<Duration>,
}

/// The protocol is not declared: HTTP is looked into, all else is passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sniff {
    pub settings: Settings,
    /// The name of the route table.
    pub routes: String,
    /// How long to wait for the client's first byte; zero: as long as it takes.
    pub timeout: Duration,
    /// The proxy is a stock Envoy, which has to be told per connection what it offers inside the mesh's TLS.
    pub tell_alpn: bool,
}

/// Connections of certain server names or destinations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    pub server_names: Vec<Host>,
    pub destinations: Vec<ipnet::IpNet>,
    pub targets: Vec<Target>,
}

pub fn virtual_outbound(name: String, input: &Virtual) -> Listener {
    let mut all = listener(
        name,
        "0.0.0.0",
        names::port::OUTBOUND,
        TrafficDirection::Outbound,
        true,
    );
    all.use_original_dst = Some(boolean(true));
    all.listener_filters = vec![original_dst()];
    // Somebody called the proxy's own port: there is no original destination, and a loop must not start.
    let own = FilterChainMatch {
        destination_port: Some(uint(u32::from(names::port::OUTBOUND))),
        ..FilterChainMatch::default()
    };
    let nowhere = tcp::generate(
        names::cluster::BLACK_HOLE,
        &Target::only(names::cluster::BLACK_HOLE),
        None,
        &Logs::default(),
    );
    all.filter_chains = vec![chain("virtualOutbound-blackhole", Some(own), vec![nowhere])];
    all.default_filter_chain = Some(chain(
        "virtualOutbound-catchall-tcp",
        None,
        vec![unknown(&input.unknown, &input.logs)],
    ));
    all
}

/// What happens to connections to unknown destinations.
fn unknown(unknown: &Unknown, logs: &Logs) -> Filter {
    let cluster = unknown.cluster();
    tcp::generate(cluster, &Target::only(cluster), None, logs)
}

pub fn http(name: String, input: &Http) -> Listener {
    let mut http = listener(
        name.clone(),
        &input.place.to_string(),
        input.port,
        TrafficDirection::Outbound,
        input.place.bound,
    );
    let manager = hcm::generate(
        &format!("outbound_{name}"),
        &input.settings,
        &Routes::Named(input.port.to_string()),
    );
    http.filter_chains = vec![chain("http", None, vec![manager])];
    http
}

pub fn tcp(name: String, input: &Tcp) -> Listener {
    let mut tcp = listener(
        name.clone(),
        &input.address,
        input.port,
        TrafficDirection::Outbound,
        input.bound,
    );
    if input.chains.iter().any(|chain| !chain.server_names.is_empty()) {
        tcp.listener_filters.push(tls_inspector());
    }
    if let Some(sniff) = &input.sniff {
        tcp.listener_filters.push(http_inspector());
        tcp.listener_filters_timeout = Some(duration(sniff.timeout));
        tcp.continue_on_listener_filters_timeout = true;
        tcp.filter_chains.extend(sniffed(&name, sniff));
    }
    tcp.filter_chains
        .extend(input.chains.iter().enumerate().map(|(index, own)| {
            let filter = tcp::generate(&stat_name(&own.targets), &own.targets, input.idle, &input.logs);
            chain(&format!("{name}_{index}"), Some(condition(own)), vec![filter])
        }));
    let rest = match &input.rest {
        Some(targets) => tcp::generate(&stat_name(targets), targets, input.idle, &input.logs),
        None => unknown(&input.unknown, &input.logs),
    };
    let mut filters = Vec::new();
    if input.sniff.as_ref().is_some_and(|sniff| sniff.tell_alpn) {
        filters.push(offer(names::alpn::TCP));
    }
    filters.push(rest);
    tcp.default_filter_chain = Some(chain("tcp", None, filters));
    tcp
}

fn stat_name(targets: &[Target]) -> String {
    targets.first().map_or_else(
        || names::cluster::BLACK_HOLE.to_owned(),
        |target| target.cluster.clone(),
    )
}

fn condition(own: &Chain) -> FilterChainMatch {
    let mut wanted = FilterChainMatch {
        prefix_ranges: own.destinations.iter().map(cidr).collect(),
        ..FilterChainMatch::default()
    };
    // "*" is every name, which is no condition.
    if !own.server_names.iter().any(|host| host.as_str() == "*") {
        wanted.server_names = own
            .server_names
            .iter()
            .map(|host| host.as_str().to_owned())
            .collect();
    }
    if !own.server_names.is_empty() {
        "tls".clone_into(&mut wanted.transport_protocol);
    }
    wanted
}

/// Chains for HTTP that was found by looking.
fn sniffed(name: &str, sniff: &Sniff) -> Vec<FilterChain> {
    let manager = |protocols: &[&str], offered: Option<&str>| {
        let wanted = FilterChainMatch {
            application_protocols: owned(protocols),
            ..FilterChainMatch::default()
        };
        let manager = hcm::generate(
            &format!("outbound_{name}"),
            &sniff.settings,
            &Routes::Named(sniff.routes.clone()),
        );
        let filters = offered.map(offer).into_iter().chain([manager]).collect();
        chain(
            &format!("http_{}", protocols.last().copied().unwrap_or_default()),
            Some(wanted),
            filters,
        )
    };
    if sniff.tell_alpn {
        let h2 = format!("{},h2", names::alpn::HTTP_2);
        vec![
            manager(&PLAIN_HTTP[..2], None),
            manager(&PLAIN_HTTP[2..], Some(&h2)),
        ]
    } else {
        vec![manager(PLAIN_HTTP, None)]
    }
}

/// Sets what this connection's upstream TLS offers, in place of the cluster's own list.
fn offer(protocols: &str) -> Filter {
    let value = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(inline_string(protocols))),
        ..SubstitutionFormatString::default()
    };
    let state = FilterStateValue {
        key: Some(filter_state_value::Key::ObjectKey(
            "envoy.network.application_protocols".to_owned(),
        )),
        value: Some(filter_state_value::Value::FormatString(value)),
        ..FilterStateValue::default()
    };
    let config = SetFilterState {
        on_new_connection: vec![state],
        ..SetFilterState::default()
    };
    tcp::network("envoy.filters.network.set_filter_state", any(&config))
}
