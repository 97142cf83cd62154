use std::time::Duration;

use super::*;
use crate::{
    config::{
        action::Action,
        chain::Terminal,
        cluster::{Balance, Kind, Protocol},
        filter::HttpFilterKind,
        hcm::RouteSource,
        log::Sink,
    },
    decide::{Routed, testing::with_facts},
};

const FRONT: &str = include_str!("front.yaml");

#[test]
fn a_front_proxy_as_people_write_it() {
    let bootstrap = read(FRONT).unwrap();
    assert_eq!(bootstrap.admin, Some("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(
        (bootstrap.node.id.as_str(), bootstrap.dynamic.as_ref()),
        ("front-1", None)
    );
    let snapshot = bootstrap.snapshot();
    let listener = &snapshot.listeners["ingress"];
    let chain = &listener.chains[0];
    assert!(
        chain
            .tls
            .as_ref()
            .is_some_and(|tls| tls.alpn == [b"h2".to_vec(), b"http/1.1".to_vec()])
    );
    let Terminal::Http(hcm) = &chain.terminal else {
        panic!()
    };
    assert!(matches!(hcm.filters[0].kind, HttpFilterKind::Fault(_)) && hcm.filters.len() == 3);
    assert!(matches!(hcm.access_log[0].sink, Sink::Stdout(_)));
    let RouteSource::Inline(routes) = &hcm.routes else {
        panic!()
    };
    let cluster = |authority: &str, target: &str| {
        let headers = http::HeaderMap::new();
        with_facts(
            "GET",
            authority,
            target,
            &headers,
            |facts| match crate::decide::route(routes, facts, 0) {
                Routed::Found(decision) => match &decision.route(routes).action {
                    Action::Forward(_) => decision.cluster(routes, &headers).unwrap().to_owned(),
                    Action::Redirect(_) => "redirect".to_owned(),
                    Action::Direct(direct) => direct.status.as_str().to_owned(),
                },
                other => format!("{other:?}"),
            },
        )
    };
    assert_eq!(cluster("api.example.com", "/v1/books"), "books");
    assert_eq!(cluster("api.example.com", "/health"), "200");
    assert_eq!(cluster("www.example.com", "/"), "redirect");
    assert_eq!(cluster("other.com", "/"), "NotFound");

    let books = &snapshot.clusters["books"];
    assert_eq!(
        (books.balance, books.http.protocol),
        (Balance::LeastRequest { choices: 2 }, Protocol::Http2)
    );
    assert!(matches!(books.kind, Kind::StrictDns(_)));
    assert_eq!(books.outlier.map(|outlier| outlier.consecutive_5xx), Some(7));
    assert_eq!(books.breakers.default.requests, 4096);
    assert_eq!(books.connect_timeout, Duration::from_millis(250));
}

/// Changes one place of the good file and expects a refusal at that path.
fn refused(find: &str, replace: &str, path: &str) {
    assert!(FRONT.contains(find), "{find}");
    let reject = read(&FRONT.replacen(find, replace, 1)).unwrap_err();
    assert_eq!(reject.path, path, "{reject}");
}

#[test]
fn what_is_not_understood_is_refused_by_path() {
    let hcm = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    refused(
        "node:",
        "overload_manager: {refresh_interval: 1s}\nnode:",
        "overload_manager",
    );
    refused(
        "merge_slashes: true",
        "merge_slash: true",
        &format!("{hcm}.merge_slash"),
    );
    refused(
        "merge_slashes: true",
        "local_reply_config: {mappers: [{}]}",
        &format!("{hcm}.local_reply_config"),
    );
    refused(
        "prefix: /v1/",
        "prefixx: /v1/",
        &format!("{hcm}.route_config.virtual_hosts[0].routes[1].match.prefixx"),
    );
    refused(
        "timeout: 3s",
        "timeout: -3s",
        &format!("{hcm}.route_config.virtual_hosts[0].routes[1].route.timeout"),
    );
    refused(
        "lb_policy: LEAST_REQUEST",
        "health_checks: [{timeout: 1s, interval: 1s, tcp_health_check: {}}]",
        "static_resources.clusters[0].health_checks",
    );
    refused("cluster: books", "cluster: nobody", "listener \"ingress\"");
    refused(
        "port_value: 9901",
        "port_value: 99010",
        "admin.address.socket_address.port_value",
    );
}

#[test]
fn a_control_plane_by_ads() {
    let text = r#"
        node: {id: sidecar~10.0.0.1~a.b~b.svc.cluster.local, cluster: a}
        dynamic_resources:
          ads_config:
            api_type: DELTA_GRPC
            transport_api_version: V3
            grpc_services: [{envoy_grpc: {cluster_name: xds}}]
          cds_config: {ads: {}, resource_api_version: V3}
          lds_config: {ads: {}, resource_api_version: V3}
        static_resources:
          clusters:
          - name: xds
            type: STATIC
            connect_timeout: 1s
            load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 15010}}}}]}]}
    "#;
    let bootstrap = read(text).unwrap();
    let expect = Dynamic {
        cluster: "xds".into(),
        delta: true,
        listeners: true,
        clusters: true,
    };
    assert_eq!(bootstrap.dynamic, Some(expect));
    let reject = read(&text.replace("cluster_name: xds}}]", "cluster_name: other}}]")).unwrap_err();
    assert_eq!(reject.path, "dynamic_resources.ads_config.grpc_services");
}

#[test]
fn no_text_makes_it_panic() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "a: b",
        "{\"static_resources\": 3}",
        "\u{0}",
        "static_resources: {listeners: [{}]}",
    ] {
        let _ = read(text);
    }
    // Every prefix of a real file.
    let mut end = 0;
    while end < FRONT.len() {
        end += 101;
        if let Some(part) = FRONT.get(..end) {
            let _ = read(part);
        }
    }
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    const SMALL: &str = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}\nstatic_resources: \
                         {clusters: [{name: a, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: a, \
                         endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, \
                         port_value: 80}}}}]}]}}]}\n";
    let json = r#"{"node": {"id": "x", "metadata": {"a": [1, 2.5, null, "b"]}}, "static_resources": {"clusters": []}}"#;
    let mut refused = 0;
    crate::testing::damaged(&[SMALL.as_bytes(), json.as_bytes()], 1_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Err(reject) = read(text) {
            assert!(!reject.why.is_empty(), "{text}");
            refused += 1;
        }
    });
    assert!(refused > 500, "{refused}");
}
