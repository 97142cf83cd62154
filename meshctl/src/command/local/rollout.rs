//! `meshctl local rollout restart|status deployment/NAME`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    context::Context,
    local::{
        control::{PatchRequest, Selection},
        moment,
    },
    output,
};

#[derive(Debug, Args)]
pub struct Arguments {
    pub action: Action,
    /// deployment/NAME
    pub deployment: String,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Seconds to wait for `status`
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// New pods in place of the old ones, one after the other
    Restart,
    /// Waits until all pods are of the present template and available
    Status,
}

/// The name in `deployment/NAME`.
pub fn deployment(written: &str) -> anyhow::Result<&str> {
    match written.split_once('/') {
        None => Ok(written),
        Some(("deployment" | "deployments" | "deploy" | "deployment.apps", name)) => Ok(name),
        Some((kind, _)) => bail!("{kind:?} is not a Deployment; write deployment/NAME"),
    }
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let name = deployment(&arguments.deployment)?;
    if arguments.action == Action::Restart {
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": moment::now_precise()});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let selection = Selection {
            kind: "deployment".into(),
            namespace: arguments.namespace,
            name: name.into(),
            ..Selection::default()
        };
        context.client.patch(&PatchRequest { selection, patch }).await?;
        output::line(&format!("deployment.apps/{name} restarted"));
        return Ok(0);
    }
    let end = tokio::time::Instant::now() + Duration::from_secs(arguments.timeout);
    loop {
        let found = context.objects("deployment", &arguments.namespace, name).await?;
        let deployment = found.first().context("it is not there")?;
        if is_complete(deployment) {
            output::line(&format!("deployment {name:?} successfully rolled out"));
            return Ok(0);
        }
        if tokio::time::Instant::now() > end {
            bail!(
                "deployment {name:?} is not complete after {} s: {}",
                arguments.timeout,
                deployment["status"]
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn is_complete(deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    number("/status/observedGeneration") == number("/metadata/generation")
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| number(&format!("/status/{field}")) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completeness() {
        let check = |status: Value, expect: bool| {
            let deployment =
                json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
            assert_eq!(is_complete(&deployment), expect);
        };
        check(
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
            true,
        );
        check(
            json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
            false,
        );
        check(
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
            false,
        );
        check(json!({}), false);
    }
}
