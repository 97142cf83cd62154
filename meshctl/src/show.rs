//! What a proxy says about itself on its admin pages (`/config_dump`, `/clusters?format=json`, `/certs`), as the tables
//! that istioctl users know. Pure: JSON in, rows out; works for our proxy and for a stock Envoy, which answer alike.

pub mod bootstrap;
pub mod cluster;
pub mod ecds;
pub mod endpoint;
pub mod listener;
pub mod route;
pub mod secret;

use serde_json::Value;

/// What to show of it; a filter that is not set passes everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub port: Option<u16>,
    /// Part of the host (clusters), of the cluster (endpoints), or the name (routes).
    pub name: Option<String>,
    /// `inbound` or `outbound`.
    pub direction: Option<String>,
    /// The subset (clusters).
    pub subset: Option<String>,
    /// Part of the address (listeners, endpoints).
    pub address: Option<String>,
    /// `healthy`, `unhealthy` (endpoints).
    pub status: Option<String>,
}

impl Filter {
    fn takes(wanted: Option<&str>, text: &str) -> bool {
        wanted.is_none_or(|wanted| text.contains(wanted))
    }

    fn passes(&self, port: Option<u64>, name: &str, direction: &str) -> bool {
        self.port.is_none_or(|wanted| port == Some(u64::from(wanted)))
            && self.name.as_deref().is_none_or(|wanted| name.contains(wanted))
            && self
                .direction
                .as_deref()
                .is_none_or(|wanted| direction.eq_ignore_ascii_case(wanted))
    }
}

/// The resources of one section of a dump: `section` is the end of its `@type`, each list in `lists` holds entries in
/// which `path` leads to the resource.
fn resources<'a>(dump: &'a Value, section: &str, lists: &[(&str, &str)]) -> Vec<&'a Value> {
    let configs = dump["configs"].as_array().into_iter().flatten();
    let sections = configs.filter(|config| {
        config["@type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with(section))
    });
    let mut found = Vec::new();
    for config in sections {
        for (list, path) in lists {
            let entries = config[*list].as_array().into_iter().flatten();
            found.extend(entries.filter_map(|entry| entry.pointer(path)));
        }
    }
    found
}

/// `outbound|9080|v1|reviews.default.svc.cluster.local` → direction, port, subset, host.
fn cluster_name(name: &str) -> Option<(&str, u64, &str, &str)> {
    let parts: Vec<&str> = name.split('|').collect();
    match parts[..] {
        [direction, port, subset, host] => Some((direction, port.parse().ok()?, subset, host)),
        _ => None,
    }
}

/// The Istio object that a resource was made from: `reviews.default`.
fn made_from(resource: &Value) -> String {
    let path = resource
        .pointer("/metadata/filter_metadata/istio/config")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // /apis/networking.istio.io/v1/namespaces/<namespace>/<kind>/<name>
    let parts: Vec<&str> = path.rsplit('/').collect();
    match parts[..] {
        [name, _, namespace, ..] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_origins() {
        assert_eq!(
            cluster_name("outbound|80|v1|a.b"),
            Some(("outbound", 80, "v1", "a.b"))
        );
        assert_eq!(cluster_name("BlackHoleCluster"), None);
        let path = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews";
        let route = json!({"metadata": {"filter_metadata": {"istio": {"config": path}}}});
        assert_eq!(made_from(&route), "reviews.default");
        assert_eq!(made_from(&json!({})), "");
    }
}
