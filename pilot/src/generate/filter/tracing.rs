//! Traces: which share of requests makes spans, and where the spans go (OTLP).

use mesh_proto::envoy::{
    config::trace::v3::{
        OpenTelemetryConfig,
        tracing::{Http, http},
    },
    extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm,
    r#type::{
        tracing::v3::{CustomTag, custom_tag},
        v3::Percent as EnvoyPercent,
    },
};

use crate::{
    generate::value::{any, boolean, grpc, uint},
    model::Percent,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracing {
    pub cluster: String,
    /// The service's name in traces.
    pub service: String,
    pub sampling: Percent,
    pub max_path_tag_length: u32,
    /// Texts that every span carries.
    pub tags: Vec<(String, String)>,
}

pub fn generate(tracing: &Tracing) -> hcm::Tracing {
    let percent = |value: f64| Some(EnvoyPercent { value });
    let provider = OpenTelemetryConfig {
        grpc_service: Some(grpc(&tracing.cluster)),
        service_name: tracing.service.clone(),
        ..OpenTelemetryConfig::default()
    };
    hcm::Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(tracing.sampling.as_f64()),
        overall_sampling: percent(100.0),
        max_path_tag_length: Some(uint(tracing.max_path_tag_length)),
        // Envoy refuses a tag without a value.
        custom_tags: tracing
            .tags
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| literal(name, value))
            .collect(),
        provider: Some(Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(http::ConfigType::TypedConfig(any(&provider))),
        }),
        spawn_upstream_span: Some(boolean(false)),
        ..hcm::Tracing::default()
    }
}

fn literal(name: &str, value: &str) -> CustomTag {
    CustomTag {
        tag: name.to_owned(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal {
            value: value.to_owned(),
        })),
    }
}
