//! What was installed, written down in the cluster: a ConfigMap for each revision with its version, profile, values and
//! manifest. An upgrade starts from these values, and goes back to this manifest when it does not succeed.
//!
//! Bound: the API server's, 1 MiB; kinds are not in it, they are never taken back.

use anyhow::{Context, anyhow};
use kube::Client;
use serde_json::{Value, json};

use super::{
    apply::{self, MANAGER, label},
    kind::Key,
    plan::Plan,
    values::Values,
};
use crate::local::manifest::{self, to_yaml};

/// The component's name on the record itself.
const COMPONENT: &str = "record";

/// One revision as it was installed last.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub version: String,
    pub values: Values,
    /// With the labels of their owner, without kinds.
    pub objects: Vec<Value>,
}

pub fn name(revision: &str) -> String {
    format!("gossamer-install-{revision}")
}

pub async fn read(client: &Client, namespace: &str, revision: &str) -> anyhow::Result<Option<Record>> {
    let key = Key::new("ConfigMap", namespace, &name(revision));
    let Some(live) = apply::get(client, &key).await? else {
        return Ok(None);
    };
    let data = |field: &str| live.data["data"][field].as_str().unwrap_or_default();
    let parsed = manifest::parse(data("manifest"), &key.to_string());
    if let Some(bad) = parsed.malformed.first() {
        return Err(anyhow!("{}: {}", bad.source, bad.text)).context("what was installed cannot be read");
    }
    Ok(Some(Record {
        version: data("version").to_owned(),
        values: Values::recorded(data("profile"), data("values"))?,
        objects: parsed
            .documents
            .into_iter()
            .map(|document| document.object)
            .collect(),
    }))
}

/// After everything is ready.
pub async fn write(client: &Client, plan: &Plan, objects: &[Value]) -> anyhow::Result<()> {
    let revision = plan.revision();
    let mut texts = Vec::new();
    for object in objects
        .iter()
        .filter(|object| object["kind"] != "CustomResourceDefinition")
    {
        texts.push(to_yaml(object)?);
    }
    let record = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name(revision), "namespace": plan.namespace,
            "labels": { (label::OWNER): revision, (label::COMPONENT): COMPONENT, (label::MANAGED_BY): MANAGER }
        },
        "data": {
            "version": mesh_runtime::build::VERSION,
            "profile": plan.values.profile,
            "values": to_yaml(&plan.values.overlay)?,
            "manifest": texts.join("---\n")
        }
    });
    apply::apply(client, &record).await?;
    Ok(())
}
