//! VirtualServices in, route tables out.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::testing::{gateway, names, resource, sidecar};

const CLUSTER: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn virtual_service(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: reviews, namespace: default, resourceVersion: '12'}}\nspec:\n{spec}"
    )
}

/// The routes of `reviews` for a sidecar of the same namespace.
fn routes(spec: &str) -> Vec<Value> {
    let table = resource(
        &sidecar("productpage"),
        &virtual_service(spec),
        Type::Route,
        "9080",
    );
    host(&table, "reviews.default.svc.cluster.local:9080")["routes"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn host<'a>(table: &'a Value, name: &str) -> &'a Value {
    let hosts = table["virtual_hosts"].as_array().unwrap();
    hosts
        .iter()
        .find(|host| host["name"] == name)
        .unwrap_or_else(|| panic!("no host {name} in {table:#}"))
}

#[test]
fn a_service_without_rules_has_one_route_and_all_its_names() {
    let table = resource(&sidecar("productpage"), "", Type::Route, "9080");
    let reviews = host(&table, "reviews.default.svc.cluster.local:9080");
    for name in [
        "reviews",
        "reviews:9080",
        "reviews.default",
        "reviews.default.svc:9080",
        "10.96.0.1",
        "10.96.0.1:9080",
    ] {
        assert!(
            reviews["domains"].as_array().unwrap().contains(&json!(name)),
            "{name}"
        );
    }
    let route = &reviews["routes"][0];
    assert_eq!(
        (&route["name"], &route["match"]),
        (&json!("default"), &json!({"prefix": "/"}))
    );
    assert_eq!(route["route"]["cluster"], CLUSTER);
    assert_eq!(route["route"]["timeout"], "0s");
    let retry = &route["route"]["retry_policy"];
    assert_eq!(
        retry["retry_on"],
        "connect-failure,refused-stream,reset-before-request"
    );
    assert_eq!(retry["num_retries"], 2);
    assert_eq!(
        host(&table, "allow_any")["routes"][0]["route"]["cluster"],
        "PassthroughCluster"
    );
}

#[test]
fn unknown_hosts_are_blocked_where_the_mesh_says_so() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}\n";
    let table = resource(&sidecar("productpage"), mesh, Type::Route, "9080");
    assert_eq!(
        host(&table, "block_all")["routes"][0]["direct_response"]["status"],
        502
    );
}

