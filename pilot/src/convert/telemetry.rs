//! Telemetry.

use mesh_proto::kube::{Object, telemetry as api};

use super::peer_authentication::selector;
use crate::model::{
    Origin, Telemetry,
    telemetry::{AccessLogRule, Side, TracingRule},
};

pub fn convert(object: &Object<api::Telemetry>, origin: Origin) -> Telemetry {
    let providers = |list: &[api::ProviderRef]| list.iter().map(|provider| provider.name.clone()).collect();
    let access_log = |rule: &api::AccessLogging| AccessLogRule {
        side: side(rule.matches.as_ref()),
        providers: providers(&rule.providers),
        disabled: rule.disabled.unwrap_or_default(),
    };
    let tracing = |rule: &api::Tracing| TracingRule {
        side: side(rule.matches.as_ref()),
        providers: providers(&rule.providers),
        sampling: rule.random_sampling_percentage,
        disabled: rule.disable_span_reporting.unwrap_or_default(),
    };
    Telemetry {
        selector: selector(object.spec.selector.as_ref()),
        access_logs: object.spec.access_logging.iter().map(access_log).collect(),
        tracing: object.spec.tracing.iter().map(tracing).collect(),
        origin,
    }
}

fn side(matched: Option<&api::ModeMatch>) -> Side {
    match matched.map(|matched| matched.mode).unwrap_or_default() {
        api::WorkloadMode::ClientAndServer => Side::Both,
        api::WorkloadMode::Client => Side::Client,
        api::WorkloadMode::Server => Side::Server,
    }
}
