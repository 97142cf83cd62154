//! Flags of `mesh-pilot`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use mesh_proto::{identity::TrustDomain, names};
use mesh_runtime::{log::Format, settings::duration};

/// The control plane of the mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-pilot", version)]
pub struct Settings {
    /// Folder of YAML and JSON files with the mesh's objects, watched with its subfolders; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    pub config_dir: Vec<PathBuf>,
    /// Where proxies connect (xDS over mutual TLS)
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::XDS)))]
    pub xds_address: SocketAddr,
    /// Also serve xDS without TLS here, believing whatever a proxy says about itself; for debugging
    #[arg(long, value_name = "ADDRESS")]
    pub xds_plaintext_address: Option<SocketAddr>,
    /// Where metrics, readiness and debug pages are
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::CONTROL)))]
    pub admin_address: SocketAddr,
    /// Citadel, which issues pilot's own certificate
    #[arg(long, value_name = "HOST:PORT", default_value_t = format!("citadel.{}.svc:{}", names::SYSTEM_NAMESPACE, names::port::CA))]
    pub ca_address: String,
    /// The platform's token by which pilot proves itself to citadel
    #[arg(long, value_name = "FILE", default_value = names::path::TOKEN)]
    pub token_file: PathBuf,
    /// The roots by which citadel proves itself
    #[arg(long, value_name = "FILE", default_value = names::path::ROOT_CERT)]
    pub root_file: PathBuf,
    /// The trust domain of the mesh
    #[arg(long, value_name = "DOMAIN", default_value = names::CLUSTER_DOMAIN)]
    pub trust_domain: TrustDomain,
    /// Life of pilot's own certificate; 0s leaves it to citadel
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub certificate_ttl: Duration,
    /// How many proxies may be connected at once
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_streams: usize,
    /// How many proxies per second may connect; the others wait their turn
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub admission_rate: u32,
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
        let settings = Settings::parse_from(["mesh-pilot", "--config-dir", "/a", "--config-dir", "/b"]);
        assert_eq!(settings.config_dir.len(), 2);
        assert_eq!(settings.xds_address.port(), 15012);
        assert!(
            Settings::try_parse_from(["mesh-pilot"]).is_err(),
            "a pilot without objects has nothing to serve"
        );
    }
}
