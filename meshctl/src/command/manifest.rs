//! `meshctl manifest generate`: what would be installed, as YAML, without a cluster. `meshctl manifest diff`: how that differs
//! from what is there, or one file from another.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::install::{Wishes, preview, said};
use crate::{
    context::Target,
    install::{
        self, apply,
        kind::Key,
        plan::{Component, Plan},
    },
    local::manifest::{self, to_yaml},
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything that would be installed, as YAML
    Generate(Generate),
    /// What an installation would change in the cluster; with two files, what is different between them
    Diff(Diff),
}

#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub wishes: Wishes,
    /// Only this part: base, pilot, citadel, telemetry, webhooks, or a gateway's name
    #[arg(long, value_name = "NAME")]
    pub component: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    pub wishes: Wishes,
    /// Two manifests
    #[arg(num_args = 2, value_names = ["OLD", "NEW"])]
    pub files: Vec<String>,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    match arguments.command {
        Command::Generate(arguments) => generate(&arguments, target),
        Command::Diff(arguments) => match &arguments.files[..] {
            [old, new] => files(old, new),
            _ => live(&arguments.wishes, target).await,
        },
    }
}

fn generate(arguments: &Generate, target: &Target) -> anyhow::Result<i32> {
    let plan = Plan::new(arguments.wishes.read(None)?, &target.istio_namespace)?;
    for warning in &plan.warnings {
        eprintln!("! {warning}");
    }
    let known: Vec<&str> = plan.groups.keys().map(Component::label).collect();
    if let Some(unknown) = arguments
        .component
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        bail!(
            "there is no part {unknown:?} in this; there are: {}",
            known.join(", ")
        );
    }
    for (component, objects) in &plan.groups {
        if !arguments.component.is_empty()
            && !arguments.component.iter().any(|name| name == component.label())
        {
            continue;
        }
        for object in objects {
            output::print(&format!("---\n{}", to_yaml(object)?));
        }
    }
    Ok(0)
}

async fn live(wishes: &Wishes, target: &Target) -> anyhow::Result<i32> {
    let plan = Plan::new(wishes.read(None)?, &target.istio_namespace)?;
    let cluster = target.cluster().await?;
    let groups = install::claim(&cluster.client, &plan).await?;
    let changes = preview(&cluster.client, &groups, &plan).await?;
    said(&changes, "no difference")?;
    Ok(i32::from(!changes.is_empty()))
}

fn files(old: &str, new: &str) -> anyhow::Result<i32> {
    let (old, new) = (objects(old)?, objects(new)?);
    let changes = between(&old, &new);
    said(&changes, "no difference")?;
    Ok(i32::from(!changes.is_empty()))
}

fn objects(file: &str) -> anyhow::Result<Vec<Value>> {
    let parsed = manifest::read(&[file.to_owned()], false)?;
    if let Some(bad) = parsed.malformed.first() {
        return Err(anyhow::anyhow!("{}", bad.text)).context(bad.source.clone());
    }
    Ok(parsed
        .documents
        .into_iter()
        .map(|document| document.object)
        .collect())
}

fn between(old: &[Value], new: &[Value]) -> Vec<String> {
    let find = |all: &[Value], key: &Key| all.iter().find(|object| Key::of(object) == *key).cloned();
    let mut changes = Vec::new();
    for object in old {
        let key = Key::of(object);
        match find(new, &key) {
            None => changes.push(format!("- {key}")),
            Some(then) => {
                let fields = apply::differences(object, &then);
                if !fields.is_empty() {
                    changes.push(format!("~ {key}\n    {}", fields.join("\n    ")));
                }
            }
        }
    }
    let added = new.iter().map(Key::of).filter(|key| find(old, key).is_none());
    changes.extend(added.map(|key| format!("+ {key}")));
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_manifests() {
        let object =
            |name: &str, value: i64| json!({"kind": "Service", "metadata": {"name": name}, "a": value});
        assert_eq!(
            between(
                &[object("x", 1), object("y", 1)],
                &[object("y", 2), object("z", 1)]
            ),
            ["- Service x", "~ Service y\n    a: 1 → 2", "+ Service z"]
        );
        assert!(between(&[object("x", 1)], &[object("x", 1)]).is_empty());
    }
}
