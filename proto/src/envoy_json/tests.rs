use serde_json::json;

use super::*;
use crate::pb::envoy::config::{bootstrap::v3::Bootstrap, route::v3::RouteConfiguration};

fn refused(text: &str) -> JsonError {
    from_text::<Bootstrap>(text).unwrap_err()
}

#[test]
fn yaml_round_trip_with_any() {
    let text = r#"
        node: {id: n, cluster: c}
        static_resources:
          listeners:
          - name: l
            address: {socket_address: {address: 0.0.0.0, port_value: 10000}}
            filter_chains:
            - filters:
              - name: envoy.filters.network.http_connection_manager
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                  stat_prefix: p
                  stream_idle_timeout: 0.250s
                  http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
    "#;
    let bootstrap: Bootstrap = from_text(text).unwrap();
    let json = to_value(&bootstrap).unwrap();
    let hcm = &json["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(hcm["stream_idle_timeout"], json!("0.250s"));
    assert!(
        hcm["http_filters"][0]["typed_config"]["@type"]
            .as_str()
            .unwrap()
            .ends_with(".Router")
    );
    assert_eq!(from_value::<Bootstrap>(&json).unwrap(), bootstrap);
}

#[test]
fn errors_name_the_field() {
    let error = refused("static_resources: {listeners: [{name: l, adress: {}}]}");
    assert_eq!(error.path, "static_resources.listeners[0].adress");
    assert!(error.to_string().contains("has no such field"), "{error}");

    let error = refused("static_resources: {clusters: [{name: a}, {name: b, connect_timeout: soon}]}");
    assert_eq!(error.path, "static_resources.clusters[1].connect_timeout");

    let error = refused("admin: {address: {socket_address: {address: 127.0.0.1, port_value: many}}}");
    assert_eq!(error.path, "admin.address.socket_address.port_value");

    let any = r#"{static_resources: {listeners: [{filter_chains: [{filters: [{name: x, typed_config: {"@type": "type.googleapis.com/envoy.X"}}]}]}]}}"#;
    let error = refused(any);
    assert_eq!(
        error.path,
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.@type"
    );
    assert!(error.why.contains("envoy.X is not a type"), "{error}");

    let inner = r#"{static_resources: {listeners: [{filter_chains: [{filters: [{name: x, typed_config: {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", clustr: c}}]}]}]}}"#;
    assert!(
        refused(inner).path.ends_with("filters[0].typed_config.clustr"),
        "{}",
        refused(inner)
    );

    assert!(
        refused("node: {id: [}").why.contains("line"),
        "{}",
        refused("node: {id: [}")
    );
}

#[test]
fn an_unknown_any_is_told_of() {
    let unknown = Any {
        type_url: "type.googleapis.com/a.B".into(),
        value: vec![1, 2, 3],
    };
    assert_eq!(
        any_to_value(&unknown).unwrap(),
        json!({"@type": "type.googleapis.com/a.B", "bytes": 3})
    );
    let config = RouteConfiguration {
        typed_per_filter_config: [("x".to_owned(), unknown)].into(),
        ..RouteConfiguration::default()
    };
    let json = to_value(&config).unwrap();
    assert_eq!(
        json["typed_per_filter_config"]["x"]["value"]["type_url"],
        json!("type.googleapis.com/a.B")
    );
}

#[test]
fn fields_by_number() {
    let name = |number| field_name("envoy.config.route.v3.RouteConfiguration", number);
    assert_eq!(name(2).as_deref(), Some("virtual_hosts"));
    assert_eq!(name(9999), None);
}
