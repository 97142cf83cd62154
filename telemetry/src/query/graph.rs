//! The service graph: nodes are workloads (or apps), edges the traffic between them during a window.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{View, rounded};
use crate::{
    aggregate::{Merge, edge::Slot},
    attribute::{Workload, service_parts},
    record::Protocol,
    rule,
};

/// What a node stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Every workload alone: `reviews-v1`, `reviews-v2`.
    #[default]
    Workload,
    /// All workloads of one app: `reviews`.
    App,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Gateway,
    Workload,
    /// A service of the mesh of which no workload is known: none is healthy, or its traffic is not ours to see.
    Service,
    /// A host outside the mesh.
    External,
    /// Callers without a proxy.
    Unknown,
    /// What is beyond the budget of edges.
    Other,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    pub id: String,
    pub kind: Kind,
    pub name: String,
    pub namespace: String,
    pub app: String,
    /// Requests coming in and going out, per second.
    pub rps_in: f64,
    pub rps_out: f64,
    /// Errors among those that come in.
    pub error_ratio: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    pub source: String,
    pub destination: String,
    /// Hosts that were asked for.
    pub services: BTreeSet<String>,
    pub protocol: &'static str,
    /// Requests, or connections, per second.
    pub rps: f64,
    pub requests: u64,
    pub error_ratio: f64,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// All of it was mutually authenticated.
    pub mtls: bool,
    pub mtls_ratio: f64,
    pub sent_bytes_per_second: f64,
    pub received_bytes_per_second: f64,
    pub codes: BTreeMap<u16, u64>,
    /// Whose reports these are.
    pub reporter: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

#[derive(Default)]
struct Sum {
    slot: Slot,
    rate: f64,
    sent: f64,
    received: f64,
    services: BTreeSet<String>,
    reporter: &'static str,
}

pub fn graph(views: Vec<View>, group: Group) -> Graph {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut sums: BTreeMap<(String, String, Protocol), Sum> = BTreeMap::new();
    for view in rule::prefer(views) {
        let key = &view.key;
        let source = node(&key.source, "", group, &mut nodes);
        let destination = node(&key.destination, &key.service, group, &mut nodes);
        let sum = sums.entry((source, destination, key.protocol)).or_default();
        sum.slot.merge(&view.slot);
        sum.rate += view.rate();
        sum.sent += view.slot.counts.sent as f64 / view.seconds;
        sum.received += view.slot.counts.received as f64 / view.seconds;
        sum.services
            .extend((!key.service.is_empty()).then(|| key.service.to_string()));
        sum.reporter = key.reporter.as_str();
    }
    let mut errors: BTreeMap<String, f64> = BTreeMap::new();
    for ((source, destination, _), sum) in &sums {
        if let Some(node) = nodes.get_mut(source) {
            node.rps_out += sum.rate;
        }
        if let Some(node) = nodes.get_mut(destination) {
            node.rps_in += sum.rate;
        }
        *errors.entry(destination.clone()).or_default() += sum.rate * sum.slot.counts.error_ratio();
    }
    for node in nodes.values_mut() {
        let errors = errors.get(&node.id).copied().unwrap_or_default();
        node.error_ratio = rounded(if node.rps_in > 0.0 {
            errors / node.rps_in
        } else {
            0.0
        });
        (node.rps_in, node.rps_out) = (rounded(node.rps_in), rounded(node.rps_out));
    }
    Graph {
        nodes: nodes.into_values().collect(),
        edges: sums.into_iter().map(edge).collect(),
    }
}

fn edge(((source, destination, protocol), sum): ((String, String, Protocol), Sum)) -> Edge {
    let (counts, latency) = (sum.slot.counts, sum.slot.latency);
    let quantile = |part| latency.quantile_ms(part).map(rounded);
    Edge {
        source,
        destination,
        services: sum.services,
        protocol: protocol.as_str(),
        rps: rounded(sum.rate),
        requests: counts.requests,
        error_ratio: rounded(counts.error_ratio()),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        mtls: counts.requests > 0 && counts.mtls == counts.requests,
        mtls_ratio: rounded(counts.mtls as f64 / counts.requests.max(1) as f64),
        sent_bytes_per_second: rounded(sum.sent),
        received_bytes_per_second: rounded(sum.received),
        codes: counts.codes,
        reporter: sum.reporter,
    }
}

