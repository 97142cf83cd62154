//! The binary: parses the command line and runs one command. `local enter` is special: it must run before any thread
//! exists (the kernel allows entering a mount namespace only then), so it never sees the runtime.

use std::process::ExitCode;

use clap::Parser;
use meshctl::{
    cli::{Cli, Command},
    command,
    local::enter,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A reader that has gone is no error.
            let _ = error.print();
            return exit_code(if error.use_stderr() {
                command::exit::USAGE
            } else {
                0
            });
        }
    };
    if let Command::Local {
        command: command::local::Local::Enter(arguments),
        ..
    } = &cli.command
    {
        return exit_code(enter::run(&arguments.spec, arguments.remove));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("meshctl: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command::run(cli)) {
        Ok(code) => exit_code(code),
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
