//! Flags of `mesh-citadel`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use mesh_proto::{identity::TrustDomain, names};
use mesh_runtime::{log::Format, settings::duration};

/// The certificate authority of the mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-citadel", version)]
pub struct Settings {
    /// Folder with the root key and certificate; made when missing
    #[arg(
        long,
        value_name = "DIR",
        env = "CITADEL_STATE_DIR",
        default_value = "/var/lib/gossamer/citadel"
    )]
    pub state_dir: PathBuf,
    /// Where the certificate service listens
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::CA)))]
    pub listen: SocketAddr,
    /// Where metrics, readiness and debug pages are
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::CONTROL)))]
    pub admin_address: SocketAddr,
    /// Public keys of the platform's token issuer (RFC 7517); read again when it changes
    #[arg(long, value_name = "FILE")]
    pub jwks_file: PathBuf,
    /// The issuer that tokens must name
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://kubernetes.default.svc.cluster.local"
    )]
    pub jwt_issuer: String,
    /// The audience that tokens must name
    #[arg(long, value_name = "NAME", default_value = names::TOKEN_AUDIENCE)]
    pub jwt_audience: String,
    /// The trust domain of all certificates
    #[arg(long, value_name = "DOMAIN", default_value = names::CLUSTER_DOMAIN)]
    pub trust_domain: TrustDomain,
    /// Life of a certificate when the caller asks for none
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub default_ttl: Duration,
    /// Longest life; wishes above it are cut
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = duration)]
    pub max_ttl: Duration,
    /// Keep the trusted roots in this file
    #[arg(long, value_name = "FILE")]
    pub publish_root: Option<PathBuf>,
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
        let settings = Settings::parse_from(["mesh-citadel", "--jwks-file", "/j", "--max-ttl", "60s"]);
        assert_eq!(settings.max_ttl, Duration::from_secs(60));
        assert_eq!(settings.listen.port(), 15013);
        assert!(
            Settings::try_parse_from(["mesh-citadel", "--jwks-file", "/j", "--trust-domain", "A b"]).is_err()
        );
    }
}
