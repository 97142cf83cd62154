//! How long does it take to route a request? A sidecar's outbound configuration (many hosts, few routes each), a
//! gateway's (one host, many routes), and the filter chain of an inbound listener.

use std::{fmt::Write as _, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use mesh_proto::envoy_json::from_text;
use mesh_proxy::{
    config::{read, route::RouteConfig},
    decide::{
        self, Routed,
        facts::{Connection, Facts, canonical_path},
    },
};

fn sidecar(hosts: usize) -> RouteConfig {
    let mut text = String::from("name: '9080'\nvirtual_hosts:\n");
    for n in 0..hosts {
        let _ = writeln!(
            text,
            "- name: s{n}\n  domains: [s{n}, 's{n}:9080', s{n}.default, s{n}.default.svc.cluster.local, \
             's{n}.default.svc.cluster.local:9080', 10.96.{}.{}]\n  routes:\n  \
             - match: {{prefix: /, headers: [{{name: end-user, string_match: {{exact: jason}}}}]}}\n    route: {{cluster: a}}\n  \
             - match: {{prefix: /}}\n    route: {{weighted_clusters: {{clusters: [{{name: a, weight: 80}}, {{name: b, weight: 20}}]}}}}",
            n / 250,
            n % 250
        );
    }
    config(&text)
}

fn gateway(routes: usize) -> RouteConfig {
    let mut text = String::from("name: http.80\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n");
    for n in 0..routes {
        let _ = writeln!(
            text,
            "  - {{match: {{prefix: /app{n}/}}, route: {{cluster: c{n}}}}}"
        );
    }
    config(&text)
}

fn config(text: &str) -> RouteConfig {
    let message = from_text(text).unwrap_or_else(|error| panic!("{error}"));
    read::route_config(message).unwrap_or_else(|reject| panic!("{reject}"))
}

fn ask(config: &RouteConfig, authority: &str, path: &str, headers: &HeaderMap, random: u64) -> Routed {
    let connection = Connection {
        source: ([10, 244, 0, 7], 40_000).into(),
        destination: ([10, 96, 0, 1], 9080).into(),
        server_name: None,
        tls: false,
        peer: None,
    };
    let facts = Facts {
        method: &Method::GET,
        scheme: "http",
        authority,
        path,
        query: None,
        headers,
        client: connection.source.ip(),
        tokens: &[],
        connection: &connection,
    };
    decide::route(config, &facts, random)
}

fn routing(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/8"));
    headers.insert(
        "x-request-id",
        HeaderValue::from_static("c7f1e0d0-0000-4000-8000-000000000000"),
    );
    for hosts in [4, 1000] {
        let config = sidecar(hosts);
        let mut random = 0u64;
        criterion.bench_function(&format!("route/sidecar/{hosts} hosts"), |bench| {
            bench.iter(|| {
                random = random.wrapping_add(0x9E37_79B9);
                ask(
                    black_box(&config),
                    "s3.default.svc.cluster.local:9080",
                    "/reviews/0",
                    &headers,
                    random,
                )
            });
        });
    }
    let config = gateway(5000);
    criterion.bench_function("route/gateway/first of 5000", |bench| {
        bench.iter(|| ask(black_box(&config), "example.com", "/app0/x", &headers, 0));
    });
    criterion.bench_function("route/gateway/last of 5000", |bench| {
        bench.iter(|| ask(black_box(&config), "example.com", "/app4999/x", &headers, 0));
    });
    let rules = mesh_proxy::config::hcm::PathRules {
        normalize: true,
        merge_slashes: true,
        ..Default::default()
    };
    criterion.bench_function("path/canonical already", |bench| {
        bench.iter(|| canonical_path(black_box("/api/v1/products/0/reviews"), &rules));
    });
}

criterion_group!(benches, routing);
criterion_main!(benches);
