//! WorkloadEntry and WorkloadGroup: workloads that are no pods.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kube::{Kind, Resource, schema::rule};

/// A workload that is no pod, such as a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    needs_address(),
    rule::cel(
        "!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)",
        "a Unix socket has no ports",
    ),
]))]
pub struct WorkloadEntry {
    /// An address, a name that DNS resolves, or `unix://` and an absolute path.
    #[schemars(length(max = 256), extend("x-kubernetes-validations" = [rule::cel(
        "!self.startsWith('unix://') || self.substring(7, 8) in ['/', '@'] && !self.endsWith('/')",
        "a Unix socket needs an absolute path, or @ and a name",
    )]))]
    pub address: String,
    /// Ports by the names that the service gives them. None: the service's numbers.
    #[schemars(transform = rule::named_ports)]
    pub ports: BTreeMap<String, u32>,
    /// Its labels, for selectors.
    #[schemars(transform = rule::at_most_256_properties)]
    pub labels: BTreeMap<String, String>,
    /// The network from which it is reached directly.
    #[schemars(length(max = 2048))]
    pub network: String,
    /// Where it is, as region/zone/subzone.
    #[schemars(length(max = 2048))]
    pub locality: String,
    /// Its share, in proportion to the weights of other endpoints.
    pub weight: u32,
    /// The account under which it runs, if it has a proxy.
    #[schemars(length(max = 253))]
    pub service_account: String,
}

impl Resource for WorkloadEntry {
    const KIND: Kind = Kind::WorkloadEntry;
}

fn needs_address() -> Value {
    rule::cel("has(self.address) || has(self.network)", "address must be set")
}

/// Workloads that are no pods and have everything but their addresses in common.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["template"]))]
pub struct WorkloadGroup {
    /// Labels and annotations of the WorkloadEntries.
    pub metadata: Option<WorkloadMetadata>,
    /// The WorkloadEntries' fields; each workload adds its address.
    #[schemars(transform = without_address)]
    pub template: Option<WorkloadEntry>,
    /// How the proxy finds out whether the workload is ready.
    pub probe: Option<ReadinessProbe>,
}

impl Resource for WorkloadGroup {
    const KIND: Kind = Kind::WorkloadGroup;
}

/// The address is what each workload adds.
fn without_address(schema: &mut Schema) {
    let address = needs_address();
    let rules = schema.ensure_object().get_mut(rule::RULES);
    if let Some(rules) = rules.and_then(Value::as_array_mut) {
        rules.retain(|rule| *rule != address);
    }
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadMetadata {
    /// Labels that each WorkloadEntry gets.
    #[schemars(transform = rule::at_most_256_properties)]
    pub labels: BTreeMap<String, String>,
    /// Annotations that each WorkloadEntry gets.
    #[schemars(transform = rule::at_most_256_properties)]
    pub annotations: BTreeMap<String, String>,
}

/// A question that a ready workload answers well.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule::at_most_one(&["httpGet", "tcpSocket", "exec", "grpc"])]))]
pub struct ReadinessProbe {
    /// Before the first question.
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: i32,
    /// Until the answer must be there. None: 1.
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
    /// Between two questions. None: 10.
    #[schemars(range(min = 0))]
    pub period_seconds: i32,
    /// So many good answers in a row make it ready. None: 1.
    #[schemars(range(min = 0))]
    pub success_threshold: i32,
    /// So many bad answers in a row make it not ready. None: 3.
    #[schemars(range(min = 0))]
    pub failure_threshold: i32,
    /// An HTTP request; a status from 200 to 399 is good.
    pub http_get: Option<HttpProbe>,
    /// A connection; that it is accepted is good.
    pub tcp_socket: Option<TcpProbe>,
    /// A command; status 0 is good.
    pub exec: Option<ExecProbe>,
    /// gRPC's health service.
    pub grpc: Option<GrpcProbe>,
}

/// An HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct HttpProbe {
    /// Its path. None: /.
    pub path: String,
    /// The workload's port.
    #[schemars(transform = rule::port)]
    pub port: u32,
    /// The host to connect to. None: the workload.
    pub host: String,
    /// `HTTP` (the default) or `HTTPS`.
    #[schemars(extend("enum" = ["", "HTTP", "HTTPS"]))]
    pub scheme: String,
    /// Headers to send.
    pub http_headers: Vec<ProbeHeader>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeHeader {
    /// Its name.
    #[schemars(regex(pattern = r"^[-_A-Za-z0-9]+$"))]
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct TcpProbe {
    /// The host to connect to. None: the workload.
    pub host: String,
    /// The workload's port.
    #[schemars(transform = rule::port)]
    pub port: u32,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["command"]))]
pub struct ExecProbe {
    /// The program and its arguments.
    #[schemars(inner(length(min = 1)))]
    pub command: Vec<String>,
}

/// gRPC's health service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcProbe {
    /// The workload's port.
    #[schemars(transform = rule::port)]
    pub port: u32,
    /// The service to ask about. None: all.
    pub service: String,
}

/// Labels of workloads. The networking API writes `labels` where the security API writes `matchLabels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that the workloads have.
    #[schemars(transform = selecting)]
    pub labels: BTreeMap<String, String>,
}

fn selecting(schema: &mut Schema) {
    rule::selecting_labels(schema);
    schema.insert("maxProperties".to_owned(), json!(256));
}
