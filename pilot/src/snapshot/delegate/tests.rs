//! From VirtualServices that delegate to what a proxy gets.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::testing::{gateway, resource, sidecar};

fn virtual_service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}, namespace: {namespace}, resourceVersion: '3'}}\nspec: {spec}\n"
    )
}

/// The routes of `reviews` for a sidecar.
fn routes(objects: &str) -> Vec<Value> {
    let table = resource(&sidecar("productpage"), objects, Type::Route, "9080");
    let hosts = table["virtual_hosts"].as_array().unwrap();
    let name = "reviews.default.svc.cluster.local:9080";
    let host = hosts.iter().find(|host| host["name"] == name).unwrap();
    host["routes"].as_array().cloned().unwrap_or_default()
}

fn root(route: &str) -> String {
    virtual_service(
        "default",
        "root",
        &format!("{{hosts: [reviews], http: [{route}]}}"),
    )
}

/// What the routes match, and where they lead.
fn told(routes: &[Value]) -> Vec<(Value, String)> {
    let one = |route: &Value| {
        let cluster = route["route"]["cluster"].as_str().unwrap_or("-");
        let service = cluster.rsplit('|').next().unwrap().split('.').next().unwrap();
        (route["match"].clone(), service.to_owned())
    };
    routes.iter().map(one).collect()
}

#[test]
fn the_routes_of_the_other_stand_in_the_place_of_the_route() {
    let other = virtual_service(
        "default",
        "other",
        "{http: [{name: a, match: [{uri: {prefix: /shop/a}}, {uri: {exact: /shop}, headers: {x: {exact: v}}}], \
         route: [{destination: {host: ratings}}], timeout: 1s}, \
         {match: [{uri: {prefix: /else}}], route: [{destination: {host: ratings}}]}, \
         {route: [{destination: {host: reviews}}]}]}",
    );
    let all = routes(
        &(root(
            "{name: r, match: [{uri: {prefix: /shop}}], timeout: 5s, headers: {request: {set: {x-b: c}}}, \
             rewrite: {uri: /new}, delegate: {name: other}}, {route: [{destination: {host: reviews}}]}",
        ) + &other),
    );
    assert_eq!(
        told(&all).iter().map(|(_, to)| to.as_str()).collect::<Vec<_>>(),
        ["ratings", "ratings", "reviews", "reviews"],
        "the one for /else can never match: {all:#?}"
    );
    assert_eq!(all[0]["match"], json!({"prefix": "/shop/a"}));
    assert_eq!(all[1]["match"]["path"], "/shop");
    assert_eq!(all[1]["match"]["headers"][0]["name"], "x");
    assert_eq!(all[2]["match"], json!({"prefix": "/shop"}));
    assert_eq!(all[3]["match"], json!({"prefix": "/"}));
    assert_eq!((&all[0]["name"], &all[2]["name"]), (&json!("r-a"), &json!("r")));
    assert_eq!(
        (&all[0]["route"]["timeout"], &all[2]["route"]["timeout"]),
        (&json!("1s"), &json!("5s"))
    );
    assert_eq!(all[0]["route"]["prefix_rewrite"], "/new");
    assert_eq!(all[0]["request_headers_to_add"][0]["header"]["key"], "x-b");
    let cause = |route: &Value| route["metadata"]["filter_metadata"]["gossamer"]["object"].clone();
    assert_eq!(cause(&all[0]), "virtualservice default/other");
    assert_eq!(cause(&all[3]), "virtualservice default/root");
}

