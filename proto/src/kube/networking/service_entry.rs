//! ServiceEntry: services that the platform does not know.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use super::{gateway::Port, workload::WorkloadEntry, workload::WorkloadSelector};
use crate::kube::{Kind, Resource, schema::rule};

/// A service that the platform does not know: outside of the mesh, or on machines that are no pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"], "x-kubernetes-validations" = [
    rule::at_most_one(&["workloadSelector", "endpoints"]),
    rule::cel(
        "!(has(self.addresses) && self.addresses.exists(a, a.contains('/'))) || !has(self.resolution) \
         || self.resolution in ['NONE', 'STATIC']",
        "ranges of addresses are possible only with resolution NONE or STATIC",
    ),
    rule::cel(
        "(has(self.resolution) && self.resolution != 'NONE') || !has(self.endpoints)",
        "with resolution NONE the client's own destination is used, so there can be no endpoints",
    ),
    rule::cel(
        "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) || size(self.endpoints) <= 1",
        "DNS_ROUND_ROBIN takes one endpoint",
    ),
]))]
pub struct ServiceEntry {
    /// The service's names, with or without a wildcard as first label.
    #[schemars(length(min = 1, max = 256), transform = no_bare_wildcard)]
    pub hosts: Vec<String>,
    /// Addresses or ranges that clients connect to.
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    /// Its ports.
    #[schemars(length(max = 256), transform = service_ports)]
    pub ports: Vec<Port>,
    /// `MESH_EXTERNAL`: outside, without the mesh's identities; `MESH_INTERNAL`: a part of the mesh.
    pub location: EntryLocation,
    /// Where endpoints come from: the client's own destination, the list below, or DNS.
    pub resolution: EntryResolution,
    /// Its endpoints.
    #[schemars(length(max = 4096))]
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods and WorkloadEntries with these labels are its endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see this object: `.` (its own), `*` (all) or names. None: what the mesh's settings say.
    pub export_to: Vec<String>,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Vec<String>,
}

impl Resource for ServiceEntry {
    const KIND: Kind = Kind::ServiceEntry;
}

fn no_bare_wildcard(schema: &mut Schema) {
    let rules = json!([rule::cel(
        "self != '*'",
        "'*' would take all traffic; name a domain"
    )]);
    if let Some(items) = schema.ensure_object().get_mut("items") {
        items[rule::RULES] = rules;
    }
}

/// Ports of a service have a name and a number, and both differ.
fn service_ports(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    object.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
    object.insert(
        rule::RULES.to_owned(),
        json!([rule::cel(
            "self.all(a, self.exists_one(b, a.number == b.number))",
            "a port's number is there twice",
        )]),
    );
    if let Some(items) = object.get_mut("items") {
        items["required"] = json!(["number", "name"]);
        items["properties"]["number"]["minimum"] = json!(1);
        items["properties"]["targetPort"]["minimum"] = json!(1);
        items["properties"]["number"]["description"] = json!("The port that clients connect to.");
        items["properties"]["targetPort"]["description"] =
            json!("The endpoints' port. None: the same number.");
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryLocation {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryResolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}
