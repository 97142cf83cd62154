//! `telemetry.istio.io`: Telemetry (<https://istio.io/latest/docs/reference/config/telemetry/>).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, Resource, reference::TargetRef, schema::rule, security::LabelSelector};
use crate::scalar::{Percent, Span};

/// What proxies tell about the traffic they see.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::at_most_one(&["selector", "targetRef", "targetRefs"])]))]
pub struct Telemetry {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// A Gateway or service, in place of `selector`.
    pub target_ref: Option<TargetRef>,
    /// Gateways or services, in place of `selector`.
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Which requests are logged, and where.
    pub access_logging: Vec<AccessLogging>,
    /// How traces are made.
    pub tracing: Vec<Tracing>,
    /// Which metrics are kept, and with which labels.
    pub metrics: Vec<Metrics>,
}

impl Resource for Telemetry {
    const KIND: Kind = Kind::Telemetry;
}

/// An `extensionProvider` of the mesh's settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ProviderRef {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// On which side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    #[default]
    ClientAndServer,
    Client,
    Server,
}

/// On which side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeMatch {
    /// `CLIENT`: where requests leave; `SERVER`: where they arrive; `CLIENT_AND_SERVER` (the default): both.
    pub mode: WorkloadMode,
}

/// Which requests are logged, and where.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogging {
    /// On which side.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where to. None: the mesh's default.
    pub providers: Vec<ProviderRef>,
    /// true: not at all.
    pub disabled: Option<bool>,
    /// Only some requests.
    pub filter: Option<LogFilter>,
}

/// A condition for a log entry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFilter {
    /// A CEL expression over Envoy's attributes, such as `response.code >= 400`.
    pub expression: String,
}

/// How traces are made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// On which side.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where to. None: the mesh's default.
    pub providers: Vec<ProviderRef>,
    /// How many of the requests that nobody has decided about yet.
    pub random_sampling_percentage: Option<Percent>,
    /// true: no spans are sent; the context is passed on all the same.
    pub disable_span_reporting: Option<bool>,
    /// true: the context is not passed on either.
    pub disable_context_propagation: Option<bool>,
    /// Tags that spans get, by their names.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// Whether the request's id carries the decision.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Whether spans get the mesh's own tags.
    pub enable_istio_tags: Option<bool>,
}

/// Where a tag's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["literal", "environment", "header", "formatter"])))]
pub struct CustomTag {
    /// Always the same value.
    pub literal: Option<TagText>,
    /// A variable of the proxy's environment.
    pub environment: Option<TagSource>,
    /// A header of the request.
    pub header: Option<TagSource>,
    /// A text with Envoy's `%…%` commands.
    pub formatter: Option<TagText>,
}

/// A text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["value"]))]
pub struct TagText {
    /// The text.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// Something with a name that may be missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct TagSource {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The value when it is missing. None: no tag.
    pub default_value: String,
}

/// Which metrics are kept, and with which labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where to. None: the mesh's default.
    pub providers: Vec<ProviderRef>,
    /// What is kept otherwise than by default; later ones go before earlier ones.
    pub overrides: Vec<MetricOverride>,
    /// How often TCP connections are counted while they are open. None: 5s.
    #[schemars(transform = rule::positive)]
    pub reporting_interval: Option<Span>,
}

/// What is kept otherwise than by default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricOverride {
    /// Which metrics. None: all.
    #[serde(rename = "match")]
    pub matches: Option<MetricMatch>,
    /// true: they are not kept.
    pub disabled: Option<bool>,
    /// Their labels, by name.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Which metrics, and on which side.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = rule::one_of(&["metric", "customMetric"])))]
pub struct MetricMatch {
    /// One of the standard metrics.
    pub metric: Option<StandardMetric>,
    /// Another metric, by its name.
    #[schemars(length(min = 1))]
    pub custom_metric: Option<String>,
    /// On which side.
    pub mode: WorkloadMode,
}

/// The standard metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StandardMetric {
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

/// Another value for a label, or no label.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule::cel(
        "!has(self.operation) || self.operation != 'UPSERT' || (has(self.value) && self.value != '')",
        "UPSERT needs a value",
    ),
    rule::cel(
        "!has(self.operation) || self.operation != 'REMOVE' || !has(self.value)",
        "REMOVE takes no value",
    ),
]))]
pub struct TagOverride {
    /// `UPSERT` (the default): the label gets this value; `REMOVE`: there is no such label.
    pub operation: TagOperation,
    /// An expression over Envoy's attributes.
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    #[default]
    Upsert,
    Remove,
}
