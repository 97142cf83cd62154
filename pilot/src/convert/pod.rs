//! Pod → Workload.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use mesh_proto::{
    finding::Report,
    names::{container, label},
};

use super::canonical;
use crate::model::{Item, Origin, Workload, endpoint::Locality};

const TEMPLATE_HASH: &str = "pod-template-hash";
const NETWORK: &str = "topology.istio.io/network";
const LOCALITY: &str = "istio-locality";

/// A pod that has ended is no workload any more.
pub fn convert(object: &core::Pod, origin: Origin, _: &mut Report) -> Option<Item> {
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let workload_name = workload_name(object);
    let containers = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    // Ports of an ended init container lead nowhere, but those of a sidecar do.
    let ports = containers().flat_map(|container| container.ports.iter().flatten());
    let ports: Vec<(Option<String>, u16)> = ports
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .filter_map(|port| Some((port.name.clone(), u16::try_from(port.container_port).ok()?)))
        .collect();
    let condition = |name: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == name && condition.status == "True")
    };
    let mut addresses: Vec<std::net::IpAddr> = Vec::new();
    for ip in status
        .pod_ip
        .iter()
        .chain(status.pod_ips.iter().flatten().map(|ip| &ip.ip))
    {
        if let Ok(ip) = ip.parse()
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    let workload = Workload {
        namespace: origin.namespace.clone(),
        name: origin.name.clone(),
        addresses,
        service_account: spec
            .service_account_name
            .clone()
            .or(spec.service_account.clone())
            .unwrap_or_default(),
        canonical_name: canonical::name(&labels, &workload_name),
        canonical_revision: canonical::revision(&labels),
        workload_name,
        named_ports: ports
            .iter()
            .filter_map(|(name, port)| Some((name.clone()?, *port)))
            .collect(),
        ports: ports.iter().map(|(_, port)| *port).collect(),
        ready: condition("Ready"),
        terminating: object.metadata.deletion_timestamp.is_some(),
        host_network: spec.host_network.unwrap_or_default(),
        has_proxy: containers().any(|one| one.name == container::PROXY),
        mesh_tls: labels.get(label::TLS_MODE).is_some_and(|mode| mode == "istio"),
        node: spec.node_name.clone().unwrap_or_default(),
        locality: labels
            .get(LOCALITY)
            .map(|text| Locality::parse(&text.replace('.', "/")))
            .unwrap_or_else(|| super::node::locality(&labels)),
        network: labels.get(NETWORK).cloned().unwrap_or_default(),
        labels: Arc::new(labels),
        origin,
    };
    Some(Item::Workload(Arc::new(workload)))
}

/// The name that metrics tell: that of the Deployment rather than of its ReplicaSet.
pub fn workload_name(object: &core::Pod) -> String {
    let template_hash = object
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(TEMPLATE_HASH));
    let owner = object
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else {
        // At admission there may be only the beginning of a name.
        let generated = object
            .metadata
            .generate_name
            .as_deref()
            .map(|name| name.trim_end_matches('-').to_owned());
        let name = object.metadata.name.clone().or(generated).unwrap_or_default();
        return match template_hash {
            // Made by a controller that does not say so: name-hash-random.
            Some(hash) => name
                .split_once(&format!("-{hash}-"))
                .map_or(name.clone(), |(name, _)| name.to_owned()),
            None => name,
        };
    };
    match (owner.kind.as_str(), template_hash) {
        ("ReplicaSet", Some(hash)) => owner
            .name
            .strip_suffix(&format!("-{hash}"))
            .unwrap_or(&owner.name)
            .to_owned(),
        // A CronJob's Jobs are called name-minute.
        ("Job", _) => match owner.name.rsplit_once('-') {
            Some((name, minute)) if minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()) => {
                name.to_owned()
            }
            _ => owner.name.clone(),
        },
        _ => owner.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::item;

    fn workload(metadata: &str, rest: &str) -> Arc<Workload> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: reviews-v1-5d-x, namespace: ns, {metadata}}}\n{rest}"
        );
        match item(&text) {
            Item::Workload(workload) => workload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods() {
        let workload = workload(
            "labels: {app: reviews, version: v1, pod-template-hash: 5d, security.istio.io/tlsMode: istio}, \
             ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: reviews-v1-5d, uid: x, controller: true}]",
            "spec: {serviceAccountName: bookinfo-reviews, containers: [{name: r, ports: [{name: http, containerPort: 9080}]}], \
             initContainers: [{name: istio-proxy}]}\n\
             status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}, {ip: 'fd00::7'}], conditions: [{type: Ready, status: 'True'}]}",
        );
        assert_eq!(workload.workload_name, "reviews-v1");
        assert_eq!(
            (
                workload.canonical_name.as_str(),
                workload.canonical_revision.as_str()
            ),
            ("reviews", "v1")
        );
        assert_eq!(
            workload.identity("cluster.local"),
            "spiffe://cluster.local/ns/ns/sa/bookinfo-reviews"
        );
        assert_eq!(
            (workload.addresses.len(), workload.named_ports.get("http")),
            (2, Some(&9080))
        );
        assert!(workload.ready && workload.has_proxy && workload.mesh_tls && !workload.terminating);
    }

    #[test]
    fn names() {
        let check = |metadata: &str, expect: &str| assert_eq!(workload(metadata, "").workload_name, expect);
        check("labels: {}", "reviews-v1-5d-x");
        check("labels: {pod-template-hash: 5d}", "reviews-v1");
        check(
            "ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: x, controller: true}]",
            "db",
        );
        check(
            "ownerReferences: [{apiVersion: batch/v1, kind: Job, name: b-28123456, uid: x, controller: true}]",
            "b",
        );
        assert_eq!(workload("labels: {}", "").canonical_revision, "latest");
    }
}
