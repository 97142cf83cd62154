//! The bootstrap: what a proxy started from, and who it says it is.

use serde_json::{Value, json};

use super::text;
use crate::output::Table;

/// The bootstrap itself, whole.
pub fn find(dump: &Value) -> Option<&Value> {
    let configs = dump["configs"].as_array()?;
    let section = configs.iter().find(|config| {
        config["@type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("BootstrapConfigDump"))
    })?;
    section.get("bootstrap")
}

/// As much of a bootstrap as `/server_info` tells.
pub fn of_node(info: &Value) -> Value {
    json!({"configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": {"node": info["node"]},
    }]})
}

pub fn table(dump: &Value) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let Some(bootstrap) = find(dump) else { return table };
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row(vec![name.to_owned(), value.to_owned()]);
        }
    };
    row("node", text(bootstrap, "/node/id"));
    row("cluster", text(bootstrap, "/node/cluster"));
    row("program", text(bootstrap, "/node/user_agent_name"));
    row("version", text(bootstrap, "/node/metadata/ISTIO_VERSION"));
    row("namespace", text(bootstrap, "/node/metadata/NAMESPACE"));
    row(
        "service account",
        text(bootstrap, "/node/metadata/SERVICE_ACCOUNT"),
    );
    let listed = |pointer: &str| {
        let all = bootstrap
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let names: Vec<&str> = all.filter_map(|one| one["name"].as_str()).collect();
        names.join(", ")
    };
    row("static clusters", &listed("/static_resources/clusters"));
    row("static listeners", &listed("/static_resources/listeners"));
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows() {
        let dump = json!({"configs": [{"@type": "x.BootstrapConfigDump", "bootstrap": {
            "node": {"id": "sidecar~10.0.0.1~a.b~c", "metadata": {"NAMESPACE": "b"}},
            "static_resources": {"clusters": [{"name": "xds-grpc"}, {"name": "sds-grpc"}]}}}]});
        let text = table(&dump).to_string();
        assert!(
            text.contains("xds-grpc, sds-grpc") && text.contains("sidecar~10.0.0.1"),
            "{text}"
        );
        assert!(!text.contains("version"), "{text}");
        let info = json!({"node": {"id": "sidecar~x", "metadata": {"ISTIO_VERSION": "0.1.0"}}});
        let text = table(&of_node(&info)).to_string();
        assert!(text.contains("sidecar~x") && text.contains("0.1.0"), "{text}");
    }
}
