//! CDS: the clusters of one proxy. Outbound clusters stand for ports of services (`outbound`), inbound clusters for the
//! workload's own ports; three clusters always exist.

use std::time::Duration;

use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3 as core,
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    names,
};
use serde_json::json;

use super::value::{any, duration, metadata};
use crate::model::{Host, Protocol, policy::PortPolicy};

pub mod outbound;
pub mod policy;
pub mod tls;

/// The proxy's own connections to its application come from here, so that redirection leaves them alone.
const INBOUND_SOURCE: &str = "127.0.0.6";
const INBOUND_SOURCE_V6: &str = "::6";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Outbound(Box<outbound::Input>),
    Inbound(Inbound),
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
    pub host: Host,
    pub service_name: String,
    pub namespace: String,
    pub connect_timeout: Duration,
    /// The workload's address is an IPv6 one.
    pub ipv6: bool,
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
        Input::Inbound(own) => {
            let mut cluster = original(name(input), own.connect_timeout);
            cluster.upstream_bind_config = Some(bind(own.ipv6));
            if !own.protocol.is_http() && !own.protocol.is_auto() {
                cluster.typed_extension_protocol_options.clear();
            } else if own.protocol.is_http2() {
                set_protocol(
                    &mut cluster,
                    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Default::default())),
                    }),
                );
            }
            let service = json!({
                "host": own.host.as_str(), "name": own.service_name, "namespace": own.namespace,
            });
            cluster.metadata = Some(metadata([(
                names::metadata::ISTIO,
                json!({ "services": [service] }),
            )]));
            cluster
        }
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
    cluster.typed_extension_protocol_options = [(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
        any(&options),
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
