//! Does everything that is named exist? Asked of configuration that comes whole, from a file: nothing will come later
//! that could fill a gap.

use super::Snapshot;
use crate::config::{
    Reject,
    action::{Action, Clusters},
    chain::{Chain, TcpClusters, Terminal},
    cluster::{Cluster, Kind},
    hcm::{Hcm, RouteSource, TracingProvider},
    log::{AccessLog, Sink},
    route::RouteConfig,
    transport::{SdsSource, SecretRef},
};

/// The first name that nothing has.
pub fn complete(snapshot: &Snapshot) -> Result<(), Reject> {
    let mut listeners: Vec<_> = snapshot.listeners.values().collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in listeners {
        let at = format!("listener {:?}", listener.name);
        for chain in listener.chains.iter().chain(&listener.default_chain) {
            self::chain(snapshot, chain).map_err(|reject| Reject::new(&at, reject))?;
        }
        logs(snapshot, &listener.access_log).map_err(|reject| Reject::new(&at, reject))?;
    }
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    for cluster in clusters {
        self::cluster(snapshot, cluster)
            .map_err(|reject| Reject::new(format!("cluster {:?}", cluster.name), reject))?;
    }
    Ok(())
}

fn chain(snapshot: &Snapshot, chain: &Chain) -> Result<(), Reject> {
    if let Some(tls) = &chain.tls {
        let trusted = tls
            .validation
            .iter()
            .filter_map(|validation| validation.trusted.as_ref());
        for reference in tls.certificates.iter().chain(trusted) {
            secret(snapshot, reference)?;
        }
    }
    match &chain.terminal {
        Terminal::Tcp(proxy) => {
            logs(snapshot, &proxy.access_log)?;
            match &proxy.clusters {
                TcpClusters::Single(name) => named_cluster(snapshot, name),
                TcpClusters::Weighted { choices, .. } => choices
                    .iter()
                    .try_for_each(|(name, _)| named_cluster(snapshot, name)),
            }
        }
        Terminal::Http(hcm) => self::hcm(snapshot, hcm),
        Terminal::Echo | Terminal::Direct(_) => Ok(()),
    }
}

fn hcm(snapshot: &Snapshot, hcm: &Hcm) -> Result<(), Reject> {
    logs(snapshot, &hcm.access_log)?;
    if let Some(TracingProvider::OpenTelemetry { cluster, .. }) =
        hcm.tracing.as_ref().map(|tracing| &tracing.provider)
    {
        named_cluster(snapshot, cluster)?;
    }
    match &hcm.routes {
        RouteSource::Inline(config) => routes(snapshot, config),
        RouteSource::Rds(name) => match snapshot.routes.get(name) {
            Some(config) => routes(snapshot, config),
            None => Err(Reject::new(
                "rds",
                format!("there is no route configuration {name:?}"),
            )),
        },
    }
}

fn routes(snapshot: &Snapshot, config: &RouteConfig) -> Result<(), Reject> {
    for vhost in &config.vhosts {
        for (n, route) in vhost.routes.iter().enumerate() {
            let Action::Forward(forward) = &route.action else {
                continue;
            };
            let found = match &forward.clusters {
                Clusters::Single(name) => named_cluster(snapshot, name),
                Clusters::Weighted(weighted) => weighted
                    .choices
                    .iter()
                    .try_for_each(|choice| named_cluster(snapshot, &choice.cluster)),
                Clusters::Header(_) => Ok(()),
            };
            let found = found.and_then(|()| {
                forward
                    .mirrors
                    .iter()
                    .try_for_each(|mirror| named_cluster(snapshot, &mirror.cluster))
            });
            found.map_err(|reject| {
                Reject::new(format!("virtual host {:?}, route {n}", vhost.name), reject.why)
            })?;
        }
    }
    Ok(())
}

fn logs(snapshot: &Snapshot, logs: &[std::sync::Arc<AccessLog>]) -> Result<(), Reject> {
    logs.iter().try_for_each(|log| match &log.sink {
        Sink::HttpGrpc(sink) | Sink::TcpGrpc(sink) => named_cluster(snapshot, &sink.cluster),
        _ => Ok(()),
    })
}

fn cluster(snapshot: &Snapshot, cluster: &Cluster) -> Result<(), Reject> {
    if let Kind::Eds { .. } = &cluster.kind {
        return Err(Reject::new(
            "type",
            "EDS needs a control plane, and dynamic_resources names none",
        ));
    }
    for tls in cluster.transports() {
        let trusted = tls
            .validation
            .iter()
            .filter_map(|validation| validation.trusted.as_ref());
        for reference in tls.certificates.iter().chain(trusted) {
            secret(snapshot, reference)?;
        }
    }
    Ok(())
}

fn secret(snapshot: &Snapshot, reference: &SecretRef) -> Result<(), Reject> {
    match reference {
        SecretRef::Sds {
            name,
            source: SdsSource::Static,
        } if !snapshot.secrets.contains_key(name) => Err(Reject::new(
            "transport_socket",
            format!("there is no static secret {name:?}"),
        )),
        SecretRef::Sds {
            source: SdsSource::Ads,
            ..
        } => Err(Reject::new(
            "transport_socket",
            "a secret by ads needs a control plane, and dynamic_resources names none",
        )),
        _ => Ok(()),
    }
}

fn named_cluster(snapshot: &Snapshot, name: &str) -> Result<(), Reject> {
    match snapshot.clusters.contains_key(name) {
        true => Ok(()),
        false => Err(Reject::new("cluster", format!("there is no cluster {name:?}"))),
    }
}
