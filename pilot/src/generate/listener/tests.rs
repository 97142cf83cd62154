//! What listens for what.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::testing::{gateway, names, resource, sidecar};

fn listener(app: &str, objects: &str, name: &str) -> Value {
    resource(&sidecar(app), objects, Type::Listener, name)
}

/// Name → chain.
fn chain<'a>(listener: &'a Value, name: &str) -> &'a Value {
    let chains = listener["filter_chains"].as_array().unwrap();
    chains
        .iter()
        .find(|chain| chain["name"] == name)
        .unwrap_or_else(|| panic!("no chain {name} in {listener:#}"))
}

fn chain_names(listener: &Value) -> Vec<&str> {
    listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| chain["name"].as_str().unwrap())
        .collect()
}

fn filter_names(chain: &Value) -> Vec<&str> {
    chain["filters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|filter| filter["name"].as_str().unwrap())
        .collect()
}

fn http_filters(chain: &Value) -> Vec<&str> {
    let manager = &chain["filters"][0]["typed_config"];
    manager["http_filters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|filter| filter["name"].as_str().unwrap())
        .collect()
}

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: default}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

#[test]
fn a_sidecar_listens_for_every_address_a_workload_may_want() {
    let names = names(&sidecar("reviews"), "", Type::Listener);
    assert_eq!(
        names,
        [
            "virtualOutbound",
            "virtualInbound",
            "0.0.0.0_9080",
            "10.0.0.5_2380",
            "10.96.0.3_6379",
            "10.96.0.4_7000",
        ]
    );
}

#[test]
fn virtual_outbound_hands_over_and_lets_the_unknown_pass() {
    let all = listener("reviews", "", "virtualOutbound");
    assert_eq!(all["use_original_dst"], true);
    assert_eq!(all["traffic_direction"], "OUTBOUND");
    assert_eq!(
        all["address"]["socket_address"],
        json!({"address": "0.0.0.0", "port_value": 15001})
    );
    assert_eq!(
        all["default_filter_chain"]["filters"][0]["typed_config"]["cluster"],
        "PassthroughCluster"
    );
    let own = chain(&all, "virtualOutbound-blackhole");
    assert_eq!(own["filter_chain_match"]["destination_port"], 15001);
    assert_eq!(own["filters"][0]["typed_config"]["cluster"], "BlackHoleCluster");
}

#[test]
fn http_tcp_and_undeclared_ports() {
    let http = listener("reviews", "", "0.0.0.0_9080");
    assert_eq!(http["bind_to_port"], false);
    let manager = &http["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["rds"]["route_config_name"], "9080");
    assert_eq!(manager["stat_prefix"], "outbound_0.0.0.0_9080");
    assert_eq!(manager["upgrade_configs"][0]["upgrade_type"], "websocket");
    let filters = [
        "envoy.filters.http.fault",
        "envoy.filters.http.cors",
        "envoy.filters.http.router",
    ];
    assert_eq!(http_filters(&http["filter_chains"][0]), filters);

    let tcp = listener("reviews", "", "10.96.0.3_6379");
    let proxy = &tcp["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(proxy["cluster"], "outbound|6379||redis.default.svc.cluster.local");

    let odd = listener("reviews", "", "10.96.0.4_7000");
    assert_eq!(
        odd["listener_filters"][0]["name"],
        "envoy.filters.listener.http_inspector"
    );
    assert_eq!(odd["continue_on_listener_filters_timeout"], true);
    let found = &odd["filter_chains"][0];
    assert_eq!(
        found["filter_chain_match"]["application_protocols"],
        json!(["http/1.0", "http/1.1", "h2c"])
    );
    let table = &found["filters"][0]["typed_config"]["rds"]["route_config_name"];
    assert_eq!(*table, "odd.default.svc.cluster.local:7000");
}

#[test]
fn a_stock_envoy_is_told_what_to_offer_for_an_undeclared_port() {
    let mut envoy = sidecar("reviews");
    envoy.ours = false;
    let odd = resource(&envoy, "", Type::Listener, "10.96.0.4_7000");
    assert_eq!(
        filter_names(&odd["default_filter_chain"])[0],
        "envoy.filters.network.set_filter_state"
    );
}

#[test]
fn permissive_takes_both_strict_one_disable_the_other() {
    let permissive = listener("reviews", "", "virtualInbound");
    let names = chain_names(&permissive);
    for name in [
        "8080_mtls_http",
        "8080_tls",
        "8080_http",
        "virtualInbound-catchall-mtls",
        "virtualInbound-catchall-tcp",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let mutual = chain(&permissive, "8080_mtls_http");
    let offered = &mutual["filter_chain_match"]["application_protocols"];
    assert_eq!(
        *offered,
        json!(["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio"])
    );
    let context = &mutual["transport_socket"]["typed_config"];
    assert_eq!(context["require_client_certificate"], true);
    let validation = &context["common_tls_context"]["combined_validation_context"];
    assert_eq!(
        validation["default_validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["prefix"],
        "spiffe://cluster.local/"
    );
    let manager = &mutual["filters"][0]["typed_config"];
    assert_eq!(manager["forward_client_cert_details"], "APPEND_FORWARD");
    assert_eq!(
        manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"],
        "inbound|8080||"
    );

    let strict = listener("reviews", &peer_authentication("STRICT"), "virtualInbound");
    let names = chain_names(&strict);
    assert_eq!(
        names,
        [
            "virtualInbound-blackhole",
            "8080_mtls_http",
            "virtualInbound-catchall-mtls"
        ]
    );

    let disable = listener("reviews", &peer_authentication("DISABLE"), "virtualInbound");
    let names = chain_names(&disable);
    assert_eq!(
        names,
        [
            "virtualInbound-blackhole",
            "8080_http",
            "virtualInbound-catchall-tcp"
        ]
    );
}

#[test]
fn a_port_may_differ_from_its_workload() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: default}\n\
                  spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}, \
                  portLevelMtls: {9999: {mode: DISABLE}, 8080: {mode: PERMISSIVE}}}\n";
    let names_of = listener("reviews", policy, "virtualInbound");
    let names = chain_names(&names_of);
    assert!(
        names.contains(&"8080_http") && names.contains(&"9999_tcp"),
        "{names:?}"
    );
    assert!(!names.contains(&"virtualInbound-catchall-tcp"), "{names:?}");
}

#[test]
fn undeclared_inbound_ports_are_found_out() {
    let all = listener("odd", "", "virtualInbound");
    let names = chain_names(&all);
    for name in [
        "7000_mtls_http",
        "7000_mtls_tcp",
        "7000_tls",
        "7000_http",
        "7000_tcp",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let last = all["listener_filters"].as_array().unwrap().last().unwrap();
    assert_eq!(last["name"], "envoy.filters.listener.http_inspector");
}

#[test]
fn policies_stand_before_everything_else() {
    let policy = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-reviews, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/reviews]}}], to: [{operation: {methods: [GET]}}]}]
