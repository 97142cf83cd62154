//! Resources as a control plane sends them, and what is refused in them.

use mesh_proto::{
    envoy::config::{
        cluster::v3::Cluster as ClusterPb, listener::v3::Listener as ListenerPb,
        route::v3::RouteConfiguration,
    },
    envoy_json::from_text,
};
use prost::Message;

use super::testing::{
    cluster, cluster_refused, listener, listener_refused, route_config, route_config_refused,
};
use crate::{
    config::{
        chain::{NetworkFilter, Terminal},
        cluster::{Kind, Protocol},
        filter::FilterOverride,
        hcm::ForwardClientCert,
        listener::Direction,
        transport::{SanKind, SdsSource, SecretRef},
    },
    decide::{Routed, testing::with_facts},
};

const CLUSTER: &str = r#"
    name: outbound|9080|v1|reviews.default.svc.cluster.local
    type: EDS
    eds_cluster_config:
      eds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
      service_name: outbound|9080|v1|reviews.default.svc.cluster.local
    connect_timeout: 10s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {thresholds: [{max_connections: 4294967295, max_retries: 4294967295, track_remaining: true}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {max_concurrent_streams: 1073741824}}
    common_lb_config: {healthy_panic_threshold: {}}
    upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}
    metadata:
      filter_metadata:
        istio:
          services: [{host: reviews.default.svc.cluster.local, name: reviews, namespace: default}]
          subset: v1
          config: /apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews
    transport_socket_matches:
    - name: tlsMode-istio
      match: {tlsMode: istio}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: outbound_.9080_.v1_.reviews.default.svc.cluster.local
          common_tls_context:
            alpn_protocols: [istio-http/1.1, http/1.1]
            tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
            tls_certificate_sds_secret_configs:
            - name: default
              sds_config:
                api_config_source: {api_type: GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}
                initial_fetch_timeout: 0s
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: spiffe://cluster.local/ns/default/sa/reviews}}]
              validation_context_sds_secret_config:
                name: ROOTCA
                sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}
    - name: tlsMode-disabled
      match: {}
      transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
"#;

#[test]
fn a_cluster_of_the_mesh() {
    let cluster = cluster(CLUSTER);
    assert!(matches!(&cluster.kind, Kind::Eds { service } if service.starts_with("outbound|9080")));
    assert_eq!(
        (cluster.http.protocol, cluster.panic_threshold),
        (Protocol::UseDownstream, 0)
    );
    assert_eq!(cluster.breakers.default.connections, u32::MAX);
    assert_eq!(cluster.bind_source, Some("127.0.0.6".parse().unwrap()));
    assert_eq!(
        (&*cluster.services[0].name, cluster.subset.as_deref()),
        ("reviews", Some("v1"))
    );
    assert_eq!(
        cluster.object.as_ref().map(|object| &*object.text),
        Some("destinationrule default/reviews")
    );

    let mesh = [("tlsMode".into(), "istio".into())].into();
    let tls = cluster.transport_for(&mesh).unwrap();
    let own = SdsSource::Cluster("sds-grpc".into());
    assert!(
        matches!(&tls.certificates[0], SecretRef::Sds { name, source } if **name == *"default" && *source == own)
    );
    let validation = tls.validation.as_ref().unwrap();
    assert_eq!(
        validation
            .trusted
            .as_ref()
            .and_then(SecretRef::name)
            .map(|name| &**name),
        Some("ROOTCA")
    );
    assert_eq!(validation.names[0].kind, SanKind::Uri);
    assert!(cluster.transport_for(&Default::default()).is_none());
}

#[test]
fn clusters_that_are_not_understood() {
    let refused = |find: &str, replace: &str, path: &str| {
        assert!(CLUSTER.contains(find), "{find}");
        let reject = cluster_refused(&CLUSTER.replacen(find, replace, 1));
        assert_eq!(reject.path, path, "{reject}");
    };
    refused(
        "connect_timeout: 10s",
        "lb_subset_config: {fallback_policy: ANY_ENDPOINT}",
        "lb_subset_config",
    );
    refused(
        "{ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}",
        "{self: {}}",
        "eds_cluster_config.eds_config",
    );
    refused(
        "sni: outbound",
        "allow_renegotiation: true\n          sni: outbound",
        "transport_socket_matches[0].transport_socket.typed_config.allow_renegotiation",
    );
    refused(
        "lb_policy: LEAST_REQUEST",
        "lb_policy: MAGLEV\n    maglev_lb_config: {table_size: 10}",
        "maglev_lb_config.table_size",
    );
    refused(
        "alpn_protocols: [istio-http/1.1, http/1.1]",
        "key_log: {path: /tmp/keys}",
        "transport_socket_matches[0].transport_socket.typed_config.common_tls_context.key_log",
    );
    let grpc = "health_checks: [{timeout: 1s, interval: 1s, tcp_health_check: {}}]";
    refused("connect_timeout: 10s", grpc, "health_checks");
}

