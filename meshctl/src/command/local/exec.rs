//! `meshctl local exec POD -- CMD…`: becomes a program beside a container: its network, its files, its user, its
//! environment, our terminal.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::Context as _;
use clap::Args;

use crate::{
    context::Context,
    local::{control::ExecQuery, object, store::write_atomically},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// POD, POD.NAMESPACE or deployment/NAME
    pub pod: String,
    #[arg(short, long)]
    pub container: Option<String>,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// For those who are used to -it; the terminal is ours anyway
    #[arg(short = 't', long, hide = true)]
    pub tty: bool,
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let pod = context.pod(&arguments.pod, &arguments.namespace).await?;
    let query = ExecQuery {
        namespace: object::text(&pod, "/metadata/namespace").to_owned(),
        pod: object::text(&pod, "/metadata/name").to_owned(),
        container: arguments.container.unwrap_or_default(),
    };
    let mut spec = context.client.exec(&query).await?.spec;
    let (program, rest) = arguments.command.split_first().context("no command given")?;
    spec.program.clone_from(program);
    spec.args = rest.to_vec();
    if let Ok(terminal) = std::env::var("TERM") {
        spec.env.retain(|(name, _)| name != "TERM");
        spec.env.push(("TERM".into(), terminal));
    }
    let file = context
        .client
        .layout
        .run()
        .join(format!("exec-{}.json", std::process::id()));
    write_atomically(&file, &serde_json::to_vec(&spec)?, 0o600)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["local", "enter", "--remove", "--spec"]).arg(&file);
    if !arguments.stdin {
        command.stdin(std::process::Stdio::null());
    }
    // Only returns when it could not.
    Err(command.exec()).context("the program cannot be started")
}
