//! One file for each command; this one only leads to them.

pub mod admin;
pub mod analyze;
pub mod authz;
pub mod bug_report;
pub mod check;
pub mod completion;
pub mod dashboard;
pub mod describe;
pub mod injector;
pub mod install;
pub mod kube_inject;
pub mod local;
pub mod manifest;
pub mod precheck;
pub mod proxy_config;
pub mod proxy_status;
pub mod uninstall;
pub mod upgrade;
pub mod validate;
pub mod verify_install;
pub mod version;
pub mod wait;

use crate::{
    cli::{Cli, Command, Experimental},
    context::{Mesh, Target},
};

/// Exit codes that are istioctl's: they tell a script what went wrong.
pub mod exit {
    /// The command line cannot be understood.
    pub const USAGE: i32 = 64;
    /// A file cannot be read as objects.
    pub const DATA: i32 = 65;
    /// `analyze` found something as bad as the threshold.
    pub const FINDINGS: i32 = 79;
}

/// Runs one command; gives the exit code.
pub async fn run(cli: Cli) -> anyhow::Result<i32> {
    let target = &cli.target;
    match cli.command {
        Command::Local { command, not_here: _ } => {
            if target.kubeconfig.is_some() || target.context.is_some() {
                anyhow::bail!(
                    "`meshctl local` is about the mesh on this machine, which is no cluster; name its folder with --dir"
                );
            }
            local::run(command, target.dir.as_deref()).await
        }
        Command::Install(arguments) => install::run(arguments, target).await,
        Command::Precheck(arguments) => precheck::run(arguments, target).await,
        Command::VerifyInstall(arguments) => verify_install::run(arguments, target).await,
        Command::Upgrade(arguments) => upgrade::run(arguments, target).await,
        Command::Uninstall(arguments) => uninstall::run(arguments, target).await,
        Command::Manifest(arguments) => manifest::run(arguments, target).await,
        Command::Check(arguments) => check::run(arguments, target).await,
        Command::ProxyStatus(arguments) => proxy_status::run(arguments, &Mesh::find(target).await?).await,
        Command::ProxyConfig(arguments) => proxy_config::run(arguments, target).await,
        Command::Analyze(arguments) => analyze::run(arguments, target).await,
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Describe(arguments) => describe(arguments, target).await,
        Command::Authz(arguments) => authz(arguments, target).await,
        Command::Wait(arguments) => wait(arguments, target).await,
        Command::KubeInject(arguments) => kube_inject::run(arguments, target).await,
        Command::Injector(arguments) => injector(arguments, target).await,
        Command::Dashboard(arguments) => dashboard::run(arguments, &Mesh::find(target).await?).await,
        Command::Admin(arguments) => admin::run(arguments, &Mesh::find(target).await?).await,
        Command::BugReport(arguments) => bug_report::run(arguments, &Mesh::find(target).await?).await,
        Command::Experimental { command } => match command {
            Experimental::Describe(arguments) => describe(arguments, target).await,
            Experimental::Authz(arguments) => authz(arguments, target).await,
            Experimental::Wait(arguments) => wait(arguments, target).await,
            Experimental::Injector(arguments) => injector(arguments, target).await,
        },
        Command::Version(arguments) => version::run(arguments, target).await,
        Command::Completion(arguments) => completion::run(&arguments),
    }
}

async fn describe(arguments: describe::Arguments, target: &Target) -> anyhow::Result<i32> {
    describe::run(arguments, &Mesh::find(target).await?).await
}

async fn authz(arguments: authz::Arguments, target: &Target) -> anyhow::Result<i32> {
    authz::run(arguments, target).await
}

async fn wait(arguments: wait::Arguments, target: &Target) -> anyhow::Result<i32> {
    wait::run(arguments, &Mesh::find(target).await?).await
}

async fn injector(arguments: injector::Arguments, target: &Target) -> anyhow::Result<i32> {
    injector::run(arguments, &Mesh::find(target).await?).await
}
