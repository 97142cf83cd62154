//! Flags of `mesh-citadel`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use mesh_proto::{identity::TrustDomain, names};
use mesh_runtime::{log::Format, settings::duration};

/// The certificate authority of the mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-citadel", version)]
pub struct Settings {
    /// Kubernetes is the platform: tokens are checked by its API server, the root is kept in the Secret
    /// istio-ca-secret (or the user's authority taken from the Secret cacerts), and published into every namespace
    #[arg(long)]
    pub kube: bool,
    /// The namespace of this process, with --kube
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Kubeconfig file, with --kube; without it KUBECONFIG or the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
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
    /// Public keys of the platform's token issuer (RFC 7517); read again when it changes; needed without --kube
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "kube",
        conflicts_with = "kube"
    )]
    pub jwks_file: Option<PathBuf>,
    /// The issuer that tokens must name
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://kubernetes.default.svc.cluster.local"
    )]
    pub jwt_issuer: String,
    /// The audience that tokens must name
    #[arg(long, visible_alias = "token-audience", value_name = "NAME", default_value = names::TOKEN_AUDIENCE)]
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
    /// Life of a root that citadel makes, with --kube
    #[arg(long, value_name = "DURATION", default_value = "3650d", value_parser = duration)]
    pub root_ttl: Duration,
    /// A root of citadel's own is replaced when it has no more than this to live, with --kube; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = duration)]
    pub root_rotate_before: Duration,
    /// How long a new root is published before it signs, with --kube: until every proxy trusts it
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub root_announce: Duration,
    /// Keep the trusted roots in this file
    #[arg(long, value_name = "FILE")]
    pub publish_root: Option<PathBuf>,
    /// How long to go on as before after SIGTERM, where a Service still leads here for a moment
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
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
        assert!(!settings.kube && settings.namespace == "istio-system");
        let settings = Settings::parse_from(["mesh-citadel", "--kube", "--root-announce", "10m"]);
        assert_eq!(settings.root_announce, Duration::from_secs(600));
        assert!(Settings::try_parse_from(["mesh-citadel"]).is_err());
        assert!(
            Settings::try_parse_from(["mesh-citadel", "--jwks-file", "/j", "--trust-domain", "A b"]).is_err()
        );
    }
}