";
    let all = listener("ratings", policy, "virtualInbound");
    assert_eq!(
        http_filters(chain(&all, "9080_mtls_http"))[0],
        "envoy.filters.http.rbac"
    );
    let passed = chain(&all, "virtualInbound-catchall-mtls");
    assert_eq!(
        filter_names(passed),
        ["envoy.filters.network.rbac", "envoy.filters.network.tcp_proxy"]
    );
    let rules = &passed["filters"][0]["typed_config"]["rules"];
    assert!(
        rules.get("policies").is_none(),
        "a rule about methods allows no plain connection: {rules}"
    );
}

#[test]
fn logs_and_traces_go_to_telemetry_where_there_is_one() {
    let telemetry = r"
apiVersion: v1
kind: Service
metadata: {name: telemetry, namespace: istio-system}
spec: {clusterIP: 10.96.0.9, selector: {app: telemetry}, ports: [{name: grpc, port: 9091}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'accessLogFile: /dev/stdout'}
";
    let http = listener("reviews", telemetry, "0.0.0.0_9080");
    let manager = &http["filter_chains"][0]["filters"][0]["typed_config"];
    let logs = manager["access_log"].as_array().unwrap();
    assert_eq!(logs[0]["typed_config"]["path"], "/dev/stdout");
    let service = &logs[1]["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"];
    assert_eq!(
        *service,
        "outbound|9091||telemetry.istio-system.svc.cluster.local"
    );
    assert_eq!(manager["tracing"]["random_sampling"]["value"], 1.0);
    let off = format!(
        "{telemetry}---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
         metadata: {{name: t, namespace: default}}\n\
         spec: {{accessLogging: [{{disabled: true}}], tracing: [{{disableSpanReporting: true}}]}}\n"
    );
    let http = listener("reviews", &off, "0.0.0.0_9080");
    let manager = &http["filter_chains"][0]["filters"][0]["typed_config"];
    assert!(
        manager.get("access_log").is_none() && manager.get("tracing").is_none(),
        "{manager}"
    );
}

const GATEWAY: &str = r"
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec: {clusterIP: 10.96.0.8, selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: a}}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [b.test], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: default}
spec:
  hosts: [b.test]
  gateways: [g]
  tls:
  - match: [{port: 443, sniHosts: [b.test]}]
    route: [{destination: {host: redis}}]
