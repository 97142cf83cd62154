//! Objects in, clusters out.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::testing::{gateway, names, resource, sidecar};

fn cluster(objects: &str, name: &str) -> Value {
    resource(&sidecar("productpage"), objects, Type::Cluster, name)
}

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

#[test]
fn a_sidecar_has_every_port_and_the_three_that_always_exist() {
    let names = names(&sidecar("reviews"), "", Type::Cluster);
    for name in [
        REVIEWS,
        "outbound|6379||redis.default.svc.cluster.local",
        "inbound|8080||",
        "PassthroughCluster",
        "BlackHoleCluster",
        "InboundPassthroughCluster",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not among {names:?}"
        );
    }
}

#[test]
fn a_service_is_an_eds_cluster_whose_endpoints_say_whether_they_take_mesh_tls() {
    let cluster = cluster("", REVIEWS);
    assert_eq!(cluster["type"], "EDS");
    assert_eq!(cluster["eds_cluster_config"]["service_name"], REVIEWS);
    assert_eq!(cluster["eds_cluster_config"]["eds_config"]["ads"], json!({}));
    let matches = &cluster["transport_socket_matches"];
    assert_eq!(matches[0]["match"], json!({"tlsMode": "istio"}));
    assert_eq!(matches[1]["name"], "tlsMode-disabled");
    let context = &matches[0]["transport_socket"]["typed_config"];
    assert_eq!(
        context["sni"],
        "outbound_.9080_._.reviews.default.svc.cluster.local"
    );
    let common = &context["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["istio-http/1.1", "http/1.1"]));
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
    let names =
        &common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"];
    assert_eq!(names.as_array().map(Vec::len), Some(1));
    assert_eq!(
        names[0]["matcher"]["exact"],
        "spiffe://cluster.local/ns/default/sa/reviews"
    );
}

#[test]
fn subsets_have_clusters_and_their_settings_win() {
    let rule = r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 7}}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
";
    let v1 = cluster(rule, "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert_eq!(v1["lb_policy"], "RANDOM");
    assert_eq!(v1["circuit_breakers"]["thresholds"][0]["max_connections"], 7);
    assert_eq!(v1["metadata"]["filter_metadata"]["istio"]["subset"], "v1");
    assert_eq!(
        v1["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"
    );
    let v2 = cluster(rule, "outbound|9080|v2|reviews.default.svc.cluster.local");
    assert!(
        v2.get("lb_policy").is_none_or(|policy| policy == "ROUND_ROBIN"),
        "{v2}"
    );
    assert_eq!(v2["circuit_breakers"]["thresholds"][0]["max_connections"], 7);
}

#[test]
fn a_rule_about_tls_replaces_what_is_automatic() {
    let rule = |mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: r, namespace: default}}\n\
             spec: {{host: reviews, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
        )
    };
    let off = cluster(&rule("DISABLE"), REVIEWS);
    assert!(off.get("transport_socket").is_none() && off.get("transport_socket_matches").is_none());
    let mesh = cluster(&rule("ISTIO_MUTUAL"), REVIEWS);
    let common = &mesh["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
}

#[test]
fn outside_services_are_resolved_or_reached_as_they_are() {
    let entry = |resolution: &str, hosts: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: out, namespace: default}}\n\
             spec: {{hosts: [{hosts}], location: MESH_EXTERNAL, resolution: {resolution}, \
             ports: [{{number: 443, name: tls, protocol: TLS}}]}}\n"
        )
    };
    let dns = cluster(&entry("DNS", "example.com"), "outbound|443||example.com");
    assert_eq!(dns["type"], "STRICT_DNS");
    let endpoint = &dns["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(
        endpoint["address"]["socket_address"],
        json!({"address": "example.com", "port_value": 443})
    );
    assert!(
        dns.get("transport_socket_matches").is_none(),
        "the mesh's TLS is not for the outside"
    );
    let none = cluster(&entry("NONE", "'*.example.com'"), "outbound|443||*.example.com");
    assert_eq!(
        (&none["type"], &none["lb_policy"]),
        (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED"))
    );
}

#[test]
fn inbound_clusters_come_from_an_address_that_is_not_redirected() {
    let inbound = resource(&sidecar("reviews"), "", Type::Cluster, "inbound|8080||");
    assert_eq!(inbound["type"], "ORIGINAL_DST");
    assert_eq!(
        inbound["upstream_bind_config"]["source_address"]["address"],
        "127.0.0.6"
    );
}

#[test]
fn a_headless_service_is_reached_where_the_client_wants() {
    let peers = cluster("", "outbound|2380||peers.default.svc.cluster.local");
    assert_eq!(peers["type"], "ORIGINAL_DST");
    assert!(
        peers.get("transport_socket").is_none(),
        "its endpoint does not take the mesh's TLS"
    );
}

