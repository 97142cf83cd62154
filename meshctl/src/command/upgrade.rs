//! `meshctl upgrade`: this program's version of the mesh in place of the one that is there, with the values that it was
//! installed with and what is given now over them. If it does not get ready, what was there before comes back.

use anyhow::{Context as _, bail};
use clap::Args;
use kube::Client;
use serde_json::Value;

use super::install::{Manner, Wishes, check_first, confirm, preview, said};
use crate::{
    context::Target,
    install::{self, Groups, plan::Plan, record, record::Record},
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub wishes: Wishes,
    #[command(flatten)]
    pub manner: Manner,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Begin from the profile again instead of from the values that it was installed with
    #[arg(long)]
    pub reset_values: bool,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let cluster = target.cluster().await?;
    let (client, namespace) = (&cluster.client, &target.istio_namespace);
    let revision = arguments
        .wishes
        .revision
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let Some(before) = record::read(client, namespace, &revision).await? else {
        bail!(
            "nothing is recorded of revision {revision} in namespace {namespace}; what was installed with Helm is upgraded \
             with Helm, everything else with `meshctl install`"
        );
    };
    let known = (!arguments.reset_values).then_some(&before.values);
    let plan = Plan::new(arguments.wishes.read(known)?, namespace)?;
    check_first(&cluster, &plan, arguments.manner.force).await?;
    skew(&before, arguments.manner.force)?;
    let groups = install::claim(client, &plan).await?;
    let changes = preview(client, &groups, &plan).await?;
    if arguments.dry_run || changes.is_empty() {
        return said(&changes, "everything is as it should be");
    }
    let question = format!(
        "This upgrades revision {revision} from {} to {} in {cluster}: {} objects change.",
        before.version,
        mesh_runtime::build::VERSION,
        changes.len()
    );
    confirm(&question, arguments.manner.skip_confirmation)?;
    let timeout = arguments.manner.readiness_timeout;
    let error = match install::install(client, &plan, &groups, timeout).await {
        Ok(outcome) => {
            output::line(&format!(
                "✔ upgraded to {}: {outcome}",
                mesh_runtime::build::VERSION
            ));
            output::line(
                "\nSidecars get the new version when their pods start again: kubectl rollout restart deployment",
            );
            return Ok(0);
        }
        Err(error) => error,
    };
    output::line(&format!("✘ the upgrade failed: {error:#}"));
    output::line(&format!("• going back to {}", before.version));
    roll_back(client, &plan, &groups, &before, timeout)
        .await
        .with_context(|| {
            format!(
                "going back failed too; `meshctl install` of version {} repairs it",
                before.version
            )
        })?;
    bail!(
        "the upgrade was taken back: {} works as before (kinds stay at their new version). Mend what is said above and try \
         again",
        before.version
    )
}

/// Versions may be one minor apart, upwards.
fn skew(before: &Record, force: bool) -> anyhow::Result<()> {
    let parts = |version: &str| {
        let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let (old, new) = (parts(&before.version), parts(mesh_runtime::build::VERSION));
    if force || (old.0 == new.0 && new.1 >= old.1 && new.1 - old.1 <= 1) {
        return Ok(());
    }
    if new < old {
        bail!(
            "{} is installed, and this meshctl is {}: going back is not tried. Use the meshctl of that version, or say \
             --force",
            before.version,
            mesh_runtime::build::VERSION
        );
    }
    bail!(
        "from {} to {} is more than one minor version upwards; go step by step, or say --force",
        before.version,
        mesh_runtime::build::VERSION
    )
}

/// The recorded objects again, and away with what only the new version had.
async fn roll_back(
    client: &Client,
    plan: &Plan,
    tried: &Groups,
    before: &Record,
    timeout: std::time::Duration,
) -> anyhow::Result<()> {
    let old = install::groups(&before.objects);
    install::carry_out(client, &old, timeout).await?;
    // Kinds are not in a record, and stay.
    let mut keep = old.clone();
    let kinds = tried
        .values()
        .flatten()
        .filter(|object| object["kind"] == "CustomResourceDefinition");
    let kinds: Vec<Value> = kinds.cloned().collect();
    keep.entry(install::plan::Component::Base)
        .or_default()
        .extend(kinds);
    install::prune_leftovers(client, &keep, plan.revision()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_at_a_time() {
        let ours = mesh_runtime::build::VERSION;
        let check = |version: &str, expect: bool| {
            let record = Record {
                version: version.to_owned(),
                values: install::values::Values::default(),
                objects: Vec::new(),
            };
            assert_eq!(skew(&record, false).is_ok(), expect, "{version}");
            assert!(skew(&record, true).is_ok());
        };
        check(ours, true);
        check("0.99.0", false);
        check("7.0.0", false);
    }
}
