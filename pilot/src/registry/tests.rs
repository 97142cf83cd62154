//! The registry, fed as pilot feeds it: YAML → store → registry.

use super::*;
use crate::{
    ingest::Change,
    model::endpoint::{Address, Health},
    store::Store,
    testing::changes,
};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: ns}\n\
    spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: web}]}\n";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
    metadata: {name: reviews-x, namespace: ns, labels: {kubernetes.io/service-name: reviews}}\n\
    ports: [{name: http, port: 9080}]\n\
    endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: r1}, conditions: {ready: true}}]\n";
const POD: &str = "apiVersion: v1\nkind: Pod\n\
    metadata: {name: r1, namespace: ns, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}\n\
    spec: {serviceAccountName: rev, containers: [{name: a, ports: [{name: web, containerPort: 9080}]}]}\n\
    status: {podIP: 10.0.0.1}\n";

/// Store and registry together.
#[derive(Default)]
struct Mesh {
    store: Store,
    registry: Registry,
}

impl Mesh {
    fn apply(&mut self, text: &str) -> Touched {
        let applied = self.store.apply(changes(text));
        self.registry.update(self.store.world(), &applied.changed)
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Touched {
        let applied = self.store.apply(vec![Change::Delete {
            kind,
            key: Key::new(namespace, name),
        }]);
        self.registry.update(self.store.world(), &applied.changed)
    }

    /// `address:port health identity` of a port.
    fn endpoints(&self, namespace: &str, host: &str, port: u16) -> Vec<String> {
        let show = |endpoint: &Endpoint| {
            let identity = endpoint
                .identity
                .as_deref()
                .and_then(|id| id.rsplit('/').next())
                .unwrap_or("-");
            format!(
                "{}:{} {:?} {identity} {}",
                endpoint.address, endpoint.port, endpoint.health, endpoint.mesh_tls
            )
        };
        self.registry
            .endpoints(&key(namespace, host), port)
            .iter()
            .map(show)
            .collect()
    }
}

fn key(namespace: &str, host: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.into(),
        host: Host::new(host),
    }
}

fn reviews() -> ServiceKey {
    key("ns", "reviews.ns.svc.cluster.local")
}

fn all(services: bool, endpoints: bool, instances: bool) -> Touched {
    Touched {
        services: services.then(reviews).into_iter().collect(),
        endpoints: endpoints.then(reviews).into_iter().collect(),
        instances: instances.then(|| Key::new("ns", "r1")).into_iter().collect(),
    }
}

#[test]
fn order_does_not_matter() {
    for texts in [
        [SERVICE, SLICE, POD],
        [POD, SLICE, SERVICE],
        [SLICE, POD, SERVICE],
        [POD, SERVICE, SLICE],
    ] {
        let mut mesh = Mesh::default();
        for text in texts {
            mesh.apply(text);
        }
        assert_eq!(
            mesh.endpoints("ns", "reviews.ns.svc.cluster.local", 80),
            ["10.0.0.1:9080 Ready rev true"]
        );
        let instance = Instance {
            service: reviews(),
            port: 80,
            target: 9080,
        };
        assert_eq!(mesh.registry.instances(&Key::new("ns", "r1")), [instance]);
        assert_eq!(
            mesh.registry.accounts(&reviews()).into_iter().collect::<Vec<_>>(),
            ["spiffe://cluster.local/ns/ns/sa/rev"]
        );
    }
}

#[test]
fn a_change_touches_what_it_concerns() {
    let mut mesh = Mesh::default();
    assert_eq!(mesh.apply(POD), Touched::default());
    assert_eq!(mesh.apply(SERVICE), all(true, true, true));
    assert_eq!(mesh.apply(SLICE), all(false, true, false));
    assert_eq!(mesh.apply(SLICE), Touched::default());
    let other = POD
        .replace("name: r1", "name: other")
        .replace("app: reviews", "app: other")
        .replace(".1}", ".9}");
    assert_eq!(mesh.apply(&other), Touched::default());
    let draining = SLICE.replace("ready: true", "ready: false, serving: true, terminating: true");
    assert_eq!(mesh.apply(&draining), all(false, true, false));
    assert_eq!(
        mesh.registry.endpoints(&reviews(), 80)[0].health,
        Health::Draining
    );
    assert_eq!(
        mesh.delete(Kind::EndpointSlice, "ns", "reviews-x"),
        all(false, true, false)
    );
    assert_eq!(
        mesh.apply(&SERVICE.replace("port: 80,", "port: 81,")),
        all(true, false, true)
    );
    assert_eq!(mesh.delete(Kind::Service, "ns", "reviews"), all(true, true, true));
    assert!(mesh.registry.services().next().is_none() && mesh.registry.by_host(&reviews().host).is_empty());
}