const INBOUND: &str = r#"
    name: virtualInbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    traffic_direction: INBOUND
    continue_on_listener_filters_timeout: true
    listener_filters_timeout: 0s
    listener_filters:
    - {name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    - {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    - {name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}
    filter_chains:
    - name: 0.0.0.0_9080
      filter_chain_match: {destination_port: 9080, transport_protocol: tls, application_protocols: [istio-http/1.1, istio-h2]}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificate_sds_secret_configs: [{name: default, sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}}]
            combined_validation_context:
              default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://cluster.local/"}}]}
              validation_context_sds_secret_config: {name: ROOTCA, sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound_0.0.0.0_9080
          forward_client_cert_details: APPEND_FORWARD
          set_current_client_cert_details: {subject: true, uri: true}
          stream_idle_timeout: 0s
          normalize_path: true
          upgrade_configs: [{upgrade_type: WebSocket}]
          route_config: {name: inbound|9080||, validate_clusters: false, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: "inbound|9080||", timeout: 0s}, decorator: {operation: op}}]}]}
          http_filters:
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: DENY
                policies:
                  "ns[default]-policy[p]-rule[0]":
                    permissions: [{and_rules: {rules: [{url_path: {path: {prefix: /admin}}}, {header: {name: ":method", string_match: {exact: POST}}}]}}]
                    principals: [{not_id: {authenticated: {principal_name: {prefix: "spiffe://cluster.local/ns/default/"}}}}]
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
    - name: tcp
      filter_chain_match: {destination_port: 6379, transport_protocol: raw_buffer}
      filters:
      - {name: envoy.filters.network.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: tcp., rules: {action: ALLOW, policies: {p: {permissions: [{destination_port: 6379}], principals: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]}}}}}
      - {name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: "inbound|6379||"}}
"#;

#[test]
fn an_inbound_listener_of_the_mesh() {
    let listener = listener(INBOUND);
    assert_eq!(
        (listener.direction, listener.inspect_timeout),
        (Direction::Inbound, None)
    );
    assert!(listener.inspect.original_dst && listener.inspect.tls && listener.inspect.http);
    let first = &listener.chains[0];
    assert!(
        first
            .tls
            .as_ref()
            .is_some_and(|tls| tls.require_client_certificate && tls.certificates.len() == 1)
    );
    let Terminal::Http(hcm) = &first.terminal else {
        panic!()
    };
    assert_eq!(
        (hcm.client_cert.forward, hcm.timeouts.stream_idle),
        (ForwardClientCert::AppendForward, None)
    );
    assert_eq!(&*hcm.upgrades[0].protocol, "websocket");
    let second = &listener.chains[1];
    assert!(
        matches!(second.filters[..], [NetworkFilter::Rbac(_)]) && matches!(second.terminal, Terminal::Tcp(_))
    );
}

