//! ProxyConfig: settings of proxies that count when they start.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use crate::kube::{Kind, Resource, security::LabelSelector};

/// Settings of the proxies of some workloads; they count for pods that start afterwards.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// The workloads. None: all of the namespace (in the mesh's root namespace: all of the mesh).
    pub selector: Option<LabelSelector>,
    /// Worker threads; 0: as many as there are processors. None: by the container's CPU limit.
    #[schemars(range(min = 0))]
    pub concurrency: Option<i32>,
    /// The proxy's environment.
    #[schemars(transform = short_values)]
    pub environment_variables: BTreeMap<String, String>,
    /// The proxy's image.
    pub image: Option<ProxyImage>,
}

impl Resource for ProxyConfig {
    const KIND: Kind = Kind::ProxyConfig;
}

fn short_values(schema: &mut Schema) {
    let values = json!({"type": "string", "maxLength": 2048});
    schema.insert("additionalProperties".to_owned(), values);
}

/// The proxy's image.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`: the ending of the image's tag.
    pub image_type: String,
}
