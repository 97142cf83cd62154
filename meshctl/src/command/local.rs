//! `meshctl local`: the mesh on this machine.

pub mod apply;
pub mod delete;
pub mod down;
pub mod exec;
pub mod get;
pub mod logs;
pub mod node;
pub mod rollout;
pub mod scale;
pub mod status;
pub mod up;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::context::Context;

#[derive(Debug, Subcommand)]
pub enum Local {
    /// Starts the mesh and waits until it is ready
    Up(up::Arguments),
    /// Makes the mesh hold the objects of files
    Apply(apply::Arguments),
    /// Deletes objects
    Delete(delete::Arguments),
    /// Shows objects
    Get(get::Arguments),
    /// Shows what a container writes
    Logs(logs::Arguments),
    /// Runs a program inside a pod
    Exec(exec::Arguments),
    /// Shows how the mesh is
    Status,
    /// Restarts the pods of a Deployment one after the other, or waits for a rollout
    Rollout(rollout::Arguments),
    /// Changes the number of pods of a Deployment
    Scale(scale::Arguments),
    /// Ends the mesh and removes everything of it
    Down(down::Arguments),
    #[command(hide = true)]
    Node(node::Arguments),
    #[command(hide = true)]
    Enter(Enter),
}

/// Becomes the program of a container; see `local::enter`.
#[derive(Debug, Args)]
pub struct Enter {
    #[arg(long)]
    pub spec: PathBuf,
    /// Remove the spec once it is read
    #[arg(long)]
    pub remove: bool,
}

pub async fn run(command: Local, dir: Option<&Path>) -> anyhow::Result<i32> {
    let context = || Context::find(dir);
    match command {
        Local::Up(arguments) => up::run(arguments, dir).await,
        Local::Apply(arguments) => apply::run(arguments, &context()?).await,
        Local::Delete(arguments) => delete::run(arguments, &context()?).await,
        Local::Get(arguments) => get::run(arguments, &context()?).await,
        Local::Logs(arguments) => logs::run(arguments, &context()?).await,
        Local::Exec(arguments) => exec::run(arguments, &context()?).await,
        Local::Status => status::run(&context()?).await,
        Local::Rollout(arguments) => rollout::run(arguments, &context()?).await,
        Local::Scale(arguments) => scale::run(arguments, &context()?).await,
        Local::Down(arguments) => down::run(arguments, &context()?).await,
        Local::Node(arguments) => node::run(arguments, dir).await,
        // The binary's main runs it before there is a runtime.
        Local::Enter(_) => anyhow::bail!("`local enter` is run by the platform itself"),
    }
}
