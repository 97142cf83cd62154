//! What is logged and traced, from the mesh's settings and the Telemetry objects that speak about the viewer.

use mesh_proto::{
    mesh::{AccessLogEncoding, ExtensionProvider},
    names,
};

use super::View;
use crate::{
    generate::filter::{
        access_log::{FileLog, Format, Logs, Stream},
        hcm::{Settings, Side},
        tracing::Tracing,
    },
    model::telemetry::{AccessLogRule, Side as RuleSide, TracingRule},
};

/// The log's name on the stream to telemetry.
const LOG_NAME: &str = "gossamer";

impl View<'_> {
    /// What connection managers of one side have in common.
    pub fn http_settings(&self, side: Side) -> Settings {
        Settings {
            side,
            normalization: self.mesh().path_normalization.normalization,
            logs: self.logs(side),
            tracing: self.tracing(side),
            issuers: if side == Side::Outbound {
                Vec::new()
            } else {
                self.issuers()
            },
            authorization: if side == Side::Outbound {
                Vec::new()
            } else {
                self.authorization()
            },
        }
    }

    /// The mesh's telemetry, when there is one.
    fn telemetry_cluster(&self) -> Option<String> {
        let host = self.telemetry_host();
        let service = self.service(&host)?;
        service.port(names::port::TELEMETRY)?;
        Some(names::outbound_cluster(names::port::TELEMETRY, "", host.as_str()))
    }

    pub fn logs(&self, side: Side) -> Logs {
        let mesh = self.mesh();
        let mut logs = Logs {
            streams: self
                .telemetry_cluster()
                .map(|cluster| Stream {
                    cluster,
                    log_name: LOG_NAME.to_owned(),
                })
                .into_iter()
                .collect(),
            files: Vec::new(),
        };
        if !mesh.access_log_file.is_empty() {
            let own = (!mesh.access_log_format.is_empty()).then(|| mesh.access_log_format.clone());
            let format = match mesh.access_log_encoding {
                AccessLogEncoding::Text => Format::Text(own),
                AccessLogEncoding::Json => Format::Json(own),
            };
            logs.files.push(FileLog {
                path: mesh.access_log_file.clone(),
                format,
            });
        }
        for name in &mesh.default_providers.access_logging {
            self.add_log(name, &mut logs);
        }
        let rules = self.rules(|telemetry| &telemetry.access_logs);
        for rule in rules.iter().filter(|rule| counts(rule.side, side)) {
            apply(rule, &mut logs, |name, logs| self.add_log(name, logs));
        }
        logs
    }

    fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.mesh()
            .extension_providers
            .iter()
            .find(|provider| provider.name == name)
    }

    fn add_log(&self, name: &str, logs: &mut Logs) {
        let Some(provider) = self.provider(name) else {
            return;
        };
        if let Some(file) = &provider.envoy_file_access_log {
            let format = match &file.log_format {
                None => Format::Text(None),
                Some(format) => match &format.labels {
                    Some(labels) => Format::Json(serde_json::to_string(labels).ok()),
                    None => Format::Text(format.text.clone()),
                },
            };
            let log = FileLog {
                path: file.path.clone(),
                format,
            };
            if !logs.files.contains(&log) {
                logs.files.push(log);
            }
        }
        if let Some(remote) = &provider.envoy_http_als {
            let log_name = if remote.log_name.is_empty() {
                LOG_NAME.to_owned()
            } else {
                remote.log_name.clone()
            };
            let stream = Stream {
                cluster: cluster_of(&remote.service, remote.port),
                log_name,
            };
            if !logs.streams.contains(&stream) {
                logs.streams.push(stream);
            }
        }
    }

    fn tracing(&self, side: Side) -> Option<Tracing> {
        let mesh = self.mesh();
        if !mesh.enable_tracing {
            return None;
        }
        let mut cluster = self.telemetry_cluster();
        let mut sampling = mesh.default_config.tracing.sampling;
        let mut disabled = false;
        let of = |names: &[String]| {
            let provider = names
                .iter()
                .find_map(|name| self.provider(name)?.opentelemetry.as_ref());
            provider.map(|remote| cluster_of(&remote.service, remote.port))
        };
        cluster = of(&mesh.default_providers.tracing).or(cluster);
        // From the farthest to the nearest: the nearest has the last word.
        let rules: Vec<TracingRule> = self.rules(|telemetry| &telemetry.tracing);
        for rule in rules.iter().filter(|rule| counts(rule.side, side)) {
            disabled = rule.disabled;
            sampling = rule.sampling.unwrap_or(sampling);
            cluster = of(&rule.providers).or(cluster);
        }
        let viewer = self.viewer;
        (!disabled).then_some(())?;
        Some(Tracing {
            cluster: cluster?,
            service: format!("{}.{}", viewer.canonical_name, viewer.namespace),
            sampling,
            max_path_tag_length: mesh.default_config.tracing.max_path_tag_length,
            tags: vec![
                (
                    "istio.canonical_service".to_owned(),
                    viewer.canonical_name.clone(),
                ),
                (
                    "istio.canonical_revision".to_owned(),
                    viewer.canonical_revision.clone(),
                ),
                ("istio.namespace".to_owned(), viewer.namespace.clone()),
            ],
        })
    }

    /// The rules that speak about the viewer, the farthest first.
    fn rules<T: Clone>(&self, of: impl Fn(&crate::model::Telemetry) -> &Vec<T>) -> Vec<T> {
        let viewer = self.viewer;
        let nearest_first =
            self.snapshot
                .telemetries
                .of(&self.mesh().root_namespace, &viewer.namespace, &viewer.labels);
        nearest_first
            .into_iter()
            .rev()
            .flat_map(|telemetry| of(telemetry).clone())
            .collect()
    }
}

fn counts(rule: RuleSide, side: Side) -> bool {
    match rule {
        RuleSide::Both => true,
        RuleSide::Server => side == Side::Inbound,
        RuleSide::Client => side != Side::Inbound,
    }
}

fn apply(rule: &AccessLogRule, logs: &mut Logs, add: impl Fn(&str, &mut Logs)) {
    if rule.disabled {
        *logs = Logs::default();
    } else if !rule.providers.is_empty() {
        // Providers replace the files; the mesh's own telemetry is not a choice among them.
        logs.files.clear();
        for name in &rule.providers {
            add(name, logs);
        }
    }
}

/// A provider's service is `host` or `namespace/host`.
fn cluster_of(service: &str, port: u16) -> String {
    let host = service.rsplit('/').next().unwrap_or(service);
    names::outbound_cluster(port, "", host)
}