#[test]
fn a_reader_keeps_its_registry() {
    let mut mesh = Mesh::default();
    mesh.apply(SERVICE);
    let before = mesh.registry.clone();
    mesh.delete(Kind::Service, "ns", "reviews");
    assert!(before.service(&reviews()).is_some() && mesh.registry.service(&reviews()).is_none());
}

#[test]
fn a_clone_can_be_updated() {
    let mut mesh = Mesh::default();
    mesh.apply(&format!("{SERVICE}---\n{POD}---\n{SLICE}"));
    let mut clone = mesh.registry.clone();
    assert_eq!(clone.update(mesh.store.world(), &[]), Touched::default());
    let mut clone = mesh.registry.clone();
    mesh.delete(Kind::Service, "ns", "reviews");
    assert_eq!(clone.update(mesh.store.world(), &[]), all(true, true, true));
}

#[test]
fn slices_without_pods() {
    let mut mesh = Mesh::default();
    mesh.apply(SERVICE);
    mesh.apply(&SLICE.replace("targetRef: {kind: Pod, name: r1}, ", ""));
    assert_eq!(
        mesh.endpoints("ns", "reviews.ns.svc.cluster.local", 80),
        ["10.0.0.1:9080 Ready - false"]
    );
}

const ENTRY: &str =
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: ns}\n";

#[test]
fn entries() {
    let mut mesh = Mesh::default();
    let ports = "ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]";
    mesh.apply(&format!(
        "{ENTRY}spec: {{hosts: [a.com], resolution: DNS, {ports}}}"
    ));
    assert_eq!(mesh.endpoints("ns", "a.com", 443), ["a.com:8443 Ready - false"]);
    let auto = mesh
        .registry
        .service(&key("ns", "a.com"))
        .unwrap()
        .auto_address
        .unwrap();
    assert!(auto.to_string().starts_with("240.240."), "{auto}");

    mesh.apply(&format!(
        "{ENTRY}spec: {{hosts: [a.com, b.com], resolution: STATIC, {ports}, endpoints: [{{address: 1.2.3.4, ports: {{tls: 1}}}}]}}"
    ));
    assert_eq!(mesh.endpoints("ns", "b.com", 443), ["1.2.3.4:1 Ready - false"]);
    mesh.apply(&format!(
        "{ENTRY}spec: {{hosts: [b.com], resolution: NONE, {ports}}}"
    ));
    assert!(mesh.registry.service(&key("ns", "a.com")).is_none());
    assert_eq!(mesh.endpoints("ns", "b.com", 443), Vec::<String>::new());
    assert_eq!(
        mesh.registry.service(&key("ns", "b.com")).unwrap().auto_address,
        None
    );
}

#[test]
fn entries_select_pods_and_workload_entries() {
    let mut mesh = Mesh::default();
    let ports = "ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9080}]";
    mesh.apply(&format!(
        "{ENTRY}spec: {{hosts: [a.com], location: MESH_INTERNAL, resolution: STATIC, {ports}, workloadSelector: {{labels: {{app: reviews}}}}}}"
    ));
    mesh.apply(POD);
    let workload = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm, namespace: ns}\n\
        spec: {address: 10.9.0.1, serviceAccount: vm, labels: {app: reviews}}\n";
    mesh.apply(workload);
    assert_eq!(
        mesh.endpoints("ns", "a.com", 80),
        ["10.0.0.1:9080 NotReady rev true", "10.9.0.1:9080 Ready vm true"]
    );
    mesh.delete(Kind::WorkloadEntry, "ns", "vm");
    mesh.delete(Kind::Pod, "ns", "r1");
    assert_eq!(mesh.endpoints("ns", "a.com", 80), Vec::<String>::new());
}

