//! Flags of `mesh-telemetry`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use mesh_proto::{identity::TrustDomain, names};
use mesh_runtime::{log::Format, settings::duration};

/// Gathers what the proxies report, rolls it up, exports it and shows it.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-telemetry", version)]
pub struct Settings {
    /// Where proxies report: access logs and spans over gRPC
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::TELEMETRY)))]
    pub listen: SocketAddr,
    /// Where metrics, readiness and debug pages are
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::CONTROL)))]
    pub admin_address: SocketAddr,
    /// Where the dashboard is
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], names::port::DASHBOARD)))]
    pub dashboard_address: SocketAddr,
    /// Citadel, as host:port
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "citadel.istio-system.svc:15013"
    )]
    pub ca_address: String,
    /// The platform's token that proves this process to citadel
    #[arg(long, value_name = "FILE", default_value = names::path::TOKEN)]
    pub token_file: PathBuf,
    /// Roots that prove citadel
    #[arg(long, value_name = "FILE", default_value = names::path::ROOT_CERT)]
    pub root_file: PathBuf,
    /// The trust domain of the mesh
    #[arg(long, value_name = "DOMAIN", default_value = names::CLUSTER_DOMAIN)]
    pub trust_domain: TrustDomain,
    /// Life of the own certificate to ask for; 0s leaves it to citadel
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub ttl: Duration,
    /// Edges (pairs of workloads) kept apart; more are counted as one named "other"
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pub max_edges: usize,
    /// An edge without traffic for so long is forgotten
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    pub idle_expiry: Duration,
    /// Traces kept
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub max_traces: usize,
    /// Log level, as tracing directives
    #[arg(long, value_name = "LEVEL", env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Settings::command().debug_assert();
        let settings = Settings::parse_from(["mesh-telemetry", "--idle-expiry", "90s"]);
        assert_eq!(settings.idle_expiry, Duration::from_secs(90));
        assert!(settings.dashboard_address.ip().is_loopback());
    }
}
