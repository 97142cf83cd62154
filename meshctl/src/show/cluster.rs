//! Clusters: which services a proxy can reach, and how.

use serde_json::Value;

use super::{Filter, cluster_name, made_from, resources, text};
use crate::output::Table;

pub fn list<'a>(dump: &'a Value, filter: &Filter) -> Vec<&'a Value> {
    let lists = [
        ("dynamic_active_clusters", "/cluster"),
        ("static_clusters", "/cluster"),
    ];
    let mut clusters = resources(dump, "ClustersConfigDump", &lists);
    clusters.retain(|cluster| {
        let name = text(cluster, "/name");
        let (direction, port, subset, host) = cluster_name(name).unwrap_or(("", 0, "", name));
        filter.passes(Some(port), host, direction)
            && filter.subset.as_deref().is_none_or(|wanted| wanted == subset)
    });
    clusters
}

pub fn table(dump: &Value, filter: &Filter) -> Table {
    let mut table = Table::new(&[
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ]);
    for cluster in list(dump, filter) {
        let name = text(cluster, "/name");
        let kind = match (text(cluster, "/type"), text(cluster, "/cluster_type/name")) {
            // The default of the API.
            ("", "") => "STATIC",
            ("", extension) => extension,
            (kind, _) => kind,
        };
        let dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        let (host, port, subset, direction) = match cluster_name(name) {
            Some((direction, port, subset, host)) => {
                (host.to_owned(), port.to_string(), dash(subset), dash(direction))
            }
            None => (name.to_owned(), "-".into(), "-".into(), "-".into()),
        };
        table.row(vec![
            host,
            port,
            subset,
            direction,
            kind.to_owned(),
            made_from(cluster),
        ]);
    }
    table.sort();
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump() -> Value {
        json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": [
                {"cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
                    "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"}}}}},
                {"cluster": {"name": "inbound|9080||", "type": "ORIGINAL_DST"}}],
            "static_clusters": [{"cluster": {"name": "prometheus_stats"}}]}]})
    }

    #[test]
    fn rows() {
        let text = table(&dump(), &Filter::default()).to_string();
        let line = |begin: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap();
            line.split_whitespace().map(Into::into).collect()
        };
        assert_eq!(
            line("reviews")[1..],
            ["9080", "v1", "outbound", "EDS", "reviews.default"]
        );
        assert_eq!(line("prometheus")[1..], ["-", "-", "-", "STATIC"]);
    }

    #[test]
    fn filters() {
        let count = |filter: Filter| list(&dump(), &filter).len();
        assert_eq!(
            count(Filter {
                direction: Some("inbound".into()),
                ..Filter::default()
            }),
            1
        );
        assert_eq!(
            count(Filter {
                port: Some(9080),
                ..Filter::default()
            }),
            2
        );
        assert_eq!(
            count(Filter {
                name: Some("reviews".into()),
                ..Filter::default()
            }),
            1
        );
    }
}