#[test]
fn the_service_of_the_viewers_namespace_counts() {
    let mut mesh = Mesh::default();
    let entry = |namespace: &str, export: &str| {
        let entry = ENTRY.replace("namespace: ns", &format!("namespace: {namespace}"));
        format!(
            "{entry}spec: {{hosts: [a.com], resolution: NONE, exportTo: [{export}], ports: [{{number: 80, name: http}}]}}"
        )
    };
    mesh.apply(&entry("x", "'*'"));
    mesh.apply(&entry("w", "'.'"));
    let namespace = |viewer: &str| {
        mesh.registry
            .lookup(&Host::new("a.com"), viewer)
            .map(|service| service.namespace.clone())
    };
    assert_eq!(namespace("w").as_deref(), Some("w"));
    assert_eq!(namespace("z").as_deref(), Some("x"));
}

#[test]
fn external_names() {
    let mut mesh = Mesh::default();
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: ns}\n\
         spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}",
    );
    let endpoints = mesh
        .registry
        .endpoints(&key("ns", "out.ns.svc.cluster.local"), 80);
    assert_eq!(endpoints[0].address, Address::Name("example.com".into()));
}

#[test]
fn a_new_trust_domain_changes_identities() {
    let mut mesh = Mesh::default();
    mesh.apply(&format!("{SERVICE}---\n{POD}---\n{SLICE}"));
    let touched = mesh.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'trustDomain: td'}",
    );
    assert_eq!(touched.endpoints, [reviews()].into());
    assert_eq!(
        mesh.registry.endpoints(&reviews(), 80)[0].identity.as_deref(),
        Some("spiffe://td/ns/ns/sa/rev")
    );
}

#[test]
fn an_alias_of_a_service_follows_it() {
    let mut mesh = Mesh::default();
    let alias = "apiVersion: v1\nkind: Service\nmetadata: {name: short, namespace: other}\n\
         spec: {type: ExternalName, externalName: reviews.ns.svc.cluster.local}\n";
    mesh.apply(alias);
    let host = "short.other.svc.cluster.local";
    assert!(mesh.endpoints("other", host, 80).is_empty());
    let touched = mesh.apply(&format!("{SERVICE}---\n{POD}---\n{SLICE}"));
    assert!(touched.endpoints.contains(&key("other", host)));
    assert_eq!(
        mesh.endpoints("other", host, 80),
        mesh.endpoints("ns", "reviews.ns.svc.cluster.local", 80)
    );
    let service = mesh.registry.service(&key("other", host)).expect("a service");
    assert!(!service.is_external() && service.addresses.is_empty());
    assert!(
        mesh.registry
            .instances(&Key::new("ns", "r1"))
            .iter()
            .all(|one| one.service == reviews())
    );
    mesh.delete(Kind::Service, "ns", "reviews");
    assert!(
        mesh.registry
            .service(&key("other", host))
            .is_some_and(|service| service.is_external())
    );
    mesh.apply(&alias.replace("reviews.ns.svc.cluster.local", "example.com"));
    assert!(
        mesh.apply(SERVICE)
            .endpoints
            .iter()
            .all(|key| key.namespace == "ns")
    );
}

#[test]
fn nodes_tell_where_endpoints_are() {
    let mut mesh = Mesh::default();
    let node = |zone: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{topology.kubernetes.io/region: r, \
             topology.kubernetes.io/zone: {zone}, topology.istio.io/subzone: rack}}}}\n"
        )
    };
    let pod = POD.replace("spec: {", "spec: {nodeName: n1, ");
    mesh.apply(&format!("{SERVICE}---\n{pod}---\n{SLICE}"));
    let locality = |mesh: &Mesh| mesh.registry.endpoints(&reviews(), 80)[0].locality.clone();
    assert!(locality(&mesh).is_empty());
    assert_eq!(mesh.apply(&node("a")), all(false, true, false));
    assert_eq!(
        locality(&mesh),
        crate::model::endpoint::Locality::parse("r/a/rack")
    );
    mesh.apply(&node("b"));
    assert_eq!(locality(&mesh).zone, "b");
    // The pod repeats its node's labels, or has a place of its own.
    let labelled = |labels: &str| pod.replace("labels: {", &format!("labels: {{{labels}, "));
    mesh.apply(&labelled(
        "topology.kubernetes.io/region: r, topology.kubernetes.io/zone: b",
    ));
    assert_eq!(locality(&mesh).subzone, "rack");
    mesh.apply(&labelled("istio-locality: x.y"));
    assert_eq!(locality(&mesh), crate::model::endpoint::Locality::parse("x/y"));
}
