//! Copies over real connections.

use std::time::{Duration, Instant};

use http::HeaderValue;

use super::*;
use crate::testing::{Proxy, Server};

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
                  {match: {prefix: /lost}, route: {cluster: a, request_mirror_policies: [{cluster: missing}]}}, \
                  {match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: b}]}}";
    let clusters = [("a", server.address), ("b", shadow.address), ("c", nobody)];
    let proxy = Proxy::http("", routes, &clusters).await;
    let answer = proxy.send(&post("/", &"x".repeat(BODY + 1))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.next().await.body().len(), BODY + 1);
    proxy.until("http.in.rq_mirror_dropped", 1).await;
    proxy.get("/lost", "").await;
    proxy.until("http.in.rq_mirror_dropped", 2).await;
    assert!(shadow.is_quiet());
    // A shadow that is away costs the original nothing.
    for _ in 0..3 {
        assert!(proxy.get("/away", "").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(proxy.number("http.in.rq_mirrored"), 3);
    proxy.until("cluster.c.upstream_cx_connect_fail", 3).await;
}
