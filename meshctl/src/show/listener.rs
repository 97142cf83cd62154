//! Listeners: where a proxy takes connections, how it tells them apart, and where each kind goes.

use serde_json::Value;

use super::{Filter, resources, text};
use crate::output::Table;

pub fn list<'a>(dump: &'a Value, filter: &Filter) -> Vec<&'a Value> {
    let lists = [
        ("dynamic_listeners", "/active_state/listener"),
        ("static_listeners", "/listener"),
    ];
    let mut listeners = resources(dump, "ListenersConfigDump", &lists);
    listeners.retain(|listener| {
        filter.passes(
            port(listener),
            text(listener, "/name"),
            text(listener, "/traffic_direction"),
        ) && Filter::takes(
            filter.address.as_deref(),
            text(listener, "/address/socket_address/address"),
        )
    });
    listeners
}

fn port(listener: &Value) -> Option<u64> {
    listener
        .pointer("/address/socket_address/port_value")
        .and_then(Value::as_u64)
}

pub fn table(dump: &Value, filter: &Filter) -> Table {
    let mut table = Table::new(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in list(dump, filter) {
        let address = text(listener, "/address/socket_address/address");
        let port = port(listener).map(|port| port.to_string()).unwrap_or_default();
        let chains = listener["filter_chains"].as_array().into_iter().flatten();
        for chain in chains.chain(listener.get("default_filter_chain")) {
            table.row(vec![
                address.into(),
                port.clone(),
                matching(&chain["filter_chain_match"]),
                destination(chain),
            ]);
        }
    }
    table.sort();
    table
}

/// When a filter chain is chosen: `Trans: tls; App: istio; Addr: 10.96.0.1/32`.
fn matching(rules: &Value) -> String {
    let mut parts = Vec::new();
    let words = |value: &Value| {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(",")
    };
    for (label, value) in [
        ("SNI", words(&rules["server_names"])),
        ("Trans", text(rules, "/transport_protocol").to_owned()),
        ("App", words(&rules["application_protocols"])),
    ] {
        if !value.is_empty() {
            parts.push(format!("{label}: {value}"));
        }
    }
    let ranges: Vec<String> = rules["prefix_ranges"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| format!("{}/{}", text(range, "/address_prefix"), range["prefix_len"]))
        .collect();
    if !ranges.is_empty() {
        parts.push(format!("Addr: {}", ranges.join(",")));
    }
    if let Some(port) = rules["destination_port"].as_u64() {
        parts.push(format!("Port: {port}"));
    }
    if parts.is_empty() {
        "ALL".into()
    } else {
        parts.join("; ")
    }
}

/// Where a chain's connections go: its last filter says.
fn destination(chain: &Value) -> String {
    let filters = chain["filters"].as_array().into_iter().flatten();
    for filter in filters {
        let config = &filter["typed_config"];
        if let Some(cluster) = config["cluster"].as_str() {
            return format!("Cluster: {cluster}");
        }
        if let Some(clusters) = config
            .pointer("/weighted_clusters/clusters")
            .and_then(Value::as_array)
        {
            let names: Vec<&str> = clusters
                .iter()
                .filter_map(|cluster| cluster["name"].as_str())
                .collect();
            return format!("Clusters: {}", names.join(", "));
        }
        if let Some(route) = config.pointer("/rds/route_config_name").and_then(Value::as_str) {
            return format!("Route: {route}");
        }
        if let Some(inline) = config.get("route_config") {
            return format!("Inline Route: {}", text(inline, "/name"));
        }
    }
    "Non-HTTP/Non-TCP".into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let dump = json!({"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [
            {"name": "0.0.0.0_9080", "active_state": {"listener": {
                "name": "0.0.0.0_9080",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 9080}},
                "traffic_direction": "OUTBOUND",
                "filter_chains": [
                    {"filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]},
                     "filters": [{"typed_config": {"rds": {"route_config_name": "9080"}}}]}],
                "default_filter_chain": {"filters": [{"typed_config": {"cluster": "PassthroughCluster"}}]}}}}]}]});
        let text = table(&dump, &Filter::default()).to_string();
        assert!(
            text.contains("0.0.0.0     9080   Trans: raw_buffer; App: http/1.1,h2c   Route: 9080"),
            "{text}"
        );
        assert!(text.contains("ALL"), "{text}");
        assert!(
            table(
                &dump,
                &Filter {
                    direction: Some("inbound".into()),
                    ..Filter::default()
                }
            )
            .is_empty()
        );
    }
}
