//! EDS: the endpoints of one cluster, in groups by locality.
//!
//! Endpoints that cannot take requests are left out; draining ones are used only when no other is left, and are else told
//! as such, so that what they are doing for a client may end there. With locality balancing switched on, or where the
//! service prefers near endpoints, groups get priorities by their distance from the client, or the weights of `distribute`.

use std::collections::BTreeMap;

use mesh_proto::{
    envoy::config::{
        core::v3::{self as core, HealthStatus},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
    names,
};
use serde_json::json;

use super::value::{metadata, pipe, socket, uint};
use crate::model::endpoint::{Address, Locality};

pub mod locality;

/// Everything that one assignment is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The cluster's name.
    pub cluster: String,
    pub groups: Vec<Group>,
}

/// Endpoints of one locality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// `None`: the sum of its members.
    pub weight: Option<u32>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    pub address: Address,
    pub port: u16,
    /// At least 1.
    pub weight: u32,
    /// It takes the mesh's TLS.
    pub mesh_tls: bool,
    /// It takes nothing new.
    pub draining: bool,
    /// `reviews-v1;default;reviews;v1;Kubernetes`
    pub workload: String,
}

pub fn generate(input: &Input) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: input.cluster.clone(),
        endpoints: input.groups.iter().map(group).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn group(group: &Group) -> LocalityLbEndpoints {
    let sum = group
        .members
        .iter()
        .fold(0_u32, |sum, member| sum.saturating_add(member.weight));
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: group.locality.region.clone(),
            zone: group.locality.zone.clone(),
            sub_zone: group.locality.subzone.clone(),
        }),
        lb_endpoints: group.members.iter().map(member).collect(),
        load_balancing_weight: Some(uint(group.weight.unwrap_or(sum).max(1))),
        priority: group.priority,
        ..LocalityLbEndpoints::default()
    }
}

fn member(member: &Member) -> LbEndpoint {
    let address = match &member.address {
        Address::Ip(ip) => socket(&ip.to_string(), member.port),
        Address::Name(name) => socket(name, member.port),
        Address::Pipe(path) => pipe(path),
    };
    let mut about: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    if !member.workload.is_empty() {
        about.insert(names::metadata::ISTIO, json!({ "workload": member.workload }));
    }
    if member.mesh_tls {
        let mode = json!({ (names::metadata::TLS_MODE): names::metadata::ISTIO });
        about.insert(names::metadata::TRANSPORT_SOCKET_MATCH, mode);
    }
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(address),
            ..EnvoyEndpoint::default()
        })),
        metadata: (!about.is_empty()).then(|| metadata(about)),
        load_balancing_weight: Some(uint(member.weight)),
        health_status: if member.draining {
            HealthStatus::Draining.into()
        } else {
            HealthStatus::Unknown.into()
        },
    }
}
