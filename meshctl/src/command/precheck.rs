//! `meshctl precheck`: whether the mesh can be installed, or upgraded, here. Changes nothing.

use clap::Args;

use super::install::Wishes;
use crate::{
    context::Target,
    install::{
        plan::Plan,
        preflight::{self, Level},
        record,
    },
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub wishes: Wishes,
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    let plan = Plan::new(arguments.wishes.read(None)?, &target.istio_namespace)?;
    let cluster = target.cluster().await?;
    output::line(&cluster.to_string());
    let checks = preflight::run(&cluster.client, &plan).await?;
    for check in &checks {
        output::line(&check.to_string());
    }
    let bad = checks.iter().any(|check| check.level == Level::Error);
    if !bad {
        let revision = plan.revision();
        let next = match record::read(&cluster.client, &plan.namespace, revision).await {
            Ok(Some(record)) => format!(
                "Revision {revision} is installed here already (Gossamer {}), and can be again. To a newer version: meshctl \
                 upgrade",
                record.version
            ),
            _ => "The mesh can be installed here. Next: meshctl install".to_owned(),
        };
        output::line(&next);
    }
    Ok(i32::from(bad))
}
