//! A cluster of one port (and perhaps one subset) of one service, as a client's proxy sees it.

use std::{collections::BTreeSet, time::Duration};

use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster, UpstreamConnectionOptions,
                cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy},
            },
            core::v3 as core,
            endpoint::v3::ClusterLoadAssignment,
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

use super::{policy, tls};
use crate::{
    generate::{
        endpoint,
        value::{ads, any, duration, metadata, uint},
    },
    model::{
        Host, Origin, Protocol, Resolution,
        policy::{Algorithm, ClientTlsMode, ConnectionPool, PortPolicy},
    },
};

/// Everything that the cluster is made from, and so its cache key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    pub host: Host,
    pub service_name: String,
    pub namespace: String,
    pub port: u16,
    pub protocol: Protocol,
    pub resolution: Resolution,
    pub subset: Option<String>,
    /// The object behind `policy`.
    pub origin: Option<Origin>,
    pub policy: PortPolicy,
    /// What the server may be; empty: anybody of the mesh.
    pub identities: BTreeSet<String>,
    pub mtls: Mtls,
    pub identity_source: tls::IdentitySource,
    pub connect_timeout: Duration,
    pub dns_refresh: Duration,
    /// Endpoints that the proxy resolves itself.
    pub dns: Option<endpoint::Input>,
}

/// Whether the mesh's TLS is used where no DestinationRule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mtls {
    Never,
    /// Each endpoint says.
    PerEndpoint,
    /// All of them take it; there is nothing in the cluster by which one could say so.
    Always,
}

impl Input {
    pub fn name(&self) -> String {
        names::outbound_cluster(
            self.port,
            self.subset.as_deref().unwrap_or_default(),
            self.host.as_str(),
        )
    }
}

/// The discovery that counts: a balancer of PASSTHROUGH sends to where the client wanted to go.
pub fn discovery(resolution: Resolution, policy: &PortPolicy) -> DiscoveryType {
    let passthrough = policy
        .balancer
        .as_ref()
        .is_some_and(|b| b.algorithm == Algorithm::Passthrough);
    match resolution {
        _ if passthrough => DiscoveryType::OriginalDst,
        Resolution::Static => DiscoveryType::Eds,
        Resolution::Headless | Resolution::None => DiscoveryType::OriginalDst,
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
    }
}

pub fn generate(input: &Input) -> Cluster {
    let name = input.name();
    let kind = discovery(input.resolution, &input.policy);
    let pool = input.policy.pool.clone().unwrap_or_default();
    let mut cluster = Cluster {
        name: name.clone(),
        connect_timeout: Some(duration(
            input
                .policy
                .pool
                .as_ref()
                .and_then(|pool| pool.connect_timeout)
                .unwrap_or(input.connect_timeout),
        )),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        circuit_breakers: Some(policy::breakers(&input.policy)),
        outlier_detection: input.policy.outliers.as_ref().map(policy::outliers),
        common_lb_config: Some(policy::common(&input.policy)),
        metadata: Some(describe(input)),
        upstream_connection_options: keepalive(&pool),
        ..Cluster::default()
    };
    policy::balance(&mut cluster, input.policy.balancer.as_ref());
    match kind {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: name,
            });
        }
        DiscoveryType::OriginalDst => cluster.set_lb_policy(LbPolicy::ClusterProvided),
        _ => resolve(&mut cluster, input),
    }
    if let Some(mut options) = protocol_options(&pool, input.protocol, input.protocol.is_auto()) {
        options.outlier_detection = input.policy.outliers.as_ref().and_then(policy::errors);
        let options = any(&options);
        cluster.typed_extension_protocol_options = [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            options,
        )]
        .into();
    }
    secure(&mut cluster, input);
    if let Some(version) = input.policy.proxy_protocol {
        tls::introduce(&mut cluster, version);
    }
    cluster
}

/// Endpoints by DNS: Envoy's own fields, which stock Envoy still reads; the newer typed form says the same.
#[allow(deprecated)]
fn resolve(cluster: &mut Cluster, input: &Input) {
    cluster.set_dns_lookup_family(DnsLookupFamily::All);
    cluster.respect_dns_ttl = true;
    cluster.dns_refresh_rate = Some(duration(input.dns_refresh));
    let assignment = input.dns.as_ref().map(endpoint::generate);
    cluster.load_assignment = Some(assignment.unwrap_or_else(|| ClusterLoadAssignment {
        cluster_name: cluster.name.clone(),
        ..ClusterLoadAssignment::default()
    }));
}