#[test]
fn weights_and_their_cause() {
    let routes = routes(
        "  hosts: [reviews]
  http:
  - name: split
    route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
",
    );
    let clusters = &routes[0]["route"]["weighted_clusters"]["clusters"];
    assert_eq!(
        clusters[0]["name"],
        "outbound|9080|v1|reviews.default.svc.cluster.local"
    );
    assert_eq!(
        (&clusters[0]["weight"], &clusters[1]["weight"]),
        (&json!(80), &json!(20))
    );
    assert_eq!(routes[0]["name"], "split");
    let metadata = &routes[0]["metadata"]["filter_metadata"];
    assert_eq!(
        metadata["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
    );
    assert_eq!(
        metadata["gossamer"],
        json!({"object": "virtualservice default/reviews", "version": "12"})
    );
}

#[test]
fn conditions_become_matchers_in_order() {
    let routes = routes(
        "  hosts: [reviews]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
      uri: {prefix: /api}
      method: {exact: GET}
      withoutHeaders: {x-skip: {}}
      queryParams: {q: {exact: '1'}}
    - uri: {regex: '/a.*'}
      ignoreUriCase: false
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
",
    );
    assert_eq!(routes.len(), 3, "one for each condition, and the rest");
    let wanted = &routes[0]["match"];
    assert_eq!(wanted["prefix"], "/api");
    let header = |name: &str| {
        let headers = wanted["headers"].as_array().unwrap();
        headers
            .iter()
            .find(|header| header["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(header("end-user")["string_match"]["exact"], "jason");
    assert_eq!(header(":method")["string_match"]["exact"], "GET");
    assert_eq!(
        (
            &header("x-skip")["present_match"],
            &header("x-skip")["invert_match"]
        ),
        (&json!(true), &json!(true))
    );
    assert_eq!(wanted["query_parameters"][0]["string_match"]["exact"], "1");
    assert_eq!(routes[1]["match"]["safe_regex"]["regex"], "/a.*");
    assert_eq!(routes[2]["match"], json!({"prefix": "/"}));
}

#[test]
fn conditions_about_the_source_are_settled_beforehand() {
    let spec = "  hosts: [reviews]
  http:
  - match: [{sourceLabels: {app: other}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{sourceLabels: {app: productpage}, port: 9080}, {port: 1}]
    route: [{destination: {host: reviews, subset: v1}}]
";
    let routes = routes(spec);
    assert_eq!(routes.len(), 1);
    assert_eq!(
        routes[0]["route"]["cluster"],
        "outbound|9080|v1|reviews.default.svc.cluster.local"
    );
}

#[test]
fn faults_timeouts_and_retries() {
    let routes = routes(
        "  hosts: [reviews]
  http:
  - fault:
      delay: {percentage: {value: 50}, fixedDelay: 7s}
      abort: {percentage: {value: 0.5}, httpStatus: 503}
    timeout: 3s
    retries: {attempts: 5, perTryTimeout: 1s, retryOn: '5xx,429'}
    route: [{destination: {host: reviews}}]
",
    );
    let fault = &routes[0]["typed_per_filter_config"]["envoy.filters.http.fault"];
    assert_eq!(fault["delay"]["fixed_delay"], "7s");
    assert_eq!(
        fault["delay"]["percentage"],
        json!({"numerator": 500_000, "denominator": "MILLION"})
    );
    assert_eq!(fault["abort"]["http_status"], 503);
    assert_eq!(routes[0]["route"]["timeout"], "3s");
    let retry = &routes[0]["route"]["retry_policy"];
    assert_eq!(
        (&retry["num_retries"], &retry["per_try_timeout"]),
        (&json!(5), &json!("1s"))
    );
    assert_eq!(retry["retry_on"], "5xx,retriable-status-codes");
    assert_eq!(retry["retriable_status_codes"], json!([429]));
}

#[test]
fn rewrites_redirects_answers_and_headers() {
    let all = routes(
        "  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /api}}]
    rewrite: {uri: /, authority: other.example}
    headers: {request: {set: {x-a: '1'}, remove: [x-b]}, response: {add: {x-c: '2'}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /v2/}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 308}
  - match: [{uri: {exact: /hello}}]
    directResponse: {status: 200, body: {string: hi}}
  - route: [{destination: {host: reviews}}]
    mirror: {host: ratings}
    mirrorPercentage: {value: 10}
",
    );
    assert_eq!(all[0]["route"]["regex_rewrite"]["substitution"], "/\\2");
    assert_eq!(all[0]["route"]["host_rewrite_literal"], "other.example");
    assert_eq!(
        all[0]["request_headers_to_add"][0]["header"],
        json!({"key": "x-a", "value": "1"})
    );
    assert_eq!(
        all[0]["request_headers_to_add"][0]["append_action"],
        "OVERWRITE_IF_EXISTS_OR_ADD"
    );
    assert_eq!(all[0]["request_headers_to_remove"], json!(["x-b"]));
    assert_eq!(all[0]["response_headers_to_add"][0]["header"]["key"], "x-c");
    assert_eq!(all[1]["route"]["prefix_rewrite"], "/v2/");
    assert_eq!(
        all[2]["redirect"],
        json!({"path_redirect": "/new", "response_code": "PERMANENT_REDIRECT"})
    );
    assert_eq!(all[3]["direct_response"]["status"], 200);
    let mirror = &all[4]["route"]["request_mirror_policies"][0];
    assert_eq!(
        mirror["cluster"],
        "outbound|9080||ratings.default.svc.cluster.local"
    );
}

#[test]
fn consistent_hashing_needs_a_word_in_the_route() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: default}\n\
                spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n";
    let table = resource(&sidecar("productpage"), rule, Type::Route, "9080");
    let route = &host(&table, "reviews.default.svc.cluster.local:9080")["routes"][0]["route"];
    assert_eq!(route["hash_policy"][0]["header"]["header_name"], "x-user");
}

#[test]
fn an_undeclared_port_has_a_table_of_its_own() {
    let table = resource(
        &sidecar("productpage"),
        "",
        Type::Route,
        "odd.default.svc.cluster.local:7000",
    );
    assert_eq!(table["virtual_hosts"][0]["domains"], json!(["*"]));
}

const GATEWAY: &str = r"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com', other.test], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*.example.com'], tls: {mode: SIMPLE, credentialName: c}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: default}
spec:
  hosts: [shop.example.com, elsewhere.test]
  gateways: [g]
  http:
  - match: [{uri: {prefix: /reviews}}]
    route: [{destination: {host: reviews, port: {number: 9080}}}]
";

#[test]
fn a_gateways_tables_hold_the_hosts_that_both_sides_name() {
    let names = names(&gateway(), GATEWAY, Type::Route);
    assert_eq!(names.len(), 2, "{names:?}");
    let table = resource(&gateway(), GATEWAY, Type::Route, "http.80");
    let shop = host(&table, "shop.example.com:80");
    assert_eq!(shop["domains"], json!(["shop.example.com", "shop.example.com:*"]));
    assert_eq!(shop["require_tls"], "ALL");
    assert_eq!(shop["routes"][0]["route"]["cluster"], CLUSTER);
    assert!(
        !table.to_string().contains("elsewhere.test"),
        "the gateway does not serve it"
    );
    assert_eq!(host(&table, "not_found")["domains"], json!(["*"]));
    let secure = names.iter().find(|name| name.starts_with("https.443.")).unwrap();
    let table = resource(&gateway(), GATEWAY, Type::Route, secure);
    assert_eq!(
        host(&table, "shop.example.com:443")["routes"][0]["match"]["prefix"],
        "/reviews"
    );
}