";

#[test]
fn a_gateway_binds_the_ports_behind_its_service() {
    let all = names(&gateway(), GATEWAY, Type::Listener);
    assert_eq!(all, ["0.0.0.0_8080", "0.0.0.0_8443"]);
    let plain = resource(&gateway(), GATEWAY, Type::Listener, "0.0.0.0_8080");
    assert!(plain.get("bind_to_port").is_none(), "bound");
    let manager = &plain["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["rds"]["route_config_name"], "http.8080");
    assert_eq!(manager["use_remote_address"], true);

    let tls = resource(&gateway(), GATEWAY, Type::Listener, "0.0.0.0_8443");
    assert_eq!(
        tls["listener_filters"][0]["name"],
        "envoy.filters.listener.tls_inspector"
    );
    let chains = tls["filter_chains"].as_array().unwrap();
    assert_eq!(chains[0]["filter_chain_match"]["server_names"], json!(["a.test"]));
    let context = &chains[0]["transport_socket"]["typed_config"]["common_tls_context"];
    let secret = &context["tls_certificate_sds_secret_configs"][0];
    assert_eq!(
        (&secret["name"], &secret["sds_config"]["ads"]),
        (&json!("kubernetes://a"), &json!({}))
    );
    assert_eq!(chains[1]["filter_chain_match"]["server_names"], json!(["b.test"]));
    assert!(chains[1].get("transport_socket").is_none());
    let target = &chains[1]["filters"][0]["typed_config"]["cluster"];
    assert_eq!(*target, "outbound|6379||redis.default.svc.cluster.local");
}

#[test]
fn certificates_may_be_in_files() {
    let mut envoy = gateway();
    envoy.source = crate::generate::cluster::tls::IdentitySource::Files {
        certificate: "/c".into(),
        key: "/k".into(),
        roots: "/r".into(),
    };
    let objects = GATEWAY.replace(
        "credentialName: a}",
        "credentialName: a, minProtocolVersion: TLSV1_2}",
    );
    let tls = resource(&envoy, &objects, Type::Listener, "0.0.0.0_8443");
    let context = &tls["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["tls_params"]["tls_minimum_protocol_version"], "TLSv1_2");
    let cluster = resource(
        &envoy,
        GATEWAY,
        Type::Cluster,
        "outbound|6379||redis.default.svc.cluster.local",
    );
    let context =
        &cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(
        context["tls_certificates"][0]["certificate_chain"]["filename"],
        "/c"
    );
    assert_eq!(context["validation_context"]["trusted_ca"]["filename"], "/r");
}

/// The TLS context of a server with these settings.
fn server_tls(tls: &str) -> Value {
    let objects = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: default}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers:\n  \
         - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.test], tls: {{{tls}}}}}\n"
    );
    let listener = resource(&gateway(), &objects, Type::Listener, "0.0.0.0_443");
    listener["filter_chains"][0]["transport_socket"]["typed_config"].clone()
}

