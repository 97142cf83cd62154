//! Copies over real connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use mesh_runtime::tls::{Identity, IdentityCell};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::*;
use crate::{
    observe::Workload,
    testing::{Proxy, Server},
    worker::Own,
};

#[test]
fn the_shadow_of_a_host() {
    for (host, wanted) in [
        ("reviews", "reviews-shadow"),
        ("reviews:9080", "reviews-shadow:9080"),
        ("[::1]:80", "[::1]-shadow:80"),
        ("[::1]", "[::1]-shadow"),
    ] {
        assert_eq!(shadow(&HeaderValue::from_static(host)), wanted);
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: site.test:80\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn copies_go_to_the_other_cluster_and_nobody_waits() {
    let mut server = Server::start().await;
    let mut shadow = Server::slow(Duration::from_secs(3)).await;
    let routes = "{match: {prefix: /not}, route: {cluster: a, request_mirror_policies: [{cluster: b, runtime_fraction: \
                  {default_value: {numerator: 0}}}]}}, \
                  {match: {prefix: /}, request_headers_to_add: [{header: {key: x-more, value: '1'}}], route: {cluster: \
                  a, prefix_rewrite: /new/, request_mirror_policies: [{cluster: b}, {cluster: b, \
                  disable_shadow_host_suffix_append: true}]}}";
    let proxy = Proxy::http("", routes, &[("a", server.address), ("b", shadow.address)]).await;
    let start = Instant::now();
    let body = "some words ".repeat(20_000);
    let answer = proxy.send(&post("/old", &body)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("got it"),
        "{answer}"
    );
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let original = server.next().await;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let copy = shadow.next().await;
        assert_eq!((copy.method(), copy.uri()), (original.method(), original.uri()));
        assert_eq!(copy.uri(), "/new/old");
        assert_eq!(copy.headers()["x-more"], "1");
        assert!(copy.body() == body.as_bytes());
        hosts.push(copy.headers()["host"].to_str().unwrap().to_owned());
    }
    hosts.sort();
    assert_eq!(hosts, ["site.test-shadow:80", "site.test:80"]);
    proxy.get("/not", "").await;
    server.next().await;
    proxy.get("/", "").await;
    assert_eq!(shadow.next().await.method(), "GET");
    shadow.next().await;
    assert!(shadow.is_quiet());
    assert_eq!(proxy.number("http.in.rq_mirrored"), 4);
    proxy.until("cluster.b.upstream_rq_2xx", 4).await;
    proxy.until("cluster.b.upstream_rq_active", 0).await;
    assert_eq!(proxy.number("cluster.a.upstream_rq_2xx"), 3);
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted() {
    let mut server = Server::start().await;
    let mut shadow = Server::start().await;
    let nobody = "127.0.0.1:1".parse().unwrap();
    let routes = "{match: {prefix: /away}, route: {cluster: a, request_mirror_policies: [{cluster: c}]}}, \
                  {match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: b}]}}";
    let clusters = [("a", server.address), ("b", shadow.address), ("c", nobody)];
    let proxy = Proxy::http("", routes, &clusters).await;
    let answer = proxy.send(&post("/", &"x".repeat(BODY + 1))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.next().await.body().len(), BODY + 1);
    proxy.until("http.in.rq_mirror_dropped", 1).await;
    assert!(shadow.is_quiet());
    // A shadow that is away costs the original nothing.
    for _ in 0..3 {
        assert!(proxy.get("/away", "").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(proxy.number("http.in.rq_mirrored"), 3);
    proxy.until("cluster.c.upstream_cx_connect_fail", 3).await;
}

/// The identity of an account, from a mesh of this test.
fn identity(issuer: &Issuer<'_, KeyPair>, root: &CertificateDer<'static>, account: &str) -> IdentityCell {
    let mut params = CertificateParams::default();
    let name = format!("spiffe://cluster.local/ns/default/sa/{account}");
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

/// A bootstrap as a sidecar has it: one listener, one route, TLS by the mesh's identity on one of the sides.
fn sidecar(direction: &str, chain: &str, route: &str, clusters: &str) -> String {
    let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "envoy.extensions.filters.http.router.v3.Router";
    format!(
        "static_resources: {{clusters: [{{name: sds-grpc, connect_timeout: 1s}}, {clusters}], listeners: [{{name: l, \
         traffic_direction: {direction}, address: {{socket_address: {{address: 127.0.0.1, port_value: PORT}}}}, \
         filter_chains: [{{{chain} filters: [{{name: http, typed_config: {{'@type': type.googleapis.com/{manager}, \
         stat_prefix: in, route_config: {{name: r, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: \
         {{prefix: /}}, route: {route}}}]}}]}}, http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/{router}}}}}]}}}}]}}]}}]}}"
    )
}

fn cluster(name: &str, address: std::net::SocketAddr, more: &str) -> String {
    format!(
        "{{name: {name}, connect_timeout: 2s, {more} load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
        address.ip(),
        address.port()
    )
}

#[tokio::test]
async fn to_a_proxy_of_the_mesh_a_copy_goes_as_any_request() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let sds = "sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    let common = |protocols: &str| {
        format!(
            "common_tls_context: {{alpn_protocols: [{protocols}], tls_certificate_sds_secret_configs: [{{name: default, \
             {sds}}}], combined_validation_context: {{default_validation_context: {{}}, \
             validation_context_sds_secret_config: {{name: ROOTCA, {sds}}}}}}}"
        )
    };
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
    let (mut server, mut shadow) = (Server::start().await, Server::start().await);
    let inbound = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {tls}.DownstreamTlsContext, require_client_certificate: \
         true, {}}}}},",
        common("h2, http/1.1")
    );
    let inbound = sidecar(
        "INBOUND",
        &inbound,
        "{cluster: app}",
        &cluster("app", shadow.address, ""),
    );
    let far = Proxy::of_mesh(&inbound, identity(&issuer, &root, "reviews"), Own::default()).await;
    let upstream = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': {tls}.UpstreamTlsContext, sni: reviews, {}}}}},",
        common("istio-http/1.1, http/1.1")
    );
    let clusters = [
        cluster("a", server.address, ""),
        cluster("b", far.address, &upstream),
    ];
    let route = "{cluster: a, request_mirror_policies: [{cluster: b}]}";
    let outbound = sidecar("OUTBOUND", "", route, &clusters.join(", "));
    let own = Own {
        workload: Arc::new(Workload::from_metadata("page-v1;default;page;v1;Kubernetes")),
    };
    let near = Proxy::of_mesh(&outbound, identity(&issuer, &root, "page"), own).await;
    for n in 1..=3 {
        assert!(near.send(&post("/", "words")).await.starts_with("HTTP/1.1 200"));
        server.next().await;
        let copy = shadow.next().await;
        assert_eq!(
            (copy.headers()["host"].as_bytes(), &copy.body()[..]),
            (&b"site.test-shadow:80"[..], &b"words"[..])
        );
        assert!(
            !copy
                .headers()
                .keys()
                .any(|name| name.as_str().starts_with("x-gossamer"))
        );
        near.until("cluster.b.upstream_rq_2xx", n).await;
    }
    assert_eq!(
        near.number("cluster.b.upstream_cx_total"),
        1,
        "one connection carries them all"
    );
    assert_eq!(far.number("http.in.downstream_cx_http2_total"), 1);
    let samples = far.stats.collect();
    let counted = samples
        .iter()
        .find(|sample| sample.family.prometheus == "istio_requests_total")
        .unwrap();
    for label in [
        ("source_workload", "page-v1"),
        ("connection_security_policy", "mutual_tls"),
    ] {
        assert!(
            counted
                .labels
                .iter()
                .any(|(name, value)| (*name, value.as_str()) == label),
            "{label:?}"
        );
    }
}