#[test]
fn a_gateway_has_only_what_its_rules_lead_to() {
    let objects = r"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: default}
spec: {hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: reviews}}]}]}
";
    assert_eq!(
        names(&gateway(), objects, Type::Cluster),
        [REVIEWS, "BlackHoleCluster"]
    );
    assert_eq!(names(&gateway(), objects, Type::Endpoint), [REVIEWS]);
}

#[test]
fn records_travel_by_mutual_tls_though_telemetry_has_no_proxy() {
    let telemetry = r"
apiVersion: v1
kind: Service
metadata: {name: telemetry, namespace: istio-system}
spec: {clusterIP: 10.96.0.9, selector: {app: telemetry}, ports: [{name: grpc, port: 9091}, {name: http, port: 15014}]}
";
    let records = cluster(
        telemetry,
        "outbound|9091||telemetry.istio-system.svc.cluster.local",
    );
    let context = &records["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["alpn_protocols"], json!(["istio-h2", "h2"]));
    let pages = cluster(
        telemetry,
        "outbound|15014||telemetry.istio-system.svc.cluster.local",
    );
    assert!(pages.get("transport_socket").is_none());
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn with_policy(policy: &str) -> Value {
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: r, namespace: default}}\n\
         spec: {{host: reviews, trafficPolicy: {policy}}}\n"
    );
    cluster(&rule, REVIEWS)
}

#[test]
fn new_endpoints_begin_as_slowly_as_the_rule_says() {
    let cluster = with_policy(
        "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, minimumPercent: 5, aggression: 1.5}}}",
    );
    let slow = &cluster["round_robin_lb_config"]["slow_start_config"];
    assert_eq!(slow["slow_start_window"], "30s");
    assert_eq!(slow["min_weight_percent"]["value"], 5.0);
    assert_eq!(slow["aggression"]["default_value"], 1.5);
    let plain = with_policy("{loadBalancer: {simple: LEAST_REQUEST, warmupDurationSecs: 10s}}");
    let slow = &plain["least_request_lb_config"]["slow_start_config"];
    assert_eq!(slow, &json!({"slow_start_window": "10s"}));
}

#[test]
fn retries_have_a_budget() {
    let said = with_policy("{retryBudget: {percent: 25, minRetryConcurrency: 7, budgetInterval: 2s}}");
    assert_eq!(
        said["circuit_breakers"]["thresholds"][0]["retry_budget"],
        json!({"budget_percent": {"value": 25.0}, "min_retry_concurrency": 7, "budget_interval": "2s"})
    );
    let unsaid = with_policy("{connectionPool: {http: {maxRetries: 4}}}");
    let thresholds = &unsaid["circuit_breakers"]["thresholds"][0];
    assert!(thresholds.get("retry_budget").is_none() && thresholds["max_retries"] == 4);
}

#[test]
fn which_answers_are_errors_is_told() {
    let matcher = |codes: &str| {
        let policy = format!("{{outlierDetection: {{outlierDetectionHttpErrorCodes: [{codes}]}}}}");
        let cluster = with_policy(&policy);
        cluster["typed_extension_protocol_options"][OPTIONS]["outlier_detection"]["error_matcher"].clone()
    };
    let one = |code: &str| json!({"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": code}}]}});
    assert_eq!(matcher("429"), one("429"));
    assert_eq!(
        matcher("429, 503"),
        json!({"or_match": {"rules": [one("429"), one("503")]}})
    );
    assert_eq!(matcher(""), Value::Null);
}

#[test]
fn connections_are_kept_alive_by_pings() {
    let cluster = with_policy(
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 10s, timeout: 2s}}}}",
    );
    let options = &cluster["typed_extension_protocol_options"][OPTIONS]["explicit_http_config"];
    assert_eq!(
        options["http2_protocol_options"]["connection_keepalive"],
        json!({"interval": "10s", "timeout": "2s"})
    );
}

#[test]
fn the_proxy_protocol_stands_outside_of_whatever_secures_the_connection() {
    let automatic = with_policy("{proxyProtocol: {version: V2}}");
    for (row, inner) in [
        (0, "envoy.transport_sockets.tls"),
        (1, "envoy.transport_sockets.raw_buffer"),
    ] {
        let socket = &automatic["transport_socket_matches"][row]["transport_socket"];
        assert_eq!(socket["name"], "envoy.transport_sockets.upstream_proxy_protocol");
        assert_eq!(socket["typed_config"]["config"]["version"], "V2");
        assert_eq!(socket["typed_config"]["transport_socket"]["name"], inner);
    }
    let plain = with_policy("{proxyProtocol: {version: V1}, tls: {mode: DISABLE}}");
    let inner = &plain["transport_socket"]["typed_config"]["transport_socket"]["name"];
    assert_eq!(inner, "envoy.transport_sockets.raw_buffer");
}
