//! `meshctl local scale deployment/NAME --replicas N`.

use clap::Args;
use serde_json::json;

use super::rollout::deployment;
use crate::{
    context::Context,
    local::control::{PatchRequest, Selection},
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// deployment/NAME
    pub deployment: String,
    #[arg(long)]
    pub replicas: u32,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let name = deployment(&arguments.deployment)?;
    let selection = Selection {
        kind: "deployment".into(),
        namespace: arguments.namespace,
        name: name.into(),
        ..Selection::default()
    };
    let patch = json!({"spec": {"replicas": arguments.replicas}});
    context.client.patch(&PatchRequest { selection, patch }).await?;
    output::line(&format!("deployment.apps/{name} scaled"));
    Ok(0)
}
