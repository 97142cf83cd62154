//! From a view to xDS resources, in two steps. [`inputs`] looks at a view and says what is wanted; an [`Input`] holds
//! everything that its resource is made from, and so is the cache key. [`Input::encode`] is a pure function of it.
//!
//! | Module | What it makes |
//! | --- | --- |
//! | [`cluster`], [`endpoint`] | CDS and EDS, both from the list in [`destination`] |
//! | [`listener`], [`route`] | LDS and RDS, for sidecars and gateways |
//! | [`filter`] | what stands in listeners: connection managers, authorization, logs, traces, faults |
//! | [`secret`], [`name_table`] | credentials of gateways; names for the proxies' DNS |
//! | [`own`] | the ports of the workload itself |
//! | [`value`] | protobuf's small values |

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh_proto::{node::NodeKind, xds::Type};
use prost::Message;

use crate::{snapshot::Snapshot, view::View};

pub mod cluster;
pub mod destination;
pub mod endpoint;
pub mod filter;
pub mod listener;
pub mod name_table;
pub mod own;
pub mod route;
pub mod secret;
pub mod value;

/// What one resource is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Cluster(cluster::Input),
    Endpoint(endpoint::Input),
    Listener(Box<listener::Input>),
    Route(route::Input),
    Secret(secret::Input),
    NameTable(name_table::Input),
}

impl Input {
    pub fn kind(&self) -> Type {
        match self {
            Self::Cluster(_) => Type::Cluster,
            Self::Endpoint(_) => Type::Endpoint,
            Self::Listener(_) => Type::Listener,
            Self::Route(_) => Type::Route,
            Self::Secret(_) => Type::Secret,
            Self::NameTable(_) => Type::NameTable,
        }
    }

    pub fn name(&self) -> String {
        match self {
            Self::Cluster(input) => cluster::name(input),
            Self::Endpoint(input) => input.cluster.clone(),
            Self::Listener(input) => listener::name(input),
            Self::Route(input) => input.name.clone(),
            Self::Secret(input) => input.name.clone(),
            Self::NameTable(_) => name_table::NAME.to_owned(),
        }
    }

    pub fn encode(&self) -> Bytes {
        match self {
            Self::Cluster(input) => cluster::generate(input).encode_to_vec(),
            Self::Endpoint(input) => endpoint::generate(input).encode_to_vec(),
            Self::Listener(input) => listener::generate(input).encode_to_vec(),
            Self::Route(input) => route::generate(input).encode_to_vec(),
            Self::Secret(input) => secret::generate(input).encode_to_vec(),
            Self::NameTable(input) => name_table::generate(input).encode_to_vec(),
        }
        .into()
    }
}

/// Everything of one type that a viewer gets. Of inputs with one name, the first counts.
pub fn inputs(view: &View<'_>, kind: Type) -> Vec<Input> {
    let mut inputs = shared(view, kind);
    inputs.extend(own(view, kind));
    inputs
}

/// The part that is the same for all viewers that are alike once they are narrowed ([`crate::view::Viewer::narrowed`]).
pub fn shared(view: &View<'_>, kind: Type) -> Vec<Input> {
    match kind {
        Type::Cluster => outbound_clusters(view).into_iter().map(Input::Cluster).collect(),
        Type::Endpoint => {
            let eds = destination::all(view)
                .into_iter()
                .filter(|destination| destination.uses_eds(view));
            eds.map(|destination| Input::Endpoint(destination.endpoints(view)))
                .collect()
        }
        Type::Listener => Vec::new(),
        Type::Route => {
            let tables = if view.is_gateway() {
                route::gateway::inputs(view)
            } else {
                route::sidecar::inputs(view)
            };
            tables.into_iter().map(Input::Route).collect()
        }
        Type::Secret => secrets(view).into_iter().map(Input::Secret).collect(),
        Type::NameTable => name_table::input(view)
            .map(Input::NameTable)
            .into_iter()
            .collect(),
    }
}

/// The part that is about the workload itself.
pub fn own(view: &View<'_>, kind: Type) -> Vec<Input> {
    match kind {
        Type::Cluster => own_clusters(view).into_iter().map(Input::Cluster).collect(),
        Type::Listener => unique(listener::inputs(view))
            .into_iter()
            .map(|input| Input::Listener(Box::new(input)))
            .collect(),
        Type::Endpoint | Type::Route | Type::Secret | Type::NameTable => Vec::new(),
    }
}

