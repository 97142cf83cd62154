//! The end of a connection that is not looked into: bytes to a cluster.

use std::time::Duration;

use mesh_proto::envoy::{
    config::listener::v3::{Filter, filter},
    extensions::filters::network::tcp_proxy::v3::{
        TcpProxy,
        tcp_proxy::{ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight},
    },
    r#type::v3::{
        HashPolicy,
        hash_policy::{PolicySpecifier, SourceIp},
    },
};

use super::access_log::{self, Logs, Of};
use crate::{
    generate::value::{any, duration},
    model::policy::Tunnel,
};

pub const NAME: &str = "envoy.filters.network.tcp_proxy";

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub cluster: String,
    pub weight: u32,
    pub tunnel: Option<Tunnel>,
    /// The balancer keeps a client's address with its endpoint.
    pub by_source: bool,
}

impl Target {
    pub fn only(cluster: impl Into<String>) -> Vec<Self> {
        vec![Self {
            cluster: cluster.into(),
            weight: 1,
            tunnel: None,
            by_source: false,
        }]
    }
}

pub fn generate(stat_prefix: &str, targets: &[Target], idle: Option<Duration>, logs: &Logs) -> Filter {
    let specifier = match targets {
        [only] => ClusterSpecifier::Cluster(only.cluster.clone()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .filter(|target| target.weight > 0)
                .map(|target| ClusterWeight {
                    name: target.cluster.clone(),
                    weight: target.weight,
                    ..ClusterWeight::default()
                })
                .collect(),
        }),
    };
    // Both are the filter's and not a target's, so all targets have to agree.
    let tunnel = targets
        .first()
        .and_then(|first| first.tunnel.clone())
        .filter(|tunnel| {
            targets
                .iter()
                .all(|target| target.tunnel.as_ref() == Some(tunnel))
        });
    let by_source = HashPolicy {
        policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})),
    };
    let proxy = TcpProxy {
        tunneling_config: tunnel.map(|tunnel| TunnelingConfig {
            hostname: tunnel.target,
            use_post: tunnel.post,
            ..TunnelingConfig::default()
        }),
        hash_policy: targets
            .iter()
            .any(|target| target.by_source)
            .then_some(by_source)
            .into_iter()
            .collect(),
        stat_prefix: stat_prefix.to_owned(),
        idle_timeout: idle.map(duration),
        access_log: access_log::generate(logs, Of::Connections),
        cluster_specifier: Some(specifier),
        ..TcpProxy::default()
    };
    network(NAME, any(&proxy))
}

pub fn network(name: &str, config: mesh_proto::pb::google::protobuf::Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    }
}