/// Who this cluster is, for metrics, logs and people.
fn describe(input: &Input) -> core::Metadata {
    let service = json!({
        "host": input.host.as_str(),
        "name": input.service_name,
        "namespace": input.namespace,
    });
    let mut istio = json!({ "services": [service] });
    if let Some(subset) = &input.subset {
        istio["subset"] = subset.as_str().into();
    }
    if let Some(origin) = &input.origin {
        istio["config"] = origin.config_path().into();
    }
    metadata([(names::metadata::ISTIO, istio)])
}

pub(super) fn keepalive(pool: &ConnectionPool) -> Option<UpstreamConnectionOptions> {
    let keepalive = pool.keepalive.as_ref()?;
    let whole = |value: Duration| uint(u32::try_from(value.as_secs()).unwrap_or(u32::MAX));
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: keepalive.probes.map(uint),
            keepalive_time: keepalive.time.map(whole),
            keepalive_interval: keepalive.interval.map(whole),
        }),
        ..UpstreamConnectionOptions::default()
    })
}

/// What HTTP is spoken to the endpoints; nothing is said for other protocols. With `follow` it is the client's.
pub(super) fn protocol_options(
    pool: &ConnectionPool,
    protocol: Protocol,
    follow: bool,
) -> Option<HttpProtocolOptions> {
    if !(protocol.is_http() || protocol.is_auto()) {
        return None;
    }
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: pool.max_concurrent_streams.map(uint),
        connection_keepalive: pool.http2_keepalive.map(|pings| core::KeepaliveSettings {
            interval: Some(duration(pings.interval)),
            timeout: Some(duration(pings.timeout)),
            ..core::KeepaliveSettings::default()
        }),
        ..core::Http2ProtocolOptions::default()
    };
    let wants_http2 = pool.h2_upgrade.unwrap_or(protocol.is_http2());
    let upstream = if follow || pool.use_client_protocol {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2),
            ..UseDownstreamHttpConfig::default()
        })
    } else {
        let config = if wants_http2 {
            ProtocolConfig::Http2ProtocolOptions(http2)
        } else {
            ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())
        };
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let common = core::HttpProtocolOptions {
        idle_timeout: pool.http_idle_timeout.map(duration),
        max_requests_per_connection: pool.max_requests_per_connection.filter(|n| *n > 0).map(uint),
        max_connection_duration: pool.max_connection_duration.map(duration),
        ..core::HttpProtocolOptions::default()
    };
    let said = common != core::HttpProtocolOptions::default();
    Some(HttpProtocolOptions {
        common_http_protocol_options: said.then_some(common),
        upstream_protocol_options: Some(upstream),
        ..HttpProtocolOptions::default()
    })
}

fn secure(cluster: &mut Cluster, input: &Input) {
    let subset = input.subset.as_deref().unwrap_or_default();
    let sni = names::outbound_sni(input.port, subset, input.host.as_str());
    // What an h2 upgrade changes about the offer.
    let upgraded = input.policy.pool.as_ref().and_then(|pool| pool.h2_upgrade) == Some(true);
    let protocol = if upgraded && input.protocol == Protocol::Http {
        Protocol::Http2
    } else {
        input.protocol
    };
    let mesh = |identities: &BTreeSet<String>, sni: &str| {
        tls::mesh_socket(&input.identity_source, identities, sni, protocol)
    };
    match &input.policy.tls {
        Some(own) if own.mode == ClientTlsMode::Disable => {}
        Some(own) if own.mode == ClientTlsMode::MeshMutual => {
            let named: BTreeSet<String> = own.subject_alt_names.iter().cloned().collect();
            let identities = if named.is_empty() {
                &input.identities
            } else {
                &named
            };
            cluster.transport_socket = Some(mesh(identities, own.sni.as_deref().unwrap_or(&sni)));
        }
        Some(own) => {
            cluster.transport_socket = Some(tls::client_socket(own, input.host.as_str(), protocol));
        }
        None => match input.mtls {
            Mtls::Never => {}
            Mtls::PerEndpoint => {
                cluster.transport_socket_matches = tls::automatic(mesh(&input.identities, &sni));
            }
            Mtls::Always => cluster.transport_socket = Some(mesh(&input.identities, &sni)),
        },
    }
}
