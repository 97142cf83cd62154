//! MeshConfig: settings of the whole mesh, under Istio's names and with Istio's defaults
//! (<https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/>). It comes from the ConfigMap `istio` of the system
//! namespace, key `mesh`.
//!
//! A field that is not known here is told as a warning and has no effect; a field whose value cannot be read makes
//! [`MeshConfig::parse`] return no configuration, so that the last good one stays.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    finding::{ObjectRef, Report},
    identity,
    kube::decode,
    names,
    scalar::{Percent, Span},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Empty: no access log in the proxies' output.
    pub access_log_file: String,
    pub access_log_encoding: AccessLogEncoding,
    /// Empty: the default format of the encoding.
    pub access_log_format: String,
    pub enable_auto_mtls: bool,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    /// Where mesh-wide policies live.
    pub root_namespace: String,
    pub enable_tracing: bool,
    pub default_config: ProxyConfig,
    pub extension_providers: Vec<ExtensionProvider>,
    pub default_providers: DefaultProviders,
    pub default_http_retry_policy: Option<RetryPolicy>,
    pub path_normalization: PathNormalization,
    pub default_service_export_to: Vec<String>,
    pub default_virtual_service_export_to: Vec<String>,
    pub default_destination_rule_export_to: Vec<String>,
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: MeshMtls,
    pub connect_timeout: Span,
    /// How long to wait for a client's first byte where the protocol is not declared; 0: as long as it takes.
    pub protocol_detection_timeout: Span,
    pub dns_refresh_rate: Span,
    pub enable_prometheus_merge: bool,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            access_log_file: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            access_log_format: String::new(),
            enable_auto_mtls: true,
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            trust_domain: names::CLUSTER_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: names::SYSTEM_NAMESPACE.to_owned(),
            enable_tracing: true,
            default_config: ProxyConfig::default(),
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
            default_http_retry_policy: None,
            path_normalization: PathNormalization::default(),
            default_service_export_to: Vec::new(),
            default_virtual_service_export_to: Vec::new(),
            default_destination_rule_export_to: Vec::new(),
            mesh_mtls: MeshMtls::default(),
            connect_timeout: Span::seconds(10),
            protocol_detection_timeout: Span::default(),
            dns_refresh_rate: Span::seconds(60),
            enable_prometheus_merge: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    pub mode: OutboundMode,
}

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// Settings of each proxy; the annotation `proxy.istio.io/config` of a pod overrides them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Worker threads; 0: as many as there are processors, `None`: as the container's CPU limit says.
    pub concurrency: Option<u32>,
    pub hold_application_until_proxy_starts: bool,
    pub drain_duration: Span,
    pub termination_drain_duration: Span,
    pub discovery_address: String,
    pub ca_address: String,
    pub status_port: u16,
    pub tracing: Tracing,
    /// Becomes the proxy's environment.
    pub proxy_metadata: BTreeMap<String, String>,
    pub image: ProxyImage,
}

/// Which of the proxy's images runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// The ending of its tag, such as `distroless`; `default`: none. Empty: as the installation says.
    pub image_type: String,
}

impl MeshConfig {
    /// Where the control plane lives: where its proxies find pilot.
    pub fn system_namespace(&self) -> &str {
        let address = &self.default_config.discovery_address;
        identity::account_behind(address).map_or(names::SYSTEM_NAMESPACE, |(namespace, _)| namespace)
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            concurrency: None,
            hold_application_until_proxy_starts: false,
            drain_duration: Span::seconds(45),
            termination_drain_duration: Span::seconds(5),
            discovery_address: format!("pilot.{}.svc:{}", names::SYSTEM_NAMESPACE, names::port::XDS),
            ca_address: format!("citadel.{}.svc:{}", names::SYSTEM_NAMESPACE, names::port::CA),
            status_port: names::port::METRICS,
            tracing: Tracing::default(),
            proxy_metadata: BTreeMap::new(),
            image: ProxyImage::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    pub sampling: Percent,
    pub max_path_tag_length: u32,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            sampling: Percent::new(1.0).unwrap_or_default(),
            max_path_tag_length: 256,
        }
    }
}

