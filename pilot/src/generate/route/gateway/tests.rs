//! Which port a gateway's server is bound to, and what happens where two meet at one.

use mesh_proto::xds::Type;
use serde_json::{Value, json};

use crate::{
    testing::{gateway, names, resource},
    view::Viewer,
};

fn service(name: &str, metadata: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: istio-system{metadata}}}\n\
         spec: {{clusterIP: 10.96.0.8, selector: {{istio: ingressgateway}}, ports: [{ports}]}}\n---\n"
    )
}

fn gateway_on(ports: &[u16]) -> String {
    let servers: Vec<String> = ports
        .iter()
        .map(|port| format!("{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: ['*']}}"))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: default}}\n\
         spec: {{selector: {{istio: ingressgateway}}, servers: [{}]}}\n",
        servers.join(", ")
    )
}

#[test]
fn the_gateways_services_say_where_a_server_is_bound() {
    let viewer = Viewer {
        named_ports: [("web".to_owned(), 8081)].into(),
        ..gateway()
    };
    let check = |services: &[String], ports: &[u16], expect: &[u16]| {
        let objects = services.concat() + &gateway_on(ports);
        let expect: Vec<String> = expect.iter().map(|port| format!("0.0.0.0_{port}")).collect();
        assert_eq!(names(&viewer, &objects, Type::Listener), expect, "{objects}");
    };
    let one = |ports: &str| service("front", "", ports);
    check(&[], &[80], &[80]);
    check(&[one("{name: http, port: 80, targetPort: 8080}")], &[80], &[8080]);
    check(&[one("{name: http, port: 80, targetPort: web}")], &[80], &[8081]);
    // A container port of that name is not known, or it is one of the proxy's own.
    check(&[one("{name: http, port: 80, targetPort: other}")], &[80], &[80]);
    check(&[one("{name: http, port: 80, targetPort: 15021}")], &[80], &[80]);
    check(&[one("{name: http, port: 81, targetPort: 8080}")], &[80], &[80]);
    // Two ports of the Service lead to one of the pods.
    let twice = "{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8080}";
    check(&[one(twice)], &[80, 81, 8080], &[8080]);
    check(
        &[one("{name: http, port: 80, targetPort: 8080, protocol: UDP}")],
        &[80],
        &[80],
    );
    // The older Service counts; one that says so does not count at all.
    let both = |metadata: &str| {
        [
            service("a", metadata, "{name: http, port: 80, targetPort: 8080}"),
            service(
                "b",
                ", creationTimestamp: '2026-01-02T00:00:00Z'",
                "{name: http, port: 80, targetPort: 8081}",
            ),
        ]
    };
    check(
        &both(", creationTimestamp: '2026-01-01T00:00:00Z'"),
        &[80],
        &[8080],
    );
    check(
        &both(", creationTimestamp: '2026-01-03T00:00:00Z'"),
        &[80],
        &[8081],
    );
    let off = ", labels: {experimental.istio.io/disable-gateway-port-translation: 'true'}";
    check(&both(off), &[80, 8080], &[8080, 8081]);
}

#[test]
fn servers_that_meet_at_one_port_share_a_table() {
    let routes = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: default}\n\
                  spec:\n  hosts: ['*']\n  gateways: [g]\n  http:\n\
                  \x20 - match: [{port: 8080, uri: {exact: /inner}}, {port: 80, uri: {exact: /outer}}, {port: 81, uri: {exact: /other}}]\n\
                  \x20   route: [{destination: {host: reviews}}]\n\
                  \x20 - match: [{uri: {prefix: /both}}]\n\
                  \x20   route: [{destination: {host: ratings, port: {number: 9080}}}]\n";
    let front = service("front", "", "{name: http, port: 80, targetPort: 8080}");
    let objects = format!("{front}{}{routes}", gateway_on(&[80, 8080]));
    assert_eq!(names(&gateway(), &objects, Type::Listener), ["0.0.0.0_8080"]);
    assert_eq!(names(&gateway(), &objects, Type::Route), ["http.8080"]);
    let table = resource(&gateway(), &objects, Type::Route, "http.8080");
    let all = table["virtual_hosts"][0]["routes"].as_array().unwrap();
    let conditions: Vec<&Value> = all.iter().map(|route| &route["match"]).collect();
    assert_eq!(
        conditions,
        [
            &json!({"path": "/inner"}),
            &json!({"path": "/outer"}),
            &json!({"prefix": "/both"}),
        ],
        "each once, by the Gateway's numbers: {table:#}"
    );
}
