//! Endpoints: the addresses behind clusters and how the proxy thinks of each.

use serde_json::Value;

use super::{Filter, cluster_name, text};
use crate::output::Table;

pub fn list<'a>(clusters: &'a Value, filter: &Filter) -> Vec<&'a Value> {
    let all = clusters["cluster_statuses"].as_array().into_iter().flatten();
    all.filter(|cluster| {
        let name = text(cluster, "/name");
        let (direction, port, ..) = cluster_name(name).unwrap_or(("", 0, "", name));
        filter.passes(Some(port), name, direction)
    })
    .collect()
}

pub fn table(clusters: &Value, filter: &Filter) -> Table {
    let mut table = Table::new(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for cluster in list(clusters, filter) {
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let address = match host.pointer("/address/socket_address") {
                Some(socket) => format!("{}:{}", text(socket, "/address"), socket["port_value"]),
                None => format!("unix://{}", text(host, "/address/pipe/path")),
            };
            let health = &host["health_status"];
            let status = match text(health, "/eds_health_status") {
                "" => "HEALTHY",
                status => status,
            };
            let failed = |field: &str| health[field] == true;
            let outlier = if failed("failed_outlier_check") {
                "FAILED"
            } else {
                "OK"
            };
            let status = if failed("failed_active_health_check") {
                "UNHEALTHY"
            } else {
                status
            };
            let shown = Filter::takes(filter.address.as_deref(), &address)
                && filter
                    .status
                    .as_deref()
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(status));
            if !shown {
                continue;
            }
            table.row(vec![
                address,
                status.into(),
                outlier.into(),
                text(cluster, "/name").into(),
            ]);
        }
    }
    table.sort();
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let clusters = json!({"cluster_statuses": [{"name": "outbound|80||a.b", "host_statuses": [
            {"address": {"socket_address": {"address": "10.244.0.2", "port_value": 80}}, "health_status": {"eds_health_status": "HEALTHY"}},
            {"address": {"socket_address": {"address": "10.244.0.3", "port_value": 80}}, "health_status": {"failed_outlier_check": true}}]}]});
        let text = table(&clusters, &Filter::default()).to_string();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["10.244.0.2:80", "HEALTHY", "OK", "outbound|80||a.b"]);
        assert_eq!(
            rows[1],
            ["10.244.0.3:80", "HEALTHY", "FAILED", "outbound|80||a.b"]
        );
        assert!(
            table(
                &clusters,
                &Filter {
                    port: Some(81),
                    ..Filter::default()
                }
            )
            .is_empty()
        );
    }
}
