//! What one resource refers to. Pure: from these answers come the subscriptions, and who waits for whom.

use std::{collections::BTreeSet, sync::Arc};

use crate::config::{
    action::{Action, Clusters},
    chain::{Chain, TcpClusters, Terminal},
    cluster::{Cluster, Kind},
    hcm::RouteSource,
    listener::Listener,
    route::RouteConfig,
    transport::{SdsSource, SecretRef, Validation},
};

/// Names, in order.
pub type Names = BTreeSet<Arc<str>>;

/// The name under which a cluster's endpoints come by EDS.
pub fn endpoints(cluster: &Cluster) -> Option<&Arc<str>> {
    match &cluster.kind {
        Kind::Eds { service } => Some(service),
        _ => None,
    }
}

/// The secrets that a cluster's TLS names, of those that come on this stream.
pub fn cluster_secrets(cluster: &Cluster, names: &mut Names) {
    for tls in cluster.transports() {
        secrets(&tls.certificates, tls.validation.as_ref(), names);
    }
}

/// The secrets that a listener's TLS names, of those that come on this stream.
pub fn listener_secrets(listener: &Listener, names: &mut Names) {
    for tls in chains(listener).filter_map(|chain| chain.tls.as_ref()) {
        secrets(&tls.certificates, tls.validation.as_ref(), names);
    }
}

fn secrets(certificates: &[SecretRef], validation: Option<&Validation>, names: &mut Names) {
    let trusted = validation.and_then(|validation| validation.trusted.as_ref());
    for reference in certificates.iter().chain(trusted) {
        if let SecretRef::Sds {
            name,
            source: SdsSource::Ads,
        } = reference
        {
            names.insert(name.clone());
        }
    }
}

/// The route configurations that a listener takes by name.
pub fn listener_routes(listener: &Listener, names: &mut Names) {
    for chain in chains(listener) {
        if let Terminal::Http(hcm) = &chain.terminal
            && let RouteSource::Rds(name) = &hcm.routes
        {
            names.insert(name.clone());
        }
    }
}

/// The clusters that a listener names itself: in TCP proxies and in routes of its own.
pub fn listener_clusters(listener: &Listener, names: &mut Names) {
    for chain in chains(listener) {
        match &chain.terminal {
            Terminal::Tcp(proxy) => match &proxy.clusters {
                TcpClusters::Single(name) => {
                    names.insert(name.clone());
                }
                TcpClusters::Weighted { choices, .. } => {
                    names.extend(choices.iter().map(|(name, _)| name.clone()))
                }
            },
            Terminal::Http(hcm) => {
                if let RouteSource::Inline(routes) = &hcm.routes {
                    route_clusters(routes, names);
                }
            }
            Terminal::Echo | Terminal::Direct(_) => {}
        }
    }
}

/// The clusters that a route configuration names.
pub fn route_clusters(routes: &RouteConfig, names: &mut Names) {
    for route in routes.vhosts.iter().flat_map(|vhost| &vhost.routes) {
        let Action::Forward(forward) = &route.action else {
            continue;
        };
        match &forward.clusters {
            Clusters::Single(name) => {
                if !names.contains(name) {
                    names.insert(name.clone());
                }
            }
            Clusters::Weighted(weighted) => {
                names.extend(weighted.choices.iter().map(|choice| choice.cluster.clone()))
            }
            Clusters::Header(_) => {}
        }
        names.extend(forward.mirrors.iter().map(|mirror| mirror.cluster.clone()));
    }
}

fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<Chain>> {
    listener.chains.iter().chain(&listener.default_chain)
}