#[test]
fn listeners_that_are_not_understood() {
    let refused = |find: &str, replace: &str, path: &str| {
        assert!(INBOUND.contains(find), "{find}");
        let reject = listener_refused(&INBOUND.replacen(find, replace, 1));
        assert_eq!(reject.path, path, "{reject}");
    };
    let rbac = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.rules.policies[\"ns[default]-policy[p]-rule[0]\"]";
    refused(
        "url_path: {path: {prefix: /admin}}",
        "uri_template: {name: x}",
        &format!("{rbac}.permissions[0].and_rules.rules[0].uri_template"),
    );
    refused(
        "destination_port: 6379, transport",
        "destination_port: 66379, transport",
        "filter_chains[1].filter_chain_match.destination_port",
    );
    refused(
        "transport_protocol: raw_buffer",
        "transport_protocol: quic",
        "filter_chains[1].filter_chain_match.transport_protocol",
    );
    refused(
        "address: 0.0.0.0,",
        "address: localhost,",
        "address.socket_address.address",
    );
    refused(
        "cluster: \"inbound|6379||\"",
        "tunneling_config: {hostname: \"%REQUESTED_SERVER_NAME%:443\"}, cluster: c",
        "filter_chains[1].filters[1].typed_config.tunneling_config.hostname",
    );
    refused(
        "{destination_port: 6379, transport_protocol: raw_buffer}",
        "{destination_port: 9080, transport_protocol: tls, application_protocols: [istio-http/1.1, istio-h2]}",
        "filter_chains[1].filter_chain_match",
    );
}

#[test]
fn levels_of_a_route_configuration_add_up() {
    let config = route_config(
        r#"
        name: r
        request_headers_to_add: [{header: {key: x-level, value: config}}]
        virtual_hosts:
        - name: v
          domains: ["*"]
          request_headers_to_remove: [x-gone]
          request_headers_to_add: [{header: {key: x-level, value: host}}]
          retry_policy: {retry_on: 5xx, num_retries: 7}
          typed_per_filter_config:
            envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}
          routes:
          - match: {prefix: /a}
            request_headers_to_add: [{header: {key: x-level, value: route}}]
            route: {cluster: c}
            metadata: {filter_metadata: {gossamer: {object: virtualservice default/r, version: "12"}}}
          - match: {prefix: /}
            route: {cluster: c, retry_policy: {retry_on: reset}}
            typed_per_filter_config:
              envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {}}}
        "#,
    );
    let headers = http::HeaderMap::new();
    let decide = |path: &str| {
        with_facts("GET", "x", path, &headers, |facts| {
            match crate::decide::route(&config, facts, 0) {
                Routed::Found(decision) => decision,
                other => panic!("{other:?}"),
            }
        })
    };
    let first = decide("/a");
    let mut changed = http::HeaderMap::new();
    changed.insert("x-gone", http::HeaderValue::from_static("1"));
    crate::decide::headers::apply(
        first.request_mutations(&config),
        &mut changed,
        |_| None,
        |_, _| {},
    );
    let levels: Vec<_> = changed
        .get_all("x-level")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(levels, ["route", "host", "config"]);
    assert!(!changed.contains_key("x-gone"));
    assert_eq!(
        first
            .forward(&config)
            .and_then(|forward| forward.retry.as_ref())
            .map(|retry| retry.retries),
        Some(7)
    );
    let object = first.route(&config).object.as_ref().unwrap();
    assert_eq!(object.to_string(), "virtualservice default/r, version 12");
    let rbac = "envoy.filters.http.rbac";
    assert!(matches!(
        first.per_filter(&config, rbac),
        Some(FilterOverride::Disabled)
    ));
    let second = decide("/b");
    assert!(matches!(
        second.per_filter(&config, rbac),
        Some(FilterOverride::Rbac(_))
    ));
    assert_eq!(
        second
            .forward(&config)
            .and_then(|forward| forward.retry.as_ref())
            .map(|retry| retry.retries),
        Some(1)
    );
}

#[test]
fn routes_that_are_not_understood() {
    let refused = |route: &str, path: &str| {
        let yaml = format!("{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]}}");
        let reject = route_config_refused(&yaml);
        assert_eq!(
            reject.path,
            format!("virtual_hosts[0].routes[0].{path}"),
            "{reject}"
        );
    };
    refused("{match: {prefix: /}}", "action");
    refused(
        "{match: {safe_regex: {regex: '('}}, route: {cluster: c}}",
        "match.safe_regex.regex",
    );
    refused(
        "{match: {prefix: /, cookies: [{name: a, string_match: {exact: b}}]}, route: {cluster: c}}",
        "match.cookies",
    );
    refused(
        "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}",
        "route.weighted_clusters.clusters",
    );
    refused(
        "{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: never}}}",
        "route.retry_policy.retry_on",
    );
    refused(
        "{match: {prefix: /}, route: {cluster: c, hedge_policy: {}}}",
        "route.hedge_policy",
    );
    refused(
        "{match: {prefix: /}, direct_response: {status: 99}}",
        "direct_response.status",
    );
    refused(
        "{match: {prefix: /}, route: {cluster: c}, request_headers_to_remove: [':path']}",
        "request_headers_to_remove[0]",
    );
    refused(
        "{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: '%NOPE%'}}]}",
        "request_headers_to_add[0].header.value",
    );
    let twice = route_config_refused(
        "{name: r, virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [y, X]}]}",
    );
    assert_eq!(twice.path, "virtual_hosts[1].domains[1]");
}

/// Damaged messages are refused or read, never a panic.
#[test]
fn damaged_messages_do_no_harm() {
    let cluster: ClusterPb = from_text(CLUSTER.trim_matches('\n')).unwrap();
    let listener: ListenerPb = from_text(INBOUND.trim_matches('\n')).unwrap();
    let mut random = 7u64;
    let mut next = || {
        random = crate::balance::mix(random);
        random as usize
    };
    for bytes in [cluster.encode_to_vec(), listener.encode_to_vec()] {
        for _ in 0..3000 {
            let mut damaged = bytes.clone();
            for _ in 0..=next() % 4 {
                let at = next() % damaged.len();
                damaged[at] = next() as u8;
            }
            damaged.truncate(damaged.len() - next() % 20);
            let _ = ClusterPb::decode(damaged.as_slice()).map(super::cluster);
            let _ = ListenerPb::decode(damaged.as_slice()).map(super::listener);
            let _ = RouteConfiguration::decode(damaged.as_slice()).map(super::route_config);
        }
    }
}
