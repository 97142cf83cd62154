//! `meshctl local node`: the supervisor itself; `up` starts it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{context, local::node};

#[derive(Debug, Args)]
pub struct Arguments {
    /// What `up` was told
    #[arg(long)]
    pub options: PathBuf,
}

pub async fn run(arguments: Arguments, dir: Option<&Path>) -> anyhow::Result<i32> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GOSSAMER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // As it was started, it would be called after the link that led to the program.
    let _ = nix::sys::prctl::set_name(c"meshctl");
    let layout = context::layout(dir)?;
    let options = node::read_options(&arguments.options)?;
    node::run(layout, options).await?;
    Ok(0)
}
