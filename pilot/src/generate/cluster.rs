//! CDS: the clusters of one proxy. Outbound clusters stand for ports of services (`outbound`), inbound clusters for the
//! workload's own ports; three clusters always exist.

use std::{net::SocketAddr, time::Duration};

use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3 as core,
            endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig},
        },
    },
    names,
};
use serde_json::json;

use super::value::{any, duration, metadata, socket};
use crate::model::{
    Host, Protocol,
    policy::{ConnectionPool, PortPolicy},
};

pub mod outbound;
pub mod policy;
pub mod tls;

/// The proxy's own connections to its application come from here, so that redirection leaves them alone.
const INBOUND_SOURCE: &str = "127.0.0.6";
const INBOUND_SOURCE_V6: &str = "::6";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Outbound(Box<outbound::Input>),
    Inbound(Box<Inbound>),
    /// To where the client wanted to go.
    Passthrough {
        connect_timeout: Duration,
    },
    /// To nowhere.
    BlackHole,
    /// To the workload, on a port that no service declares.
    InboundPassthrough {
        connect_timeout: Duration,
        ipv6: bool,
    },
}

/// One port of the workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inbound {
    pub port: u16,
    pub protocol: Protocol,
    pub service: Option<OwnService>,
    pub connect_timeout: Duration,
    /// The address that is connected to is an IPv6 one.
    pub ipv6: bool,
    /// `None`: where the client wanted to go.
    pub endpoint: Option<SocketAddr>,
    pub pool: ConnectionPool,
}

/// The service that a port of the workload belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnService {
    pub host: Host,
    pub name: String,
    pub namespace: String,
}

pub fn name(input: &Input) -> String {
    match input {
        Input::Outbound(outbound) => outbound.name(),
        Input::Inbound(inbound) => names::inbound_cluster(inbound.port),
        Input::Passthrough { .. } => names::cluster::PASSTHROUGH.to_owned(),
        Input::BlackHole => names::cluster::BLACK_HOLE.to_owned(),
        Input::InboundPassthrough { .. } => names::cluster::INBOUND_PASSTHROUGH.to_owned(),
    }
}

pub fn generate(input: &Input) -> Cluster {
    match input {
        Input::Outbound(outbound) => outbound::generate(outbound),
        Input::Inbound(own) => inbound(name(input), own),
        Input::Passthrough { connect_timeout } => original(name(input), *connect_timeout),
        Input::BlackHole => Cluster {
            name: name(input),
            connect_timeout: Some(duration(Duration::from_secs(1))),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
            ..Cluster::default()
        },
        Input::InboundPassthrough {
            connect_timeout,
            ipv6,
        } => {
            let mut cluster = original(name(input), *connect_timeout);
            cluster.upstream_bind_config = Some(bind(*ipv6));
            cluster
        }
    }
}

fn inbound(name: String, own: &Inbound) -> Cluster {
    let pool = &own.pool;
    let timeout = pool.connect_timeout.unwrap_or(own.connect_timeout);
    let mut cluster = original(name, timeout);
    cluster.upstream_bind_config = Some(bind(own.ipv6));
    cluster.circuit_breakers = Some(policy::breakers(&PortPolicy {
        pool: Some(pool.clone()),
        ..PortPolicy::default()
    }));
    cluster.upstream_connection_options = outbound::keepalive(pool);
    if let Some(endpoint) = own.endpoint {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        cluster.set_lb_policy(LbPolicy::RoundRobin);
        cluster.load_assignment = Some(only(&cluster.name, endpoint));
    }
    cluster.typed_extension_protocol_options.clear();
    // The client's own version, unless the port or the user says another one.
    let follow = !own.protocol.is_http2() && pool.h2_upgrade != Some(true);
    if let Some(options) = outbound::protocol_options(pool, own.protocol, follow) {
        set_options(&mut cluster, &options);
    }
    let services: Vec<_> = own.service.iter().map(|service| {
        json!({ "host": service.host.as_str(), "name": service.name, "namespace": service.namespace })
    }).collect();
    cluster.metadata = Some(metadata([(
        names::metadata::ISTIO,
        json!({ "services": services }),
    )]));
    cluster
}

/// One address.
fn only(cluster: &str, address: SocketAddr) -> ClusterLoadAssignment {
    let endpoint = Endpoint {
        address: Some(socket(&address.ip().to_string(), address.port())),
        ..Endpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint {
                host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
                ..LbEndpoint::default()
            }],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// A cluster that sends to the connection's original destination, in the client's own HTTP version.
fn original(name: String, connect_timeout: Duration) -> Cluster {
    let mut cluster = Cluster {
        name,
        connect_timeout: Some(duration(connect_timeout)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        circuit_breakers: Some(policy::breakers(&PortPolicy::default())),
        ..Cluster::default()
    };
    cluster.set_lb_policy(LbPolicy::ClusterProvided);
    set_protocol(
        &mut cluster,
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions::default()),
            http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
            ..UseDownstreamHttpConfig::default()
        }),
    );
    cluster
}

fn set_protocol(cluster: &mut Cluster, options: UpstreamProtocolOptions) {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        ..Default::default()
    };
    set_options(cluster, &options);
}

fn set_options(cluster: &mut Cluster, options: &HttpProtocolOptions) {
    cluster.typed_extension_protocol_options = [(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
        any(options),
    )]
    .into();
}

fn bind(ipv6: bool) -> core::BindConfig {
    let address = if ipv6 { INBOUND_SOURCE_V6 } else { INBOUND_SOURCE };
    core::BindConfig {
        source_address: Some(core::SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
            ..core::SocketAddress::default()
        }),
        ..core::BindConfig::default()
    }
}

#[cfg(test)]
#[path = "cluster/tests.rs"]
mod tests;
