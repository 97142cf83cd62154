//! LDS: what a proxy listens for. `outbound` and `inbound` for sidecars, `gateway` for gateways; `tls` is the server's
//! side of TLS. Two listeners of a sidecar are bound to a port (15001 and 15006); the others are found by the address that
//! the client wanted.

use mesh_proto::{
    envoy::{
        config::{
            core::v3::TrafficDirection,
            listener::v3::{
                Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
            },
        },
        extensions::filters::listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector,
        },
    },
    names,
};

use super::value::{any, boolean, socket};

pub mod gateway;
pub mod inbound;
pub mod outbound;
pub mod tls;
mod wanted;
mod workload;

pub use wanted::inputs;

/// What the HTTP inspector calls the protocols it finds.
pub const PLAIN_HTTP: &[&str] = &["http/1.0", "http/1.1", "h2c"];
/// What a client inside the mesh says about HTTP inside its TLS.
pub const MESH_HTTP: &[&str] = &[names::alpn::HTTP_10, names::alpn::HTTP_11, names::alpn::HTTP_2];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    VirtualOutbound(outbound::Virtual),
    Http(outbound::Http),
    Tcp(outbound::Tcp),
    VirtualInbound(Box<inbound::Input>),
    BoundInbound(Box<inbound::Bound>),
    Gateway(Box<gateway::Input>),
}

pub fn name(input: &Input) -> String {
    match input {
        Input::VirtualOutbound(_) => "virtualOutbound".to_owned(),
        Input::Http(http) => format!("{}_{}", http.place, http.port),
        Input::Tcp(tcp) => format!("{}_{}", tcp.address, tcp.port),
        Input::VirtualInbound(_) => "virtualInbound".to_owned(),
        Input::BoundInbound(bound) => format!("inbound_{}_{}", bound.address, bound.port.number),
        Input::Gateway(gateway) => format!("{}_{}", gateway.bind, gateway.port),
    }
}

pub fn generate(input: &Input) -> Listener {
    let name = name(input);
    match input {
        Input::VirtualOutbound(input) => outbound::virtual_outbound(name, input),
        Input::Http(input) => outbound::http(name, input),
        Input::Tcp(input) => outbound::tcp(name, input),
        Input::VirtualInbound(input) => inbound::generate(name, input),
        Input::BoundInbound(input) => inbound::bound(name, input),
        Input::Gateway(input) => gateway::generate(name, input),
    }
}

/// A listener without chains.
fn listener(name: String, address: &str, port: u16, direction: TrafficDirection, bound: bool) -> Listener {
    Listener {
        name,
        address: Some(socket(address, port)),
        traffic_direction: direction.into(),
        bind_to_port: (!bound).then(|| boolean(false)),
        ..Listener::default()
    }
}

fn chain(name: &str, wanted: Option<FilterChainMatch>, filters: Vec<Filter>) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: wanted,
        filters,
        ..FilterChain::default()
    }
}

fn original_dst() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", any(&OriginalDst {}))
}

fn tls_inspector() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        any(&TlsInspector::default()),
    )
}

fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", any(&HttpInspector {}))
}

fn listener_filter(name: &str, config: mesh_proto::pb::google::protobuf::Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
#[path = "listener/tests.rs"]
mod tests;
