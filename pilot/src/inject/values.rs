//! The installation's choices as the chart writes them: a part of Istio's Helm values, as JSON or YAML. Pure. Unknown
//! values are other parts' business.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::LocalObjectReference, apimachinery::pkg::apis::meta::v1::LabelSelector};
use serde::Deserialize;
use serde_json::Value;

use super::{Redirection, Resources, Settings};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Values {
    global: Global,
    sidecar_injector_webhook: Webhook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Global {
    hub: String,
    tag: Value,
    image_pull_policy: String,
    image_pull_secrets: Vec<Secret>,
    network: String,
    multi_cluster: MultiCluster,
    proxy: Proxy,
}

/// A name, or an object with one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Secret {
    Name(String),
    Reference(LocalObjectReference),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MultiCluster {
    cluster_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Proxy {
    image: String,
    log_level: String,
    resources: Requirements,
    #[serde(rename = "includeIPRanges")]
    include_ip_ranges: Option<String>,
    #[serde(rename = "excludeIPRanges")]
    exclude_ip_ranges: Option<String>,
    include_inbound_ports: Option<String>,
    exclude_inbound_ports: Option<String>,
    include_outbound_ports: Option<String>,
    exclude_outbound_ports: Option<String>,
    dns_capture: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requirements {
    requests: BTreeMap<String, Value>,
    limits: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Webhook {
    enable_namespaces_by_default: Option<bool>,
    #[serde(rename = "rewriteAppHTTPProbe")]
    rewrite_app_http_probe: Option<bool>,
    never_inject_selector: Vec<LabelSelector>,
    always_inject_selector: Vec<LabelSelector>,
    injected_annotations: BTreeMap<String, String>,
}

/// The settings by this text (`None`: there is none), over `base`.
pub fn read(text: Option<&str>, base: &Settings) -> Result<Settings, String> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(base.clone());
    };
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("neither JSON nor YAML: {}", error.without_snippet()))?;
    drop_nulls(&mut value);
    let Values {
        global,
        sidecar_injector_webhook: webhook,
    } = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let proxy = &global.proxy;
    let redirection = &base.redirection;
    let choose = |own: &Option<String>, default: &str| own.clone().unwrap_or_else(|| default.to_owned());
    Ok(Settings {
        proxy_image: image(&global, &base.proxy_image),
        image_pull_policy: Some(global.image_pull_policy.clone())
            .filter(|policy| !policy.is_empty())
            .or_else(|| base.image_pull_policy.clone()),
        image_pull_secrets: global
            .image_pull_secrets
            .iter()
            .map(|secret| match secret {
                Secret::Name(name) => name.clone(),
                Secret::Reference(reference) => reference.name.clone(),
            })
            .collect(),
        enable_by_default: webhook
            .enable_namespaces_by_default
            .unwrap_or(base.enable_by_default),
        never: webhook.never_inject_selector,
        always: webhook.always_inject_selector,
        annotations: webhook.injected_annotations,
        dns_capture: proxy.dns_capture.unwrap_or(base.dns_capture),
        rewrite_probes: webhook.rewrite_app_http_probe.unwrap_or(base.rewrite_probes),
        redirection: Redirection {
            include_inbound_ports: choose(&proxy.include_inbound_ports, &redirection.include_inbound_ports),
            exclude_inbound_ports: choose(&proxy.exclude_inbound_ports, &redirection.exclude_inbound_ports),
            include_outbound_ranges: choose(&proxy.include_ip_ranges, &redirection.include_outbound_ranges),
            exclude_outbound_ranges: choose(&proxy.exclude_ip_ranges, &redirection.exclude_outbound_ranges),
            include_outbound_ports: choose(
                &proxy.include_outbound_ports,
                &redirection.include_outbound_ports,
            ),
            exclude_outbound_ports: choose(
                &proxy.exclude_outbound_ports,
                &redirection.exclude_outbound_ports,
            ),
        },
        resources: resources(&proxy.resources, &base.resources),
        log_level: or(global.proxy.log_level, &base.log_level),
        network: or(global.network, &base.network),
        cluster_id: or(global.multi_cluster.cluster_name, &base.cluster_id),
        ..base.clone()
    })
}

/// `hub/image:tag`; an image that has a `/` is whole already.
fn image(global: &Global, default: &str) -> String {
    let (default_name, default_tag) = default.rsplit_once(':').unwrap_or((default, "latest"));
    let (default_hub, default_image) = default_name.rsplit_once('/').unwrap_or(("", default_name));
    let name = match global.proxy.image.as_str() {
        "" => default_image,
        whole if whole.contains('/') => return whole.to_owned(),
        name => name,
    };
    let tag = match &global.tag {
        Value::String(tag) if !tag.is_empty() => tag.clone(),
        Value::Number(tag) => tag.to_string(),
        _ => default_tag.to_owned(),
    };
    let hub = if global.hub.is_empty() {
        default_hub
    } else {
        &global.hub
    };
    if hub.is_empty() {
        format!("{name}:{tag}")
    } else {
        format!("{hub}/{name}:{tag}")
    }
}

fn resources(own: &Requirements, default: &Resources) -> Resources {
    if own.requests.is_empty() && own.limits.is_empty() {
        return default.clone();
    }
    let quantity = |map: &BTreeMap<String, Value>, name: &str| match map.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    Resources {
        cpu: quantity(&own.requests, "cpu"),
        memory: quantity(&own.requests, "memory"),
        cpu_limit: quantity(&own.limits, "cpu"),
        memory_limit: quantity(&own.limits, "memory"),
    }
}

/// Helm writes `null` where a value was taken away.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let base = Settings {
            proxy_image: "gossamer/proxy:0.1.0".into(),
            ..Settings::default()
        };
        let read = |text: &str| read(Some(text), &base);
        assert_eq!(read(""), Ok(base.clone()));
        assert_eq!(read("{\"other\": {\"x\": null}}"), Ok(base.clone()));
        let fresh = read(
            "{\"global\": {\"hub\": \"registry.example/mesh\", \"tag\": \"1.2\", \"imagePullSecrets\": [\"a\", {\"name\": \"b\"}], \
             \"proxy\": {\"logLevel\": \"debug\", \"excludeIPRanges\": \"10.0.0.0/8\", \"includeIPRanges\": null, \
             \"resources\": {\"requests\": {\"cpu\": \"1\", \"memory\": null}, \"limits\": {\"cpu\": 2}}}}, \
             \"sidecarInjectorWebhook\": {\"rewriteAppHTTPProbe\": true, \"neverInjectSelector\": [{\"matchLabels\": {\"a\": \"b\"}}]}}",
        )
        .expect("values");
        assert_eq!(fresh.proxy_image, "registry.example/mesh/proxy:1.2");
        assert_eq!(fresh.image_pull_secrets, ["a", "b"]);
        assert_eq!(
            (
                fresh.redirection.exclude_outbound_ranges.as_str(),
                fresh.redirection.include_outbound_ranges.as_str()
            ),
            ("10.0.0.0/8", "*")
        );
        assert_eq!(
            (
                fresh.resources.cpu.as_deref(),
                fresh.resources.memory,
                fresh.resources.cpu_limit.as_deref()
            ),
            (Some("1"), None, Some("2"))
        );
        assert!(fresh.rewrite_probes && fresh.never.len() == 1);
        let whole = read("global: {proxy: {image: other.example/p:7}}").expect("values");
        assert_eq!(whole.proxy_image, "other.example/p:7");
        assert!(read("global: {proxy: 7}").is_err() && read("{").is_err());
    }
}
