//! Flags of `mesh-pilot`.
//!
//! Objects come from one source: from folders (`--config-dir`) or from Kubernetes (`--kube`, `--kubeconfig`, or neither in a
//! pod of a cluster). Only on Kubernetes there are webhooks, a leader, and status conditions.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use mesh_proto::{identity::TrustDomain, kube::ObjectKey, names};
use mesh_runtime::{log::Format, settings::duration};

use crate::{error::Error, ingest::kube, webhook::cert};

/// What says that we run in a pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The control plane of the mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "mesh-pilot", version)]
pub struct Settings {
    /// Folder of YAML and JSON files with the mesh's objects, watched with its subfolders; may be given several times
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kube", "kubeconfig"])]
    pub config_dir: Vec<PathBuf>,
    /// Take the mesh's objects from Kubernetes (without --config-dir, that is so in every pod of a cluster)
    #[arg(long)]
    pub kube: bool,
    /// How to reach Kubernetes; without it by KUBECONFIG, ~/.kube/config or the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the control plane
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// The revision of this control plane: it serves namespaces and pods with this istio.io/rev
    #[arg(long, value_name = "NAME", env = "REVISION", default_value = names::DEFAULT_REVISION)]
    pub revision: String,
    /// The name of this cluster, as proxies will tell it
    #[arg(long, value_name = "NAME", env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Where Kubernetes asks about pods and objects (webhooks over TLS)
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], names::port::WEBHOOK)))]
    pub webhook_address: SocketAddr,
    /// Write status conditions into the mesh's objects
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub write_status: bool,
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

/// Where the objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Files,
    Kubernetes,
}

impl Settings {
    /// An error says which flag is missing.
    pub fn source(&self) -> Result<Source, Error> {
        self.source_where(std::env::var_os(IN_CLUSTER).is_some())
    }

    fn source_where(&self, in_cluster: bool) -> Result<Source, Error> {
        if !self.config_dir.is_empty() {
            Ok(Source::Files)
        } else if self.kube || self.kubeconfig.is_some() || in_cluster {
            Ok(Source::Kubernetes)
        } else {
            Err(Error::NoSource)
        }
    }

    /// Which installation is read.
    pub fn installation(&self) -> kube::Settings {
        kube::Settings {
            namespace: self.namespace.clone(),
            revision: if self.revision.is_empty() {
                names::DEFAULT_REVISION.to_owned()
            } else {
                self.revision.clone()
            },
        }
    }

    /// The webhook configurations that lead here.
    pub fn webhooks(&self) -> cert::Settings {
        let place = self.installation();
        cert::Settings {
            service: ObjectKey::new(&self.namespace, place.named("pilot")),
            mutating: place.named("istio-sidecar-injector"),
            validating: place.named(&format!("istio-validator-{}", self.namespace)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(flags: &[&str]) -> Settings {
        Settings::parse_from(["mesh-pilot"].iter().chain(flags))
    }

    #[test]
    fn flags_are_consistent() {
        Settings::command().debug_assert();
        let settings = parse(&["--config-dir", "/a", "--config-dir", "/b"]);
        assert_eq!(settings.config_dir.len(), 2);
        assert_eq!(settings.xds_address.port(), 15012);
        assert!(
            Settings::try_parse_from(["mesh-pilot", "--config-dir", "/a", "--kube"]).is_err(),
            "one source"
        );
    }

    #[test]
    fn sources() {
        let check = |flags: &[&str], in_cluster: bool, expect: Option<Source>| {
            assert_eq!(parse(flags).source_where(in_cluster).ok(), expect, "{flags:?}");
        };
        check(&["--config-dir", "/a"], true, Some(Source::Files));
        check(&["--kube"], false, Some(Source::Kubernetes));
        check(&["--kubeconfig", "/k"], false, Some(Source::Kubernetes));
        check(&[], true, Some(Source::Kubernetes));
        check(&[], false, None);
    }

    #[test]
    fn names_of_webhooks() {
        let webhooks = parse(&["--kube", "--revision", "canary"]).webhooks();
        assert_eq!(webhooks.service, ObjectKey::new("istio-system", "pilot-canary"));
        assert_eq!(webhooks.mutating, "istio-sidecar-injector-canary");
        assert_eq!(webhooks.validating, "istio-validator-istio-system-canary");
        assert_eq!(
            parse(&["--kube"]).webhooks().validating,
            "istio-validator-istio-system"
        );
    }
}