#[test]
fn conditions_must_fit() {
    let check = |outer: &str, inner: &str, expect: usize| {
        let other = virtual_service(
            "default",
            "other",
            &format!("{{http: [{{match: [{inner}], route: [{{destination: {{host: ratings}}}}]}}]}}"),
        );
        let all = routes(&(root(&format!("{{match: [{outer}], delegate: {{name: other}}}}")) + &other));
        let led = told(&all).iter().filter(|(_, to)| to == "ratings").count();
        assert_eq!(led, expect, "{outer} {inner}");
    };
    check("{uri: {prefix: /a}}", "{uri: {exact: /a/b}}", 1);
    check("{uri: {prefix: /a}}", "{uri: {prefix: /b}}", 0);
    check("{uri: {exact: /a}}", "{uri: {prefix: /a}}", 0);
    check("{uri: {regex: /a.*}}", "{uri: {exact: /ab}}", 0);
    check("{uri: {regex: /a.*}}", "{uri: {regex: /a.*}}", 1);
    check(
        "{uri: {prefix: /a}}, {uri: {prefix: /b}}",
        "{uri: {exact: /b/c}}",
        1,
    );
    check(
        "{uri: {prefix: /a}}",
        "{uri: {exact: /a/b}}, {uri: {exact: /c}}",
        0,
    );
    check("{headers: {x: {}}}", "{headers: {x: {exact: v}}}", 1);
    check("{headers: {x: {exact: z}}}", "{headers: {x: {exact: v}}}", 0);
    check("{withoutHeaders: {x: {}}}", "{withoutHeaders: {w: {}}}", 1);
    check("{port: 9080}", "{port: 9081}", 0);
    check("{method: {exact: GET}}", "{method: {exact: GET}}", 1);
    check(
        "{sourceLabels: {app: productpage}}",
        "{sourceLabels: {app: other}}",
        0,
    );
    check("{gateways: [mesh]}", "{gateways: [mesh, other]}", 0);
    check(
        "{uri: {prefix: /a}, ignoreUriCase: true}",
        "{uri: {prefix: /a}}",
        0,
    );
}

#[test]
fn only_one_without_hosts_that_may_be_seen_is_delegated_to() {
    let led = |namespace: &str, spec: &str, delegate: &str| {
        let other = virtual_service(
            namespace,
            "other",
            &format!(
                "{{{spec}http: [{{route: [{{destination: {{host: ratings.default.svc.cluster.local}}}}]}}]}}"
            ),
        );
        let all = routes(&(root(&format!("{{delegate: {{{delegate}}}}}")) + &other));
        told(&all).iter().any(|(_, to)| to == "ratings")
    };
    assert!(led("default", "", "name: other"));
    assert!(led("shop", "", "name: other, namespace: shop"));
    assert!(!led("shop", "", "name: other"));
    assert!(!led("default", "", "name: missing"));
    assert!(!led("shop", "exportTo: ['.'], ", "name: other, namespace: shop"));
    assert!(led(
        "shop",
        "exportTo: [default], ",
        "name: other, namespace: shop"
    ));
    assert!(!led("default", "hosts: [elsewhere.example.com], ", "name: other"));
}

#[test]
fn a_gateway_gets_what_is_delegated() {
    let objects = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\n\
                   spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, \
                   hosts: ['*']}]}\n"
        .to_owned()
        + &virtual_service(
            "default",
            "root",
            "{hosts: ['*'], gateways: [g], http: [{match: [{uri: {prefix: /a}}], delegate: {name: other, namespace: shop}}]}",
        )
        + &virtual_service(
            "shop",
            "other",
            "{http: [{route: [{destination: {host: reviews.default.svc.cluster.local, port: {number: 9080}}}]}]}",
        );
    let table = resource(&gateway(), &objects, Type::Route, "http.80");
    let route = &table["virtual_hosts"][0]["routes"][0];
    assert_eq!(route["match"]["prefix"], "/a");
    assert_eq!(
        route["route"]["cluster"],
        "outbound|9080||reviews.default.svc.cluster.local"
    );
    let cluster = "outbound|9080||reviews.default.svc.cluster.local";
    assert_eq!(
        resource(&gateway(), &objects, Type::Cluster, cluster)["name"],
        cluster
    );
}
