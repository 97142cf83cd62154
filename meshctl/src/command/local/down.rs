//! `meshctl local down`: asks the supervisor to end; if it does not answer, or died long ago, removes everything itself.

use std::time::Duration;

use clap::Args;

use crate::{
    context::Context,
    local::{clean, node},
    output,
};

/// Pods get their last grace, and then some.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Keep objects, keys and images for the next `up`
    #[arg(long)]
    pub keep_state: bool,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let layout = &context.client.layout;
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("only root can remove namespaces; run it with sudo");
    }
    if !layout.dir.exists() {
        clean::processes_and_namespaces(layout).await?;
        output::line(&format!("no local mesh in {}", layout.dir.display()));
        return Ok(0);
    }
    if node::is_running(layout) && context.client.shutdown().await.is_ok() {
        let end = tokio::time::Instant::now() + PATIENCE;
        while node::is_running(layout) && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    clean::supervisor(layout).await?;
    clean::processes_and_namespaces(layout).await?;
    if !arguments.keep_state {
        clean::state(layout)?;
    }
    output::line("the local mesh is down");
    Ok(0)
}
