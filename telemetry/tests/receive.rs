//! Reports over real mesh TLS into the receivers, and what the queries then say.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use mesh_proto::{
    envoy::{
        config::core::v3::{Metadata, Node},
        data::accesslog::v3::{
            AccessLogCommon, ConnectionProperties, HttpAccessLogEntry, HttpResponseProperties,
            TcpAccessLogEntry,
        },
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
        },
    },
    names,
    node::{NodeMetadata, to_proto},
    otlp::{
        ExportTraceServiceRequest, ResourceSpans, ScopeSpans, Span, trace_service_client::TraceServiceClient,
    },
    pb::google::protobuf::{self, value::Kind},
};
use mesh_runtime::{
    drain::{self, Trigger},
    grpc, http,
    metrics::Registry,
    tls::{self, Identity, IdentityCell, PeerNames},
};
use mesh_telemetry::{app, dashboard, receive::State, settings::Settings};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tonic::{Code, transport::Channel};

struct Mesh {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    address: SocketAddr,
    dashboard: SocketAddr,
    registry: Registry,
    state: State,
    trigger: Trigger,
}

fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

fn cell(issuer: &Issuer<'_, KeyPair>, root: &CertificateDer<'static>, name: &str) -> IdentityCell {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let cell = IdentityCell::new();
    cell.set(Identity::new(vec![leaf.der().clone()], key, vec![root.clone()]).unwrap())
        .unwrap();
    cell
}

async fn mesh(flags: &[&str]) -> Mesh {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let settings = Settings::parse_from([&["mesh-telemetry"], flags].concat());
    let (registry, (trigger, drain)) = (Registry::new(), drain::channel());
    let state = app::state(&settings, &registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pages = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, dashboard) = (listener.local_addr().unwrap(), pages.local_addr().unwrap());
    let own = cell(
        &issuer,
        &root,
        "spiffe://cluster.local/ns/istio-system/sa/telemetry",
    );
    tokio::spawn(http::serve_on(
        pages,
        dashboard::pages(state.clone()),
        drain.clone(),
    ));
    let serving = state.clone();
    tokio::spawn(async move { app::serve(serving, &settings, listener, &own, &drain).await });
    Mesh {
        root,
        issuer,
        address,
        dashboard,
        registry,
        state,
        trigger,
    }
}

impl Mesh {
    fn channel(&self, name: Option<&str>) -> Channel {
        let cell = name.map(|name| cell(&self.issuer, &self.root, name));
        let peer = PeerNames::Exact(vec!["spiffe://cluster.local/ns/istio-system/sa/telemetry".into()]);
        let roots = std::slice::from_ref(&self.root);
        let config = tls::client_config_with_roots(roots, cell.as_ref(), peer, &["h2"]).unwrap();
        grpc::connect(&self.address.to_string(), Some(Arc::new(config))).unwrap()
    }

    async fn report(
        &self,
        account: &str,
        messages: Vec<StreamAccessLogsMessage>,
    ) -> Result<(), tonic::Status> {
        let channel = self.channel(Some(&identity(account)));
        let stream = tokio_stream::iter(messages);
        AccessLogServiceClient::new(channel)
            .stream_access_logs(stream)
            .await
            .map(drop)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = get(self.dashboard, path).await;
        assert!(status.contains("200"), "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: dashboard\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn identifier(workload: &str, dropped: u64) -> Option<Identifier> {
    let metadata = NodeMetadata {
        workload_name: workload.into(),
        ..NodeMetadata::default()
    };
    let mut metadata = metadata.to_struct();
    metadata.fields.insert("dropped".into(), to_proto(json!(dropped)));
    let node = Node {
        id: format!("sidecar~10.0.0.1~{workload}-0.default~default.svc.cluster.local"),
        metadata: Some(metadata),
        ..Node::default()
    };
    Some(Identifier {
        node: Some(node),
        log_name: "gossamer".into(),
    })
}

fn common(fields: Value, cluster: &str, ms: i32) -> AccessLogCommon {
    let metadata = match to_proto(fields).kind {
        Some(Kind::StructValue(fields)) => Metadata {
            filter_metadata: [("gossamer".to_owned(), fields)].into(),
            ..Metadata::default()
        },
        _ => Metadata::default(),
    };
    AccessLogCommon {
        metadata: Some(metadata),
        upstream_cluster: cluster.into(),
        duration: Some(protobuf::Duration {
            seconds: 0,
            nanos: ms * 1_000_000,
        }),
        ..AccessLogCommon::default()
    }
}

fn http_message(
    identifier: Option<Identifier>,
    common: &AccessLogCommon,
    codes: &[u32],
) -> StreamAccessLogsMessage {
    let entry = |code: &u32| HttpAccessLogEntry {
        common_properties: Some(common.clone()),
        response: Some(HttpResponseProperties {
            response_code: Some(protobuf::UInt32Value { value: *code }),
            response_body_bytes: 100,
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    let log_entry = codes.iter().map(entry).collect();
    StreamAccessLogsMessage {
        identifier,
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })),
    }
}

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn to_reviews(version: &str) -> AccessLogCommon {
    let fields = json!({
        "reporter": "source", "source_workload": "productpage-v1", "source_namespace": "default",
        "source_app": "productpage", "source_principal": identity("productpage"),
        "destination_workload": format!("reviews-{version}"), "destination_namespace": "default",
        "destination_principal": identity("reviews"), "destination_service": "reviews.default.svc.cluster.local",
    });
    common(fields, REVIEWS, 12)
}

/// The same entry, telling of losses before it.
fn telling(mut common: AccessLogCommon, dropped: u64) -> AccessLogCommon {
    let metadata = common.metadata.get_or_insert_default();
    let fields = &mut metadata
        .filter_metadata
        .get_mut(names::metadata::GOSSAMER)
        .unwrap()
        .fields;
    fields.insert(names::metadata::DROPPED.into(), to_proto(json!(dropped)));
    common
}

fn edge<'a>(graph: &'a Value, source: &str, destination: &str) -> &'a Value {
    let edges = graph["edges"].as_array().unwrap();
    edges
        .iter()
        .find(|edge| edge["source"] == source && edge["destination"] == destination)
        .unwrap_or_else(|| panic!("no edge {source} -> {destination} in {graph:#}"))
}

