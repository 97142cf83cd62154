//! What tests of several modules need: objects written as YAML.

use std::sync::Arc;

use mesh_proto::{
    envoy_json,
    kube::{Manifest, yaml},
    node::NodeMetadata,
    pb::google::protobuf::Any,
    xds::Type,
};

use crate::{
    generate::{self, Input},
    ingest::Change,
    model::{
        Endpoint, Health,
        endpoint::{Address, Locality},
    },
    registry::Registry,
    snapshot::Snapshot,
    store::Store,
    view::{View, Viewer},
};

/// The objects in a text; panics if it cannot be read.
pub fn manifests(text: &str) -> Vec<Manifest> {
    let (manifests, findings) = yaml::manifests(text, "test.yaml");
    assert!(findings.is_empty(), "{findings:#?}");
    manifests
}

/// The objects in a text, applied.
pub fn changes(text: &str) -> Vec<Change> {
    manifests(text)
        .into_iter()
        .map(|manifest| Change::Apply(Box::new(manifest)))
        .collect()
}

/// The snapshot of the objects in a text.
pub fn snapshot(text: &str) -> Snapshot {
    let mut store = Store::default();
    let applied = store.apply(changes(text));
    let findings: Vec<_> = store.findings().filter(|finding| finding.is_error()).collect();
    assert!(findings.is_empty(), "{findings:#?}");
    let mut registry = Registry::default();
    let touched = registry.update(store.world(), &applied.changed);
    let kinds = applied.changed.iter().map(|changed| changed.kind).collect();
    Snapshot::default().next(store.world(), &kinds, &registry, &touched)
}

/// A sidecar of our own in namespace `default`, beside a workload with label `app`.
pub fn sidecar(app: &str) -> Viewer {
    viewer(
        &format!("sidecar~10.0.0.9~{app}-0.default~default.svc.cluster.local"),
        app,
    )
}

/// The ingress gateway.
pub fn gateway() -> Viewer {
    viewer(
        "router~10.0.0.8~gateway-0.istio-system~istio-system.svc.cluster.local",
        "istio-ingressgateway",
    )
}

fn viewer(id: &str, app: &str) -> Viewer {
    let metadata = NodeMetadata {
        labels: [
            ("app".to_owned(), app.to_owned()),
            ("istio".to_owned(), "ingressgateway".to_owned()),
        ]
        .into(),
        service_account: app.to_owned(),
        dns_capture: "true".to_owned(),
        generator: "gossamer".to_owned(),
        ..NodeMetadata::default()
    };
    Viewer::new(&id.parse().unwrap(), &metadata, None)
}

/// A ready endpoint without a workload.
pub fn endpoint(ip: &str, port: u16) -> Endpoint {
    Endpoint {
        address: Address::Ip(ip.parse().unwrap()),
        port,
        health: Health::Ready,
        labels: Arc::default(),
        workload: None,
        workload_name: String::new(),
        namespace: "default".to_owned(),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        identity: None,
        mesh_tls: false,
        locality: Locality::default(),
        network: String::new(),
        node: String::new(),
        hostname: String::new(),
        weight: 0,
    }
}

/// The services of Bookinfo, as far as routing is concerned: `reviews` (two versions) and `ratings` on HTTP, `redis` on
/// TCP, `odd` undeclared, `peers` headless.
pub const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: default}
spec: {clusterIP: 10.96.0.2, selector: {app: ratings}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: redis, namespace: default}
spec: {clusterIP: 10.96.0.3, selector: {app: redis}, ports: [{name: tcp-redis, port: 6379}]}
---
apiVersion: v1
kind: Service
metadata: {name: odd, namespace: default}
spec: {clusterIP: 10.96.0.4, selector: {app: odd}, ports: [{name: odd, port: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: default}
spec: {clusterIP: None, selector: {app: peers}, ports: [{name: tcp-peer, port: 2380}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v1-0, namespace: default}}
- {addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v2-0, namespace: default}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: peers-1, namespace: default, labels: {kubernetes.io/service-name: peers}}
addressType: IPv4
ports: [{name: tcp-peer, port: 2380, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.5], conditions: {ready: true}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1-0, namespace: default, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, containers: [{name: reviews, image: reviews}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2-0, namespace: default, labels: {app: reviews, version: v2}}
spec: {serviceAccountName: reviews, containers: [{name: reviews, image: reviews}]}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: 'True'}]}
";

/// Everything of one type that a viewer gets by these objects.
pub fn inputs(viewer: &Viewer, objects: &str, kind: Type) -> Vec<Input> {
    let snapshot = snapshot(&format!("{SERVICES}---\n{objects}"));
    generate::inputs(&View::new(viewer, &snapshot), kind)
}

/// One resource as JSON in Envoy's field names; panics with the names that there are.
pub fn resource(viewer: &Viewer, objects: &str, kind: Type, name: &str) -> serde_json::Value {
    let all = inputs(viewer, objects, kind);
    let Some(input) = all.iter().find(|input| input.name() == name) else {
        panic!(
            "no {kind} {name:?}; there are {:?}",
            all.iter().map(Input::name).collect::<Vec<_>>()
        );
    };
    let any = Any {
        type_url: kind.url().to_owned(),
        value: input.encode().to_vec(),
    };
    envoy_json::any_to_value(&any).unwrap()
}

pub fn names(viewer: &Viewer, objects: &str, kind: Type) -> Vec<String> {
    inputs(viewer, objects, kind).iter().map(Input::name).collect()
}