/// Since when resources of this type can have changed for this kind of proxy: the youngest of the indexes that they are
/// made from; endpoints, and sidecars' rules for requests, apart.
pub fn since(snapshot: &Snapshot, kind: Type, node: NodeKind) -> u64 {
    let gateway = node == NodeKind::Router;
    // Every view begins with these.
    let view = [
        snapshot.mesh.since,
        snapshot.services.since,
        snapshot.sidecars.since,
    ];
    // What a gateway sees at all depends on its rules.
    let rules = [snapshot.gateways.since, snapshot.routes.since];
    let own: &[u64] = match kind {
        Type::Cluster => &[
            snapshot.policies.since,
            snapshot.traits.since,
            snapshot.by_name.resolved,
        ],
        Type::Endpoint => &[snapshot.policies.since, snapshot.peers.since],
        Type::Listener => &[
            snapshot.policies.since,
            snapshot.traits.since,
            snapshot.connections.since,
            snapshot.peers.since,
            snapshot.tokens.since,
            snapshot.authorization.since,
            snapshot.telemetries.since,
        ],
        Type::Route => &[snapshot.policies.since],
        Type::Secret => &[snapshot.credentials.since],
        Type::NameTable => &[snapshot.by_name.headless],
    };
    let rules = rules.into_iter().filter(|_| gateway);
    view.into_iter()
        .chain(rules)
        .chain(own.iter().copied())
        .max()
        .unwrap_or_default()
}

/// As [`since`], with all that they are made from.
pub fn since_whole(snapshot: &Snapshot, kind: Type, node: NodeKind) -> u64 {
    let since = since(snapshot, kind, node);
    match kind {
        Type::Endpoint => since.max(snapshot.endpoints.since),
        Type::Route => since.max(snapshot.routes.since),
        _ => since,
    }
}

fn outbound_clusters(view: &View<'_>) -> Vec<cluster::Input> {
    let outbound = destination::all(view).into_iter().filter(|destination| {
        // A name that stands for many cannot be resolved.
        !(destination.service.host.is_wildcard() && destination.needs_name())
    });
    let mut inputs: Vec<cluster::Input> = outbound
        .map(|destination| cluster::Input::Outbound(Box::new(destination.cluster(view))))
        .collect();
    inputs.push(cluster::Input::BlackHole);
    if !view.is_gateway() {
        let connect_timeout = view.mesh().connect_timeout.0;
        inputs.push(cluster::Input::Passthrough { connect_timeout });
    }
    inputs
}

fn own_clusters(view: &View<'_>) -> Vec<cluster::Input> {
    if view.is_gateway() {
        return Vec::new();
    }
    let (connect_timeout, ipv6) = (view.mesh().connect_timeout.0, view.viewer.ipv6);
    let mut inputs = vec![cluster::Input::InboundPassthrough {
        connect_timeout,
        ipv6,
    }];
    inputs.extend(own::ports(view).into_iter().map(|port| {
        cluster::Input::Inbound(Box::new(cluster::Inbound {
            port: port.number,
            protocol: port.protocol,
            service: port.service.map(|service| cluster::OwnService {
                host: service.host.clone(),
                name: service.name.clone(),
                namespace: service.namespace.clone(),
            }),
            connect_timeout,
            ipv6: port.endpoint.map_or(ipv6, |endpoint| endpoint.is_ipv6()),
            endpoint: port.endpoint,
            pool: port.pool.unwrap_or_default(),
        }))
    }));
    inputs
}

/// Credentials of the gateway's own namespace; a sidecar gets none.
fn secrets(view: &View<'_>) -> Vec<secret::Input> {
    if !view.is_gateway() {
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let own = view.snapshot.credentials.of_namespace(&view.viewer.namespace);
    own.iter()
        .flat_map(secret::inputs)
        .filter(|input| names.insert(input.name.clone()))
        .collect()
}

/// The first listener of each name.
fn unique(inputs: Vec<listener::Input>) -> Vec<listener::Input> {
    let mut names = BTreeSet::new();
    inputs
        .into_iter()
        .filter(|input| names.insert(listener::name(input)))
        .collect()
}

#[cfg(test)]
#[path = "generate/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "generate/scope_tests.rs"]
mod scope_tests;
