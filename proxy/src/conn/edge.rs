//! Who talks to whom: puts together the edge that metrics and records are about. Proven names come from certificates;
//! workload names come from pilot (the endpoint's metadata) or from a proven peer's own introduction.

use std::sync::Arc;

use mesh_proto::identity::SpiffeId;

use super::Conn;
use crate::{
    cluster::Picked,
    config::{cluster::Cluster, endpoint::WorkloadName, listener::Direction},
    observe::{EdgeKey, Reporter, RequestProtocol, Security, Service, Workload},
};

/// The edge of a request or connection towards this upstream; `None` where the listener has no direction, as with a
/// plain Envoy bootstrap: then there is no mesh to speak of.
pub fn key(
    conn: &Conn,
    cluster: &Cluster,
    picked: Option<&Picked>,
    upstream_principal: Option<&Arc<str>>,
    protocol: RequestProtocol,
) -> Option<EdgeKey> {
    match conn.direction() {
        Direction::Unspecified => None,
        Direction::Outbound => Some(EdgeKey {
            reporter: Reporter::Source,
            source: conn.worker.own.workload.clone(),
            source_principal: upstream_principal.and_then(|_| conn.worker.principal()),
            destination: picked
                .and_then(|picked| picked.endpoint.as_ref()?.workload.as_deref())
                .map_or_else(Arc::default, |name| Arc::new(workload(name))),
            destination_principal: upstream_principal.cloned(),
            service: service(cluster),
            protocol,
            security: Security::Unknown,
        }),
        Direction::Inbound => {
            let principal = conn.principal().cloned();
            let security = if principal.is_some() {
                Security::MutualTls
            } else {
                Security::None
            };
            Some(EdgeKey {
                reporter: Reporter::Destination,
                source: conn.peer_workload.borrow().clone(),
                destination_principal: principal.as_ref().and_then(|_| conn.worker.principal()),
                source_principal: principal,
                destination: conn.worker.own.workload.clone(),
                service: service(cluster),
                protocol,
                security,
            })
        }
    }
}

/// The service that a cluster stands for; a cluster that stands for none (passthrough) is named itself, as in Istio.
fn service(cluster: &Cluster) -> Arc<Service> {
    match cluster.services.first() {
        Some(service) => service.clone(),
        None => Arc::new(Service {
            name: cluster.name.clone(),
            ..Service::default()
        }),
    }
}

fn workload(name: &WorkloadName) -> Workload {
    Workload {
        name: name.workload.to_string(),
        namespace: name.namespace.to_string(),
        app: name.canonical_name.to_string(),
        version: name.canonical_revision.to_string(),
        canonical_service: name.canonical_name.to_string(),
        canonical_revision: name.canonical_revision.to_string(),
        kube_cluster: name.cluster.to_string(),
    }
}

/// What a peer is called before, or without, its introduction: its proven namespace.
pub fn of_principal(principal: &str) -> Workload {
    match principal.parse::<SpiffeId>() {
        Ok(id) => Workload {
            namespace: id.namespace,
            ..Workload::default()
        },
        Err(_) => Workload::default(),
    }
}

/// A peer's introduction, believed only as far as its certificate proves it: the namespace must be the proven one.
pub fn introduced(principal: &str, text: &str) -> Option<Workload> {
    let id = principal.parse::<SpiffeId>().ok()?;
    let workload = Workload::from_metadata(text);
    (workload.namespace == id.namespace && text.len() <= 1024).then_some(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_must_fit_the_certificate() {
        let principal = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let workload = introduced(principal, "reviews-v1;default;reviews;v1;Kubernetes").unwrap();
        assert_eq!(workload.name, "reviews-v1");
        assert_eq!(
            introduced(principal, "reviews-v1;kube-system;reviews;v1;Kubernetes"),
            None
        );
        assert_eq!(
            introduced("someone", "reviews-v1;default;reviews;v1;Kubernetes"),
            None
        );
        assert_eq!(of_principal(principal).namespace, "default");
    }
}
