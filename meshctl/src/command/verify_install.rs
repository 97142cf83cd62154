//! `meshctl verify-install`: whether everything that was installed is there, unchanged and ready.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::install::Wishes;
use crate::{
    context::Target,
    install::{
        self, apply,
        kind::Key,
        plan::{Component, Plan},
        record, wait,
    },
    output::{self, Table},
};

const MISSING: &str = "missing";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Compare with these instead of with what was recorded
    #[command(flatten)]
    pub wishes: Wishes,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let cluster = target.cluster().await?;
    let namespace = &target.istio_namespace;
    let revision = arguments
        .wishes
        .revision
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let mut missing = Vec::new();
    let objects = if arguments.wishes.sources().is_empty() {
        match record::read(&cluster.client, namespace, &revision).await? {
            Some(record) => {
                output::line(&format!(
                    "revision {revision}: Gossamer {}, profile {}",
                    record.version, record.values.profile
                ));
                let mut objects = record.objects;
                // Kinds are too large to be recorded. Those of another version differ from this one's, which is no fault.
                let kinds = kinds(&Plan::new(record.values, namespace)?);
                if record.version == env!("CARGO_PKG_VERSION") {
                    objects.extend(kinds);
                } else {
                    missing = gone(&cluster.client, kinds).await?;
                }
                objects
            }
            None => bail!(
                "nothing is recorded of revision {revision} in namespace {namespace}: it is not installed by meshctl, or its \
                 installation did not end well. To compare with a profile: meshctl verify-install --profile default"
            ),
        }
    } else {
        let plan = Plan::new(arguments.wishes.read(None)?, namespace)?;
        let groups = install::claim(&cluster.client, &plan).await?;
        groups.into_values().flatten().collect()
    };
    let mut table = Table::new(&["OBJECT", "STATE"]);
    let mut wrong = missing.len();
    for key in &missing {
        table.row(vec![key.to_string(), MISSING.to_owned()]);
    }
    for object in &objects {
        if let Some(state) = state(&cluster.client, object).await? {
            wrong += 1;
            table.row(vec![Key::of(object).to_string(), state]);
        }
    }
    if wrong == 0 {
        output::line(&format!(
            "✔ {} objects are there as installed, and ready",
            objects.len()
        ));
        return Ok(0);
    }
    output::print(&table.to_string());
    output::line(&format!(
        "✘ {wrong} of {} objects are not as installed; the same `meshctl install` again repairs what was changed",
        objects.len()
    ));
    Ok(1)
}

/// What is wrong with an object.
async fn state(client: &kube::Client, object: &Value) -> anyhow::Result<Option<String>> {
    let Some(live) = apply::get(client, &Key::of(object)).await? else {
        return Ok(Some(MISSING.to_owned()));
    };
    if let Some(owner) = apply::stranger(&live) {
        return Ok(Some(format!("belongs to {owner}")));
    }
    let then = apply::preview(client, object).await?;
    let fields = apply::differences(&apply::plain(&live), &apply::plain(&then));
    let mut told = Vec::new();
    if !fields.is_empty() {
        told.push(format!("changed: {}", fields.join("; ")));
    }
    if let Some(reason) = wait::unready(&live) {
        told.push(reason);
        told.extend(wait::pods(client, &Key::of(object), Some(&live)).await);
    }
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// The kinds of a plan, with the labels of their owner.
fn kinds(plan: &Plan) -> Vec<Value> {
    let base = plan.groups.get(&Component::Base).into_iter().flatten();
    base.filter(|object| object["kind"] == "CustomResourceDefinition")
        .map(|object| apply::owned(object, &Component::Base, plan.revision()))
        .collect()
}

/// Those that are not there.
async fn gone(client: &kube::Client, objects: Vec<Value>) -> anyhow::Result<Vec<Key>> {
    let mut gone = Vec::new();
    for key in objects.iter().map(Key::of) {
        if apply::get(client, &key).await?.is_none() {
            gone.push(key);
        }
    }
    Ok(gone)
}
