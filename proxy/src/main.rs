//! `mesh-proxy`: the data plane. See `settings` for the command line.

use std::process::ExitCode;

use clap::Parser;
use mesh_proxy::{
    agent,
    app::{self, mesh, standalone},
    redirect,
    settings::{Cli, Command},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    app::memory::use_small_pages();
    app::raise_file_limit();
    let control = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match cli.command {
        Some(Command::Redirect(args)) => redirect::run(&args),
        Some(Command::Agent(args)) => control()?.block_on(agent::run(args)),
        Some(Command::Proxy(args)) => control()?.block_on(mesh::run(args)),
        None => control()?.block_on(standalone::run(cli.envoy)),
    }
}
