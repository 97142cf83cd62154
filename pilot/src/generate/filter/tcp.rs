//! The end of a connection that is not looked into: bytes to a cluster.

use std::time::Duration;

use mesh_proto::envoy::{
    config::listener::v3::{Filter, filter},
    extensions::filters::network::tcp_proxy::v3::{
        TcpProxy,
        tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight},
    },
};

use super::access_log::{self, Logs, Of};
use crate::generate::value::{any, duration};

pub const NAME: &str = "envoy.filters.network.tcp_proxy";

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub cluster: String,
    pub weight: u32,
}

impl Target {
    pub fn only(cluster: impl Into<String>) -> Vec<Self> {
        vec![Self {
            cluster: cluster.into(),
            weight: 1,
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
    let proxy = TcpProxy {
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
