//! Envoy's bootstrap. Pure. Everything but the way to the agent comes from pilot.

use std::path::Path;

use mesh_proto::{names, node::NodeMetadata};
use serde_json::{Value, json};

use crate::settings::ProxyArgs;

/// The cluster of the ADS stream.
pub const XDS: &str = "xds-grpc";

/// For this proxy, with the agent behind `socket`.
pub fn render(args: &ProxyArgs, socket: &Path) -> Value {
    let (id, metadata) = args.node();
    let metadata = NodeMetadata {
        // It understands what Envoy's reference says, and no more.
        generator: String::new(),
        ..metadata
    };
    let source = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    json!({
        "node": {
            "id": id.to_string(),
            "cluster": format!("{}.{}", metadata.workload_name, metadata.namespace),
            "metadata": described(&metadata),
        },
        "admin": {
            "address": { "socket_address": {
                "address": args.admin_address.ip().to_string(), "port_value": args.admin_address.port(),
            } },
        },
        "stats_config": { "use_all_default_tags": false, "stats_tags": tags() },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS } }],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": { "clusters": [agent(XDS, socket), agent(names::cluster::SDS, socket)] },
    })
}

/// The metadata as it goes over the wire: without what is empty.
fn described(metadata: &NodeMetadata) -> Value {
    let fields = metadata.to_struct().fields;
    let pairs = fields
        .iter()
        .map(|(key, value)| (key.clone(), mesh_proto::node::to_json(value)));
    Value::Object(pairs.collect())
}

/// The labels that our own numbers have, for names with dots in them. Whose first group is empty takes nothing from the name.
fn tags() -> Value {
    json!([
        { "tag_name": "envoy.cluster_name",
          "regex": "^cluster\\.((.+?)\\.)(?:(?:internal\\.|external\\.|canary\\.)?upstream_|circuit_breakers\\.|outlier_detection\\.|\
                    lb_|membership_|ssl\\.|update_|assignment_|warming_|http1\\.|http2\\.|bind_errors|init_fetch|original_dst_|\
                    max_host_weight|client_ssl|metadata_|default\\.total_match_count|version$)" },
        { "tag_name": "envoy.http_conn_manager_prefix",
          "regex": "^http\\.((.+?)\\.)(?:downstream_|rq_|no_|rs_|fault\\.|rbac\\.|jwt_authn\\.|cors\\.|passthrough_|tracing\\.|\
                    rds\\.|ext_authz\\.|user_agent\\.)" },
        { "tag_name": "envoy.listener_address",
          "regex": "^listener\\.((.+?)\\.)(?:downstream_|connections_|no_filter|ssl\\.|worker_|http\\.|extension_)" },
        { "tag_name": "envoy.response_code", "regex": "_rq(_(\\d{3}))$" },
        { "tag_name": "envoy.response_code_class", "regex": "_rq(_(\\d))xx$" },
    ])
}

/// A cluster whose only endpoint is the agent.
fn agent(name: &str, socket: &Path) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "pipe": { "path": socket.to_string_lossy() } },
        } }] }] },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use mesh_proto::envoy::config::bootstrap::v3::Bootstrap;
    use regex::Regex;

    use super::*;
    use crate::settings::{Cli, Command};

    fn rendered() -> Value {
        let words = "mesh-proxy agent sidecar --pod-name a-0 --pod-namespace default --instance-ip 10.0.0.7,fd00::7 \
                     --service-account a --dns-capture true";
        let Some(Command::Agent(args)) = Cli::parse_from(words.split_whitespace()).command else {
            panic!("not the agent");
        };
        render(&args.proxy, Path::new("/run/a/agent.sock"))
    }

    #[test]
    fn envoy_can_read_it() {
        let text = rendered().to_string();
        let message: Bootstrap = mesh_proto::envoy_json::from_text(&text).expect("a bootstrap");
        let node = message.node.expect("a node");
        assert_eq!(node.id, "sidecar~10.0.0.7~a-0.default~default.svc.cluster.local");
        let metadata = NodeMetadata::from_node(&mesh_proto::envoy::config::core::v3::Node {
            metadata: node.metadata,
            ..Default::default()
        });
        assert_eq!(
            (metadata.generator.as_str(), metadata.dns_capture.as_str()),
            ("", "true")
        );
        assert_eq!(metadata.service_account, "a");
    }

    #[test]
    fn names_with_dots_stay_whole() {
        let tag = |name: &str, stat: &str| {
            let all = tags();
            let row = all.as_array().unwrap().iter().find(|row| row["tag_name"] == name);
            let regex = Regex::new(row.unwrap()["regex"].as_str().unwrap()).unwrap();
            regex.captures(stat).map(|found| found[2].to_owned())
        };
        let cluster = "outbound|9080||reviews.default.svc.cluster.local";
        for rest in [
            "upstream_rq_200",
            "ssl.handshake",
            "circuit_breakers.default.cx_open",
        ] {
            let stat = format!("cluster.{cluster}.{rest}");
            assert_eq!(
                tag("envoy.cluster_name", &stat).as_deref(),
                Some(cluster),
                "{stat}"
            );
        }
        assert_eq!(
            tag(
                "envoy.listener_address",
                "listener.0.0.0.0_15006.downstream_cx_active"
            )
            .as_deref(),
            Some("0.0.0.0_15006")
        );
        let stat = format!("cluster.{cluster}.upstream_rq_5xx");
        assert_eq!(tag("envoy.response_code_class", &stat).as_deref(), Some("5"));
        assert_eq!(tag("envoy.response_code", &stat), None);
    }
}