#[tokio::test]
async fn reports_become_the_graph() {
    let mesh = mesh(&[]).await;
    let page = identifier("productpage-v1", 3);
    let v1 = http_message(page, &to_reviews("v1"), &[200; 79]);
    // A proxy whose queue was full says so with the next entry that gets through.
    let told = http_message(None, &telling(to_reviews("v1"), 4), &[200]);
    let v2 = http_message(None, &to_reviews("v2"), &[&[200; 15][..], &[503; 5]].concat());
    mesh.report("productpage", vec![v1, told, v2]).await.unwrap();

    // The same traffic from the other end, and a client without a proxy.
    let inbound = |principal: &str| {
        let fields = json!({"reporter": "destination", "source_principal": principal,
            "destination_workload": "reviews-v1", "destination_namespace": "default"});
        common(fields, "inbound|9080||", 9)
    };
    let meshed = http_message(
        identifier("reviews-v1", 0),
        &inbound(&identity("productpage")),
        &[200; 80],
    );
    let plain = http_message(None, &inbound("unknown"), &[200; 7]);
    mesh.report("reviews", vec![meshed, plain]).await.unwrap();

    let graph = mesh.get("/api/graph?window=60s").await;
    let v1 = edge(&graph, "productpage-v1.default", "reviews-v1.default");
    assert_eq!(
        (v1["requests"].as_u64(), v1["mtls"].as_bool()),
        (Some(80), Some(true)),
        "{graph:#}"
    );
    let v2 = edge(&graph, "productpage-v1.default", "reviews-v2.default");
    assert_eq!(
        (v2["requests"].as_u64(), v2["error_ratio"].as_f64()),
        (Some(20), Some(0.25))
    );
    assert_eq!(v2["codes"]["503"], 5);
    assert!((v2["p50_ms"].as_f64().unwrap() - 12.0).abs() < 0.5);
    let unmeshed = edge(&graph, "unknown", "reviews-v1.default");
    assert_eq!(
        (unmeshed["requests"].as_u64(), unmeshed["mtls"].as_bool()),
        (Some(7), Some(false))
    );
    assert_eq!(graph["edges"].as_array().unwrap().len(), 3);
    assert_eq!(graph["lost"]["dropped_by_proxies"], 7);
    let by_app = mesh.get("/api/graph?group=app").await;
    assert_eq!(
        edge(&by_app, "productpage.default", "reviews.default")["requests"],
        100
    );

    let top = mesh.get("/api/top?by=rps&limit=1").await;
    assert_eq!(top[0]["service"], "reviews.default.svc.cluster.local");
    let metrics = mesh.registry.encode();
    assert!(
        metrics.contains("mesh_telemetry_records_total{protocol=\"http\"} 187"),
        "{metrics}"
    );
    assert!(
        metrics.contains("mesh_edge_requests_total{reporter=\"source\",source_workload=\"productpage-v1\"")
    );
    mesh.trigger.drain();
}