#[test]
fn a_gateways_clients_are_verified_as_its_tls_says() {
    let mutual = server_tls(
        "mode: MUTUAL, credentialNames: [rsa, ecdsa], subjectAltNames: [a.test, 'spiffe://x/y', ann@a.test, 192.0.2.1], \
         caCrl: /crl, verifyCertificateSpki: ['AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='], \
         verifyCertificateHash: ['0000000000000000000000000000000000000000000000000000000000000000']",
    );
    assert_eq!(mutual["require_client_certificate"], true);
    let common = &mutual["common_tls_context"];
    let named: Vec<&Value> = common["tls_certificate_sds_secret_configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(named, ["kubernetes://rsa", "kubernetes://ecdsa"]);
    let combined = &common["combined_validation_context"];
    let roots = &combined["validation_context_sds_secret_config"]["name"];
    assert_eq!(*roots, "kubernetes://rsa-cacert");
    let own = &combined["default_validation_context"];
    let kinds: Vec<&Value> = own["match_typed_subject_alt_names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["san_type"])
        .collect();
    assert_eq!(kinds, ["DNS", "URI", "EMAIL", "IP_ADDRESS"]);
    assert_eq!(own["crl"]["filename"], "/crl");
    assert!(
        own["verify_certificate_spki"][0]
            .as_str()
            .unwrap()
            .starts_with("AAA")
    );
    assert!(
        own["verify_certificate_hash"][0]
            .as_str()
            .unwrap()
            .starts_with("000")
    );

    let own_roots = server_tls("mode: OPTIONAL_MUTUAL, credentialName: c, caCertCredentialName: roots");
    assert_eq!(own_roots["require_client_certificate"], false);
    let combined = &own_roots["common_tls_context"]["combined_validation_context"];
    let roots = &combined["validation_context_sds_secret_config"]["name"];
    assert_eq!(*roots, "kubernetes://roots-cacert");

    let anybody = server_tls("mode: MUTUAL, credentialName: c, insecureSkipVerify: true");
    let validation = &anybody["common_tls_context"]["validation_context"];
    assert_eq!(
        *validation,
        json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"})
    );
}

#[test]
fn a_gateways_tls_is_offered_as_it_says() {
    let files = server_tls(
        "mode: MUTUAL, tlsCertificates: [{serverCertificate: /rsa, privateKey: /rsa.key, caCertificates: /ca}, \
         {serverCertificate: /ec, privateKey: /ec.key, caCertificates: /ca}], minProtocolVersion: TLSV1_2, \
         maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256], ecdhCurves: [P-256]",
    );
    let common = &files["common_tls_context"];
    let certificates = common["tls_certificates"].as_array().unwrap();
    let named: Vec<&Value> = certificates
        .iter()
        .map(|one| &one["certificate_chain"]["filename"])
        .collect();
    assert_eq!(named, ["/rsa", "/ec"]);
    assert_eq!(certificates[1]["private_key"]["filename"], "/ec.key");
    assert_eq!(common["validation_context"]["trusted_ca"]["filename"], "/ca");
    assert_eq!(
        common["tls_params"],
        json!({
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_2",
            "cipher_suites": ["ECDHE-RSA-AES128-GCM-SHA256"],
            "ecdh_curves": ["P-256"],
        })
    );
    let mesh = server_tls("mode: ISTIO_MUTUAL, minProtocolVersion: TLSV1_3");
    let parameters = &mesh["common_tls_context"]["tls_params"];
    assert_eq!(parameters["tls_minimum_protocol_version"], "TLSv1_3");
}