/// Where access logs and spans may go, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    pub name: String,
    pub opentelemetry: Option<RemoteProvider>,
    pub envoy_http_als: Option<RemoteProvider>,
    pub envoy_file_access_log: Option<FileProvider>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RemoteProvider {
    /// `telemetry.istio-system.svc.cluster.local`, or `namespace/host`.
    pub service: String,
    pub port: u16,
    /// Of `envoyHttpAls`.
    pub log_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileProvider {
    pub path: String,
    pub log_format: Option<LogFormat>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFormat {
    pub text: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// Used where a Telemetry object names no provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    pub access_logging: Vec<String>,
    pub tracing: Vec<String>,
    pub metrics: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPolicy {
    pub attempts: u32,
    pub per_try_timeout: Option<Span>,
    pub retry_on: String,
    pub backoff: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    pub normalization: Normalization,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// As `Base`.
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshMtls {
    pub min_protocol_version: MinimumTls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MinimumTls {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

impl MeshConfig {
    /// From the text under the ConfigMap's key `mesh`. Unknown fields are warnings.
    pub fn parse(text: &str, report: &mut Report) -> Option<Self> {
        Self::parse_at(text, "data.mesh", report)
    }

    /// As `parse`, where the text stands in the field `path`.
    fn parse_at(text: &str, path: &str, report: &mut Report) -> Option<Self> {
        let value = document(text, path, report)?;
        let config: Self = decode::lenient(value, path, report)?;
        if identity::TrustDomain::new(&config.trust_domain).is_err() {
            report.error(
                format!("{path}.trustDomain"),
                format!(
                    "{:?} is not a trust domain: use lower-case letters, digits, '.', '-', '_'",
                    config.trust_domain
                ),
            );
            return None;
        }
        Some(config)
    }
}

impl ProxyConfig {
    /// These settings, with those of a pod's annotation `proxy.istio.io/config` put over them.
    pub fn overridden(
        &self,
        annotation: &str,
        object: &ObjectRef,
    ) -> Result<Self, Box<crate::finding::Finding>> {
        let path = format!("metadata.annotations[{}]", names::annotation::PROXY_CONFIG);
        let mut report = Report::new(object.clone(), None);
        let merged = document(annotation, &path, &mut report).and_then(|over| {
            let mut base = serde_json::to_value(self).ok()?;
            merge(&mut base, over);
            decode::lenient(base, &path, &mut report)
        });
        match (merged, report.findings.into_iter().next()) {
            (Some(config), _) => Ok(config),
            (None, Some(finding)) => Err(Box::new(finding)),
            (None, None) => Ok(self.clone()),
        }
    }
}

/// YAML to a value; an empty text is the empty object.
fn document(text: &str, path: &str, report: &mut Report) -> Option<serde_json::Value> {
    if text.trim().is_empty() {
        return Some(serde_json::json!({}));
    }
    match serde_saphyr::from_str(text) {
        Ok(value) => Some(value),
        Err(error) => {
            let place = error
                .location()
                .map(|at| format!(", line {} column {}", at.line(), at.column()));
            let text = error.without_snippet().to_string();
            report.error(path, format!("not YAML{}: {text}", place.unwrap_or_default()));
            None
        }
    }
}

/// Objects are merged key by key, everything else is replaced.
fn merge(base: &mut serde_json::Value, over: serde_json::Value) {
    match (base, over) {
        (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<MeshConfig>, Vec<String>) {
        let mut report = Report::new(ObjectRef::new("ConfigMap", "istio-system", "istio"), None);
        let config = MeshConfig::parse(text, &mut report);
        (
            config,
            report
                .findings
                .iter()
                .map(|finding| format!("{} {}", finding.level, finding.path))
                .collect(),
        )
    }

    #[test]
    fn defaults() {
        assert_eq!(parse(""), (Some(MeshConfig::default()), vec![]));
    }

    #[test]
    fn reads_istios_names() {
        let (config, findings) = parse(
            "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
             defaultConfig:\n  concurrency: 2\n  drainDuration: 10s\n  tracing: {sampling: 12.5}\n\
             meshMTLS: {minProtocolVersion: TLSV1_3}\n\
             extensionProviders:\n- name: otel\n  opentelemetry: {service: a.b.svc.cluster.local, port: 4317}\n",
        );
        let config = config.unwrap();
        assert_eq!(findings, Vec::<String>::new());
        assert_eq!(config.outbound_traffic_policy.mode, OutboundMode::RegistryOnly);
        assert_eq!(config.default_config.tracing.sampling.as_f64(), 12.5);
        assert_eq!(config.default_config.drain_duration, Span::seconds(10));
        assert_eq!(
            config.extension_providers[0]
                .opentelemetry
                .as_ref()
                .map(|otel| otel.port),
            Some(4317)
        );
        assert!(config.enable_auto_mtls);
    }

    #[test]
    fn tells_what_it_does_not_know() {
        let (config, findings) = parse("accessLogFiel: x\ndefaultConfig: {concurency: 2}\n");
        assert_eq!(config, Some(MeshConfig::default()));
        assert_eq!(
            findings,
            [
                "Warning data.mesh.accessLogFiel",
                "Warning data.mesh.defaultConfig.concurency"
            ]
        );
        let (config, findings) = parse("accessLogEncoding: XML");
        assert_eq!(
            (config, findings),
            (None, vec!["Error data.mesh.accessLogEncoding".to_owned()])
        );
        assert_eq!(parse("a: [").0, None);
        assert_eq!(parse("trustDomain: A/b").0, None);
    }

    #[test]
    fn annotation_overrides() {
        let base = ProxyConfig::default();
        let object = ObjectRef::new("Pod", "a", "b");
        let over = base
            .overridden("concurrency: 4\nproxyMetadata: {A: b}\n", &object)
            .unwrap();
        assert_eq!((over.concurrency, over.proxy_metadata.len()), (Some(4), 1));
        assert_eq!(over.discovery_address, base.discovery_address);
        assert!(base.overridden("concurrency: many", &object).is_err());
    }
}
