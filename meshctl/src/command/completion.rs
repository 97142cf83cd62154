//! `meshctl completion SHELL`: `source <(meshctl completion bash)`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{cli::Cli, output};

#[derive(Debug, Args)]
pub struct Arguments {
    pub shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "meshctl", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(0)
}
