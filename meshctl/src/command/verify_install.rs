//! `meshctl verify-install`: whether everything that was installed is there, unchanged and ready.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::install::Wishes;
use crate::{
    context::Target,
    install::{self, apply, kind::Key, plan::Plan, record, wait},
    output::{self, Table},
};

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
    let objects = if arguments.wishes.sources().is_empty() {
        match record::read(&cluster.client, namespace, &revision).await? {
            Some(record) => {
                output::line(&format!(
                    "revision {revision}: Gossamer {}, profile {}",
                    record.version, record.values.profile
                ));
                record.objects
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
    let mut wrong = 0;
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
        return Ok(Some("missing".to_owned()));
    };
    if let Some(reason) = wait::unready(&live) {
        return Ok(Some(reason));
    }
    if let Some(owner) = apply::stranger(&live) {
        return Ok(Some(format!("belongs to {owner}")));
    }
    let then = apply::preview(client, object).await?;
    let fields = apply::differences(&apply::plain(&live), &apply::plain(&then));
    Ok((!fields.is_empty()).then(|| format!("changed: {}", fields.join("; "))))
}
