//! The commands and flags. Names and flags are istioctl's and kubectl's where these have them; each command's own
//! arguments stand with the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::{analyze, completion, dashboard, local::Local, proxy_config, proxy_status};

/// See, check and run the mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100)]
pub struct Cli {
    /// State folder of the local mesh [default: /var/lib/gossamer]
    #[arg(long, global = true, env = "GOSSAMER_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The mesh on this machine: no Kubernetes, no containers
    Local {
        #[command(subcommand)]
        command: Local,
    },
    /// Which proxies have which configuration
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// What a proxy is configured to do
    #[command(visible_alias = "pc")]
    ProxyConfig(proxy_config::Arguments),
    /// Finds mistakes in files, or in the running mesh
    Analyze(analyze::Arguments),
    /// Opens the way to the dashboard
    Dashboard(dashboard::Arguments),
    /// Versions of meshctl and of the running mesh
    Version,
    /// A completion script for a shell
    Completion(completion::Arguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn familiar_lines_are_understood() {
        for line in [
            "meshctl local up --gateway-port 8081 --image web=python3",
            "meshctl local apply -f a.yaml -f b/",
            "meshctl local get pods -A -o wide",
            "meshctl local get vs reviews -n default -o yaml",
            "meshctl local exec reviews -c app -- sh -c true",
            "meshctl local logs reviews -c istio-proxy -f",
            "meshctl local delete pod x --grace-period 0",
            "meshctl local rollout restart deployment/reviews-v1",
            "meshctl local scale deployment/reviews-v1 --replicas 3",
            "meshctl proxy-status --dir /tmp/x",
            "meshctl proxy-config cluster reviews-v1.default -o json",
            "meshctl pc all reviews-v1 -n default",
            "meshctl analyze samples/ -R",
            "meshctl completion bash",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