/// The id of the node that this end belongs to, which is added when it is new.
fn node(end: &Workload, service: &str, group: Group, nodes: &mut BTreeMap<String, Node>) -> String {
    let app: &str = if end.app.is_empty() { &end.name } else { &end.app };
    let (kind, name, namespace) = if &*end.name == "other" && end.namespace.is_empty() {
        (Kind::Other, "other", "")
    } else if end.is_known() {
        let name = if group == Group::App { app } else { &end.name };
        (
            if end.gateway {
                Kind::Gateway
            } else {
                Kind::Workload
            },
            name,
            &*end.namespace,
        )
    } else if !end.app.is_empty() {
        // Only the service is known: with apps as nodes it is the app.
        let kind = if group == Group::App {
            Kind::Workload
        } else {
            Kind::Service
        };
        (kind, &*end.app, &*end.namespace)
    } else if let Some((name, namespace)) = service_parts(service) {
        (Kind::Service, name, namespace)
    } else if !service.is_empty() {
        (Kind::External, service, "")
    } else if let Some(account) = end.principal.rsplit_once("/sa/").map(|(_, account)| account) {
        (Kind::Workload, account, &*end.namespace)
    } else {
        (Kind::Unknown, "unknown", "")
    };
    let id = if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{namespace}")
    };
    let node = nodes.entry(id.clone()).or_insert_with(|| Node {
        id: id.clone(),
        kind,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        app: app.to_owned(),
        rps_in: 0.0,
        rps_out: 0.0,
        error_ratio: 0.0,
    });
    // As a source its kind is proven, as a destination it is only named.
    node.kind = node.kind.min(kind);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attribute::Reporter, record::EdgeKey};
    use std::time::Duration;

    fn workload(name: &str) -> Workload {
        let app = name.split_once("-v").map_or(name, |(app, _)| app);
        Workload {
            name: name.into(),
            namespace: "default".into(),
            app: app.into(),
            ..Workload::default()
        }
    }

    fn view(source: Workload, destination: Workload, service: &str, requests: u64, errors: u64) -> View {
        let key = EdgeKey {
            reporter: Reporter::Source,
            source,
            destination,
            service: service.into(),
            protocol: Protocol::Http,
        };
        let mut slot = Slot::default();
        (slot.counts.requests, slot.counts.errors, slot.counts.mtls) = (requests, errors, requests);
        for _ in 0..requests {
            slot.latency.record(Duration::from_millis(10));
        }
        View {
            key: key.into(),
            slot,
            seconds: 10.0,
        }
    }

    fn bookinfo() -> Vec<View> {
        let reviews = "reviews.default.svc.cluster.local";
        let gateway = Workload {
            gateway: true,
            ..workload("istio-ingressgateway")
        };
        vec![
            view(
                gateway,
                workload("productpage-v1"),
                "productpage.default.svc.cluster.local",
                100,
                0,
            ),
            view(workload("productpage-v1"), workload("reviews-v1"), reviews, 80, 0),
            view(workload("productpage-v1"), workload("reviews-v2"), reviews, 20, 5),
        ]
    }

    #[test]
    fn by_workload() {
        let graph = graph(bookinfo(), Group::Workload);
        let ids: Vec<&str> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "istio-ingressgateway.default",
                "productpage-v1.default",
                "reviews-v1.default",
                "reviews-v2.default"
            ]
        );
        assert_eq!(graph.nodes[0].kind, Kind::Gateway);
        let edge = graph
            .edges
            .iter()
            .find(|edge| edge.destination == "reviews-v2.default")
            .unwrap();
        assert_eq!((edge.rps, edge.error_ratio, edge.mtls), (2.0, 0.25, true));
        assert!((edge.p50_ms.unwrap() - 10.0).abs() < 0.4);
        let page = &graph.nodes[1];
        assert_eq!((page.rps_in, page.rps_out), (10.0, 10.0));
    }

    #[test]
    fn by_app_versions_merge() {
        let graph = graph(bookinfo(), Group::App);
        assert_eq!(graph.edges.len(), 2);
        let edge = graph
            .edges
            .iter()
            .find(|edge| edge.destination == "reviews.default")
            .unwrap();
        assert_eq!((edge.rps, edge.requests, edge.error_ratio), (10.0, 100, 0.05));
    }

    #[test]
    fn other_kinds_of_ends() {
        let only_app = Workload {
            app: "ratings".into(),
            namespace: "default".into(),
            ..Workload::default()
        };
        let only_principal = Workload {
            principal: "spiffe://cluster.local/ns/default/sa/client".into(),
            namespace: "default".into(),
            ..Workload::default()
        };
        for (end, service, expect) in [
            (workload("a"), "", (Kind::Workload, "a.default")),
            (
                only_app,
                "ratings.default.svc.cluster.local",
                (Kind::Service, "ratings.default"),
            ),
            (
                Workload::default(),
                "x.other.svc.cluster.local",
                (Kind::Service, "x.other"),
            ),
            (
                Workload::default(),
                "www.example.com",
                (Kind::External, "www.example.com"),
            ),
            (Workload::default(), "", (Kind::Unknown, "unknown")),
            (only_principal, "", (Kind::Workload, "client.default")),
            (EdgeKey::other().source, "", (Kind::Other, "other")),
        ] {
            let mut nodes = BTreeMap::new();
            let id = node(&end, service, Group::Workload, &mut nodes);
            assert_eq!((nodes[&id].kind, id.as_str()), expect);
        }
    }
}
