//! What a Sidecar changes: which ports of which services are there, where the proxy listens for them, and what it takes in.

use std::collections::BTreeSet;

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::{
    testing::{names, resource, sidecar},
    view::Viewer,
};

fn object(spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: default}}\nspec:\n{indented}"
    )
}

fn get(spec: &str, kind: Type, name: &str) -> Value {
    resource(&sidecar("reviews"), &object(spec), kind, name)
}

fn listed(viewer: &Viewer, spec: &str, kind: Type) -> BTreeSet<String> {
    names(viewer, &object(spec), kind).into_iter().collect()
}

fn chain<'a>(listener: &'a Value, name: &str) -> &'a Value {
    let chains = listener["filter_chains"].as_array().unwrap();
    let named = chains.iter().find(|chain| chain["name"] == name);
    named.unwrap_or_else(|| panic!("no chain {name} in {listener:#}"))
}

const PER_PORT: &str = "egress:\n\
    - {port: {number: 9080, protocol: HTTP, name: http}, hosts: [./reviews.default.svc.cluster.local]}\n\
    - {hosts: [./redis.default.svc.cluster.local, ./ratings.default.svc.cluster.local]}\n";

#[test]
fn hosts_count_on_their_listeners_port() {
    let clusters = listed(&sidecar("x"), PER_PORT, Type::Cluster);
    let has = |name: &str| clusters.contains(name);
    assert!(
        has("outbound|9080||reviews.default.svc.cluster.local"),
        "{clusters:?}"
    );
    assert!(has("outbound|6379||redis.default.svc.cluster.local"));
    assert!(
        !has("outbound|9080||ratings.default.svc.cluster.local"),
        "the listener of 9080 does not have it"
    );
    assert!(!has("outbound|7000||odd.default.svc.cluster.local"));
    let table = get(PER_PORT, Type::Route, "9080");
    let hosts: Vec<&str> = table["virtual_hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["name"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, ["reviews.default.svc.cluster.local:9080", "allow_any"]);
    let alone = "egress: [{port: {number: 6379, protocol: TCP, name: tcp}, hosts: ['*/*']}]";
    let seen = listed(&sidecar("x"), alone, Type::Listener);
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(seen, ["10.96.0.3_6379", "virtualInbound", "virtualOutbound"]);
}

#[test]
fn a_listener_is_where_the_sidecar_says() {
    let bound = "egress:\n\
        - {port: {number: 9080, protocol: HTTP, name: http}, captureMode: NONE, bind: 127.0.0.2, hosts: ['./*']}\n\
        - {port: {number: 6379, protocol: TCP, name: tcp}, captureMode: NONE, hosts: ['./*']}\n\
        - {port: {number: 7000, protocol: HTTP, name: odd}, bind: 10.1.2.3, hosts: ['./*']}\n\
        - {port: {number: 2380, protocol: TCP, name: peers}, captureMode: NONE, hosts: ['./*']}\n";
    let http = get(bound, Type::Listener, "127.0.0.2_9080");
    assert_eq!(http["bind_to_port"], Value::Null, "bound is the default");
    assert_eq!(
        http["address"]["socket_address"],
        json!({"address": "127.0.0.2", "port_value": 9080})
    );
    let table = get(bound, Type::Route, "9080");
    let last = table["virtual_hosts"].as_array().unwrap().last().unwrap();
    assert_eq!(
        last["name"], "block_all",
        "letting it go would be to the proxy itself"
    );

    let tcp = get(bound, Type::Listener, "127.0.0.1_6379");
    assert_eq!(tcp["bind_to_port"], Value::Null);
    let proxy = &tcp["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(proxy["cluster"], "outbound|6379||redis.default.svc.cluster.local");

    let captured = get(bound, Type::Listener, "10.1.2.3_7000");
    assert_eq!(captured["bind_to_port"], false);
    let manager = &captured["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(
        manager["rds"]["route_config_name"], "7000",
        "the Sidecar says what is spoken"
    );

    let headless = get(
        bound,
        Type::Cluster,
        "outbound|2380||peers.default.svc.cluster.local",
    );
    assert_eq!(headless["type"], "EDS", "there is no original destination");
}

#[test]
fn a_pod_without_redirection_is_bound() {
    let mut viewer = sidecar("x");
    viewer.intercepts = false;
    let spec = "egress: [{hosts: ['./redis.default.svc.cluster.local']}]";
    assert!(listed(&viewer, spec, Type::Listener).contains("127.0.0.1_6379"));
    let redirected = "egress: [{hosts: ['./redis.default.svc.cluster.local'], captureMode: IPTABLES}]";
    assert!(listed(&viewer, redirected, Type::Listener).contains("10.96.0.3_6379"));
}

#[test]
fn unknown_traffic_goes_by_the_egress_proxy() {
    let spec = "outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: ratings, subset: v1, port: {number: 9080}}}";
    const PROXY: &str = "outbound|9080|v1|ratings.default.svc.cluster.local";
    let all = get(spec, Type::Listener, "virtualOutbound");
    let rest = &all["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(rest["cluster"], PROXY);
    let table = get(spec, Type::Route, "9080");
    let hosts = table["virtual_hosts"].as_array().unwrap();
    let last = hosts.last().unwrap();
    assert_eq!(
        (&last["name"], &last["routes"][0]["route"]["cluster"]),
        (&json!("allow_any"), &json!(PROXY))
    );
    let blocked = get(
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
        Type::Listener,
        "virtualOutbound",
    );
    let rest = &blocked["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(rest["cluster"], "BlackHoleCluster");
}

const INGRESS: &str = "ingress:\n\
    - {port: {number: 8081, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080', \
    connectionPool: {http: {http2MaxRequests: 7}}}\n\
    - {port: {number: 8443, protocol: HTTPS, name: https}, bind: 10.0.0.1, defaultEndpoint: '0.0.0.0:8080', \
    tls: {mode: MUTUAL, serverCertificate: /c.pem, privateKey: /k.pem, caCertificates: /ca.pem}}\n\
    - {port: {number: 9000, protocol: TCP, name: tcp}, captureMode: NONE, defaultEndpoint: '127.0.0.1:9001'}\n\
    - {port: {number: 9002, protocol: TCP, name: same}}\n\
    inboundConnectionPool: {tcp: {maxConnections: 3, connectTimeout: 2s, idleTimeout: 5s, tcpKeepalive: {time: 60s}}}\n";

#[test]
fn ingress_listeners_stand_for_all_ports_of_the_workload() {
    let mut viewer = sidecar("reviews");
    viewer.address = "10.0.0.9".parse().ok();
    let clusters = listed(&viewer, INGRESS, Type::Cluster);
    let inbound: Vec<&String> = clusters
        .iter()
        .filter(|name| name.starts_with("inbound|"))
        .collect();
    assert_eq!(
        inbound,
        [
            "inbound|8081||",
            "inbound|8443||",
            "inbound|9000||",
            "inbound|9002||"
        ],
        "8080, which the service leads to, is not among them"
    );
    let cluster = |port: u16| {
        resource(
            &viewer,
            &object(INGRESS),
            Type::Cluster,
            &format!("inbound|{port}||"),
        )
    };
    let endpoint = |cluster: &Value| {
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        let socket = &endpoint["address"]["socket_address"];
        format!(
            "{}:{}",
            socket["address"].as_str().unwrap_or("-"),
            socket["port_value"]
        )
    };
    assert_eq!(endpoint(&cluster(8081)), "127.0.0.1:8080");
    assert_eq!(endpoint(&cluster(8443)), "10.0.0.9:8080");
    assert_eq!(
        cluster(8081)["upstream_bind_config"]["source_address"]["address"],
        "127.0.0.6"
    );
    assert_eq!(cluster(9002)["type"], "ORIGINAL_DST");
    let service = &cluster(8081)["metadata"]["filter_metadata"]["istio"]["services"][0]["name"];
    assert_eq!(*service, "reviews");
    let limits = |port: u16, name: &str| cluster(port)["circuit_breakers"]["thresholds"][0][name].clone();
    assert_eq!(
        (limits(8081, "max_requests"), limits(8081, "max_connections")),
        (json!(7), json!(u32::MAX)),
        "its own pool, as a whole"
    );
    assert_eq!(limits(9000, "max_connections"), 3);
    assert_eq!(cluster(9000)["connect_timeout"], "2s");
    assert_eq!(
        cluster(9000)["upstream_connection_options"]["tcp_keepalive"]["keepalive_time"],
        60
    );
}

#[test]
fn ingress_listeners_have_their_own_tls_and_sockets() {
    let all = get(INGRESS, Type::Listener, "virtualInbound");
    let http = chain(&all, "8081_http");
    assert_eq!(http["filter_chain_match"]["destination_port"], 8081);
    let tls = chain(&all, "8443_tls");
    assert_eq!(
        tls["filter_chain_match"]["prefix_ranges"][0],
        json!({"address_prefix": "10.0.0.1", "prefix_len": 32})
    );
    let context = &tls["transport_socket"]["typed_config"];
    assert_eq!(context["require_client_certificate"], true);
    assert_eq!(
        context["common_tls_context"]["tls_certificates"][0]["private_key"]["filename"],
        "/k.pem"
    );
    assert_eq!(
        tls["filters"][0]["name"], "envoy.filters.network.http_connection_manager",
        "HTTP is inside"
    );
    chain(&all, "8443_mtls_http");
    let names: Vec<&str> = all["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| chain["name"].as_str().unwrap())
        .collect();
    for absent in ["8443_http", "8080_http", "9000_tcp"] {
        assert!(!names.contains(&absent), "{absent} is among {names:?}");
    }
    let bound = get(INGRESS, Type::Listener, "inbound_0.0.0.0_9000");
    assert_eq!(bound["bind_to_port"], Value::Null);
    let tcp = chain(&bound, "9000_tcp");
    assert_eq!(tcp["filter_chain_match"]["destination_port"], Value::Null);
    let proxy = &tcp["filters"][0]["typed_config"];
    assert_eq!(
        (&proxy["cluster"], &proxy["idle_timeout"]),
        (&json!("inbound|9000||"), &json!("5s"))
    );
}

#[test]
fn a_pool_for_all_inbound_ports() {
    let spec = "inboundConnectionPool: {http: {maxRequestsPerConnection: 2, h2UpgradePolicy: UPGRADE, idleTimeout: 9s}}";
    let cluster = get(spec, Type::Cluster, "inbound|8080||");
    assert_eq!(
        cluster["type"], "ORIGINAL_DST",
        "the ports are still the service's"
    );
    let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        options["common_http_protocol_options"]["max_requests_per_connection"],
        2
    );
    assert_eq!(options["common_http_protocol_options"]["idle_timeout"], "9s");
    assert!(options["explicit_http_config"]["http2_protocol_options"].is_object());
}
