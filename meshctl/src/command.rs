//! One file for each command; this one only leads to them.

pub mod analyze;
pub mod completion;
pub mod dashboard;
pub mod local;
pub mod proxy_config;
pub mod proxy_status;
pub mod version;

use crate::{
    cli::{Cli, Command},
    context::Context,
};

/// Runs one command; gives the exit code.
pub async fn run(cli: Cli) -> anyhow::Result<i32> {
    let dir = cli.dir.as_deref();
    match cli.command {
        Command::Local { command } => local::run(command, dir).await,
        Command::ProxyStatus(arguments) => proxy_status::run(arguments, &Context::find(dir)?).await,
        Command::ProxyConfig(arguments) => proxy_config::run(arguments, &Context::find(dir)?).await,
        Command::Analyze(arguments) => analyze::run(arguments, &Context::find(dir)?).await,
        Command::Dashboard(arguments) => dashboard::run(arguments, &Context::find(dir)?).await,
        Command::Version => version::run(&Context::find(dir)?).await,
        Command::Completion(arguments) => completion::run(&arguments),
    }
}
