//! `telemetry.istio.io`: Telemetry (<https://istio.io/latest/docs/reference/config/telemetry/>).

use serde::Deserialize;
use serde_json::Value;

use super::{Kind, Resource, security::LabelSelector};
use crate::scalar::Percent;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    pub selector: Option<LabelSelector>,
    pub target_ref: Option<Value>,
    pub target_refs: Vec<Value>,
    pub access_logging: Vec<AccessLogging>,
    pub tracing: Vec<Tracing>,
    pub metrics: Vec<Value>,
}

impl Resource for Telemetry {
    const KIND: Kind = Kind::Telemetry;
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderRef {
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    #[default]
    ClientAndServer,
    Client,
    Server,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeMatch {
    pub mode: WorkloadMode,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogging {
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    pub providers: Vec<ProviderRef>,
    pub disabled: Option<bool>,
    pub filter: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    pub providers: Vec<ProviderRef>,
    pub random_sampling_percentage: Option<Percent>,
    pub disable_span_reporting: Option<bool>,
    pub custom_tags: Option<Value>,
    pub use_request_id_for_trace_sampling: Option<bool>,
    pub enable_istio_tags: Option<bool>,
}
