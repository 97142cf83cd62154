//! Routes: for each host, what matches and whose rule it is.

use serde_json::Value;

use super::{Filter, made_from, resources, text};
use crate::output::Table;

/// More domains than this are only counted in the table.
const DOMAINS_SHOWN: usize = 2;

pub fn list<'a>(dump: &'a Value, filter: &Filter) -> Vec<&'a Value> {
    let lists = [
        ("dynamic_route_configs", "/route_config"),
        ("static_route_configs", "/route_config"),
    ];
    let mut routes = resources(dump, "RoutesConfigDump", &lists);
    routes.retain(|route| {
        let name = text(route, "/name");
        let port = name.rsplit([':', '.']).next().and_then(|port| port.parse().ok());
        filter.passes(port, name, "")
    });
    routes
}

pub fn table(dump: &Value, filter: &Filter) -> Table {
    let mut table = Table::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for config in list(dump, filter) {
        for host in config["virtual_hosts"].as_array().into_iter().flatten() {
            for route in host["routes"].as_array().into_iter().flatten() {
                let rule = match route.get("direct_response") {
                    Some(answer) if made_from(route).is_empty() => answer["status"].to_string(),
                    _ => made_from(route),
                };
                table.row(vec![
                    text(config, "/name").into(),
                    text(host, "/name").into(),
                    domains(host),
                    matching(&route["match"]),
                    rule,
                ]);
            }
        }
    }
    table
}

fn domains(host: &Value) -> String {
    let all: Vec<&str> = host["domains"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    // Those with a port repeat those without.
    let plain: Vec<&str> = all
        .iter()
        .copied()
        .filter(|domain| !domain.contains(':'))
        .collect();
    let shown = if plain.is_empty() { &all } else { &plain };
    let first: Vec<&str> = shown.iter().take(DOMAINS_SHOWN).copied().collect();
    match shown.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} + {more} more...", first.join(", ")),
    }
}

fn matching(rules: &Value) -> String {
    let path = match rules {
        _ if rules["prefix"].is_string() => format!("{}*", text(rules, "/prefix")),
        _ if rules["path_separated_prefix"].is_string() => {
            format!("{}/*", text(rules, "/path_separated_prefix"))
        }
        _ if rules["path"].is_string() => text(rules, "/path").to_owned(),
        _ => format!("regex {}", text(rules, "/safe_regex/regex")),
    };
    let more = |field: &str| rules[field].as_array().map_or(0, Vec::len);
    match more("headers") + more("query_parameters") {
        0 => path,
        conditions => format!("{path} ({conditions} conditions)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let dump = json!({"configs": [{"@type": "x.RoutesConfigDump", "dynamic_route_configs": [{"route_config": {
            "name": "9080",
            "virtual_hosts": [{"name": "reviews.default.svc.cluster.local:9080",
                "domains": ["reviews", "reviews:9080", "reviews.default", "reviews.default.svc"],
                "routes": [
                    {"match": {"prefix": "/", "headers": [{}]}, "metadata": {"filter_metadata": {"istio": {
                        "config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"}}}},
                    {"match": {"safe_regex": {"regex": "/a.*"}}, "direct_response": {"status": 404}}]}]}}]}]});
        let text = table(&dump, &Filter::default()).to_string();
        assert!(text.contains("reviews, reviews.default + 1 more..."), "{text}");
        assert!(text.contains("/* (1 conditions)   reviews.default"), "{text}");
        assert!(text.contains("regex /a.*"), "{text}");
        assert!(text.trim_end().ends_with("404"), "{text}");
        assert_eq!(
            list(
                &dump,
                &Filter {
                    port: Some(9080),
                    ..Filter::default()
                }
            )
            .len(),
            1
        );
    }
}