#[tokio::test]
async fn connections_are_edges_too() {
    let mesh = mesh(&[]).await;
    let entry = TcpAccessLogEntry {
        common_properties: Some(common(
            json!({}),
            "outbound|6379||redis.default.svc.cluster.local",
            1,
        )),
        connection_properties: Some(ConnectionProperties {
            received_bytes: 1000,
            sent_bytes: 5000,
        }),
    };
    let logs = TcpAccessLogEntries {
        log_entry: vec![entry; 3],
    };
    let message = StreamAccessLogsMessage {
        identifier: identifier("ratings-v2", 0),
        log_entries: Some(LogEntries::TcpLogs(logs)),
    };
    mesh.report("ratings", vec![message]).await.unwrap();
    let graph = mesh.get("/api/graph").await;
    let redis = edge(&graph, "ratings-v2.default", "redis.default");
    assert_eq!(
        (redis["protocol"].as_str(), redis["requests"].as_u64()),
        (Some("tcp"), Some(3))
    );
    assert!(
        redis["received_bytes_per_second"].as_f64().unwrap()
            > redis["sent_bytes_per_second"].as_f64().unwrap()
    );
    mesh.trigger.drain();
}

#[tokio::test]
async fn nobody_without_a_certificate_of_the_mesh_and_nobody_for_others() {
    let mesh = mesh(&[]).await;
    for name in [None, Some("spiffe://other.mesh/ns/default/sa/x")] {
        let stream = tokio_stream::iter(vec![http_message(identifier("x", 0), &to_reviews("v1"), &[200])]);
        let result = AccessLogServiceClient::new(mesh.channel(name))
            .stream_access_logs(stream)
            .await;
        assert!(result.is_err(), "{name:?}");
    }
    let first = http_message(None, &to_reviews("v1"), &[200]);
    let status = mesh.report("productpage", vec![first]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    // `ratings` says that it is `productpage`.
    mesh.report(
        "ratings",
        vec![http_message(identifier("x", 0), &to_reviews("v1"), &[200; 4])],
    )
    .await
    .unwrap();
    let graph = mesh.get("/api/graph").await;
    assert_eq!(graph["edges"], json!([]));
    assert_eq!(graph["lost"]["refused"], 4);
    mesh.trigger.drain();
}

#[tokio::test]
async fn many_edges_stay_within_the_budget() {
    let mesh = mesh(&["--max-edges", "5"]).await;
    let mut identity = identifier("productpage-v1", 0);
    let messages = (0..50)
        .map(|n| http_message(identity.take(), &to_reviews(&format!("v{n}")), &[200; 2]))
        .collect();
    mesh.report("productpage", messages).await.unwrap();
    assert_eq!(mesh.state.series.len(), 5);
    let graph = mesh.get("/api/graph").await;
    assert_eq!(edge(&graph, "other", "other")["requests"], 90);
    assert_eq!(graph["lost"]["other"], 90);
    mesh.trigger.drain();
}

#[tokio::test]
async fn spans_become_traces() {
    let mesh = mesh(&[]).await;
    let span = |id: u8, parent: Vec<u8>| Span {
        trace_id: vec![7; 16],
        span_id: vec![id; 8],
        parent_span_id: parent,
        name: "reviews.default.svc.cluster.local:9080/*".into(),
        start_time_unix_nano: 1_000_000_000 + u64::from(id) * 1_000_000,
        end_time_unix_nano: 1_020_000_000,
        ..Span::default()
    };
    let bad = Span {
        trace_id: vec![1],
        ..span(3, vec![])
    };
    let spans = vec![span(1, vec![]), span(2, vec![1; 8]), bad];
    let scope = ScopeSpans { scope: None, spans };
    let resource = ResourceSpans {
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    let channel = mesh.channel(Some(&identity("productpage")));
    let request = ExportTraceServiceRequest {
        resource_spans: vec![resource],
    };
    let response = TraceServiceClient::new(channel)
        .export(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.partial_success.unwrap().rejected_spans, 1);

    let list = mesh.get("/api/traces").await;
    assert_eq!(
        (list[0]["service"].as_str(), list[0]["spans"].as_u64()),
        (Some("productpage.default"), Some(2))
    );
    let spans = mesh.get(&format!("/api/traces?id={}", "07".repeat(16))).await;
    assert_eq!(spans[1]["parent_span_id"], "01".repeat(8));
    assert!(
        get(mesh.dashboard, "/api/traces?id=nothing")
            .await
            .0
            .contains("404")
    );
    mesh.trigger.drain();
}

#[tokio::test]
async fn the_dashboard_answers_and_refuses() {
    let mesh = mesh(&[]).await;
    let (status, page) = get(mesh.dashboard, "/").await;
    assert!(
        status.contains("200") && page.contains("<!doctype html>"),
        "{status}"
    );
    for path in [
        "/api/graph?window=soon",
        "/api/graph?window=1d",
        "/api/graph?group=x",
        "/api/top?by=x",
    ] {
        let (status, body) = get(mesh.dashboard, path).await;
        assert!(status.contains("400"), "{path}: {status} {body}");
    }
    tokio::time::timeout(Duration::from_secs(5), async { mesh.trigger.drain() })
        .await
        .unwrap();
}
