//! `meshctl install`: the mesh into a cluster. The same again changes nothing; other values change what they must.

use std::{
    io::{BufRead, IsTerminal, Write},
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use kube::Client;
use mesh_runtime::settings::duration;

use crate::{
    context::Target,
    install::{
        self, Groups, apply,
        kind::Key,
        plan::Plan,
        preflight::{self, Level},
        values::{Sources, Values},
    },
    kube_cluster::KubeCluster,
    output,
};

/// What is wanted; `install`, `manifest`, `upgrade` and `verify-install` share it.
#[derive(Clone, Debug, Default, Args)]
pub struct Wishes {
    /// Values to begin with: default, demo, ha or minimal [default: default]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// A file of values (names as in charts/control/values.yaml), or an IstioOperator; may be given several times
    #[arg(short = 'f', long = "filename", visible_alias = "values", value_name = "FILE")]
    pub filename: Vec<String>,
    /// One value, such as pilot.replicaCount=2; may be given several times
    #[arg(short = 's', long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// One value that is text, whatever it looks like
    #[arg(long, value_name = "NAME=VALUE")]
    pub set_string: Vec<String>,
    /// Name of this control plane beside others in the cluster
    #[arg(short = 'r', long, value_name = "NAME")]
    pub revision: Option<String>,
}

impl Wishes {
    pub fn sources(&self) -> Sources {
        Sources {
            profile: self.profile.clone(),
            files: self.filename.clone(),
            set: self.set.clone(),
            set_string: self.set_string.clone(),
            revision: self.revision.clone(),
        }
    }

    pub fn read(&self, before: Option<&Values>) -> anyhow::Result<Values> {
        self.sources().read(before)
    }
}

/// How it is done.
#[derive(Clone, Debug, Args)]
pub struct Manner {
    /// Do not ask
    #[arg(short = 'y', long)]
    pub skip_confirmation: bool,
    /// How long everything may take to be ready
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration)]
    pub readiness_timeout: Duration,
    /// Go on although a check says no
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub wishes: Wishes,
    #[command(flatten)]
    pub manner: Manner,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    // What does not need a cluster is found before one is looked for.
    let plan = Plan::new(arguments.wishes.read(None)?, &target.istio_namespace)?;
    let cluster = target.cluster().await?;
    check_first(&cluster, &plan, arguments.manner.force).await?;
    let groups = install::claim(&cluster.client, &plan).await?;
    if arguments.dry_run {
        let changes = preview(&cluster.client, &groups, &plan).await?;
        return said(&changes, "nothing would change");
    }
    let question = format!(
        "This installs Gossamer {}, profile {}, revision {}, into namespace {} of {cluster}.",
        mesh_runtime::build::VERSION,
        plan.values.profile,
        plan.revision(),
        plan.namespace
    );
    confirm(&question, arguments.manner.skip_confirmation)?;
    let outcome = install::install(
        &cluster.client,
        &plan,
        &groups,
        arguments.manner.readiness_timeout,
    )
    .await?;
    output::line(&format!("✔ installed: {outcome}"));
    output::line(&next_steps(&plan));
    Ok(0)
}

fn next_steps(plan: &Plan) -> String {
    let label = match plan.revision() {
        "default" => "istio-injection=enabled".to_owned(),
        revision => format!("istio.io/rev={revision}"),
    };
    format!("\nSidecars for the new pods of a namespace: kubectl label namespace default {label}")
}

/// Prints what the checks found; stops at an error.
pub async fn check_first(cluster: &KubeCluster, plan: &Plan, force: bool) -> anyhow::Result<()> {
    let checks = preflight::run(&cluster.client, plan).await?;
    for check in checks.iter().filter(|check| check.level > Level::Good) {
        output::line(&check.to_string());
    }
    let bad = checks.iter().filter(|check| check.level == Level::Error).count();
    if bad > 0 && !force {
        bail!("{bad} of the checks say no; nothing was changed");
    }
    Ok(())
}

/// Asks, unless told not to.
pub fn confirm(question: &str, skip: bool) -> anyhow::Result<()> {
    if skip {
        output::line(question);
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Nobody is there to confirm it; say --skip-confirmation (-y)");
    }
    output::print(&format!("{question} Go on? (y/N) "));
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("not confirmed; nothing was changed"),
    }
}

/// What applying would change, object by object.
pub async fn preview(client: &Client, groups: &Groups, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let mut changes = Vec::new();
    let namespace = Key::new("Namespace", "", &plan.namespace);
    let fresh = apply::get(client, &namespace).await?.is_none();
    if fresh {
        changes.push(format!("+ {namespace}"));
    }
    for object in groups.values().flatten() {
        let key = Key::of(object);
        let Some(live) = apply::get(client, &key).await? else {
            changes.push(format!("+ {key}"));
            continue;
        };
        if apply::stranger(&live).is_some() {
            continue;
        }
        let then = apply::preview(client, object).await?;
        let fields = apply::differences(&apply::plain(&live), &apply::plain(&then));
        if !fields.is_empty() {
            changes.push(format!("~ {key}\n    {}", fields.join("\n    ")));
        }
    }
    for key in install::leftovers(client, groups, plan.revision()).await? {
        changes.push(format!("- {key}"));
    }
    Ok(changes)
}

/// Prints changes; none is said too.
pub fn said(changes: &[String], none: &str) -> anyhow::Result<i32> {
    if changes.is_empty() {
        output::line(none);
    }
    for change in changes {
        output::line(change);
    }
    Ok(0)
}
