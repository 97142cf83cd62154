//! `meshctl uninstall`: a revision, or the whole mesh, out of the cluster. With `--purge` nothing of it is left.

use clap::Args;

use super::install::confirm;
use crate::{context::Target, install::remove, output};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this revision; without it, all of them
    #[arg(short = 'r', long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Also kinds with all their objects, the root of trust, and the namespace when it was made by `meshctl`
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub skip_confirmation: bool,
    /// Say what would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let cluster = target.cluster().await?;
    let namespace = &target.istio_namespace;
    let removal = remove::plan(
        &cluster.client,
        namespace,
        arguments.revision.as_deref(),
        arguments.purge,
    )
    .await?;
    if removal.is_empty() {
        output::line(&format!("nothing of the mesh is in {cluster}"));
        return Ok(0);
    }
    if arguments.dry_run {
        for key in removal.keys.iter().chain(&removal.namespace) {
            output::line(&format!("- {key}"));
        }
        for (key, heir) in &removal.handed {
            output::line(&format!("~ {key} goes to revision {heir}"));
        }
        return Ok(0);
    }
    if let Some(revision) = &arguments.revision
        && let Some(users) = remove::users(&cluster.client, revision).await?
    {
        output::line(&format!(
            "! {users}. They get no new configuration and no new certificate: label the namespaces anew and restart the \
             pods first (meshctl injector list shows them)"
        ));
    }
    let what = match (&arguments.revision, arguments.purge) {
        (Some(revision), _) => format!("revision {revision} of the mesh"),
        (None, false) => "the mesh".to_owned(),
        (None, true) => "the mesh with all its kinds, their objects and its root of trust".to_owned(),
    };
    let question = format!(
        "This removes {what} ({} objects) from {cluster}. Pods keep their sidecars until they start again, but get no new \
         configuration and no new certificate.",
        removal.keys.len()
    );
    confirm(&question, arguments.skip_confirmation)?;
    remove::carry_out(&cluster.client, &removal).await?;
    for left in &removal.stays {
        output::line(&format!("• stays: {left}"));
    }
    output::line("✔ uninstalled");
    Ok(0)
}
