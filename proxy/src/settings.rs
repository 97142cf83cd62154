//! The command line and the environment of `mesh-proxy`, read once. Flags of `-c` mode are Envoy's
//! (<https://www.envoyproxy.io/docs/envoy/latest/operations/cli>), variables of `proxy` mode are those that Istio's
//! injector sets on its sidecars.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_proto::{
    names,
    node::{NodeId, NodeKind, NodeMetadata},
};
use mesh_runtime::settings::duration;

use crate::redirect;

/// An hour: longer than any scrape interval, shorter than a working day.
const METRICS_IDLE: u64 = 3600;
/// For requests that are on their way.
pub const MINIMUM_DRAIN: Duration = Duration::from_millis(500);

/// The data plane of the Gossamer service mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub envoy: EnvoyArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run as part of a mesh: configured by pilot, identified by citadel.
    Proxy(ProxyArgs),
    /// Run a stock Envoy as part of a mesh: the agent beside it.
    Agent(AgentArgs),
    /// Plan and apply the rules that send a pod's traffic through the proxy.
    Redirect(redirect::RedirectArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve.
    Serve,
    /// Read the configuration, say whether it is good, and exit.
    Validate,
}

/// Start from a bootstrap file, as Envoy does.
#[derive(Debug, Args)]
pub struct EnvoyArgs {
    /// Envoy bootstrap file, YAML or JSON.
    #[arg(short = 'c', long = "config-path")]
    pub config_path: Option<PathBuf>,
    /// Worker threads; the number of processors if not given.
    #[arg(long)]
    pub concurrency: Option<usize>,
    #[arg(long, value_enum, default_value = "serve")]
    pub mode: Mode,
    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info")]
    pub log_level: String,
    /// Write the admin address to this file.
    #[arg(long)]
    pub admin_address_path: Option<PathBuf>,
    /// Seconds that connections may take to end after SIGTERM.
    #[arg(long, default_value_t = 600)]
    pub drain_time_s: u64,
    /// Tells the proxies of one machine apart that are restarted hot.
    #[arg(long, default_value_t = 0)]
    pub base_id: u32,
    /// How often this proxy was restarted hot before. From 1 on it takes the listening sockets of the process with the same base
    /// id and the epoch before, whose connections finish.
    #[arg(long, default_value_t = 0)]
    pub restart_epoch: u32,
    /// Seconds that the process before this one may take to finish its connections.
    #[arg(long, default_value_t = 900)]
    pub parent_shutdown_time_s: u64,
    /// Node id, cluster and zone, for those that the bootstrap does not give.
    #[arg(long)]
    pub service_node: Option<String>,
    #[arg(long)]
    pub service_cluster: Option<String>,
    /// No process takes over from this one.
    #[arg(long)]
    pub disable_hot_restart: bool,
    /// Seconds after which a label set of the standard metrics that nothing was counted for is forgotten; 0: never.
    #[arg(long, default_value_t = METRICS_IDLE)]
    pub metrics_idle_s: u64,
}

/// Run in a mesh.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// sidecar or router (a gateway).
    #[arg(value_parser = parse_kind)]
    pub kind: NodeKind,
    /// Pilot's xDS address.
    #[arg(
        long,
        env = "DISCOVERY_ADDRESS",
        default_value = "pilot.istio-system.svc:15012"
    )]
    pub discovery_address: String,
    /// Citadel's address.
    #[arg(long, env = "CA_ADDR", default_value = "citadel.istio-system.svc:15013")]
    pub ca_address: String,
    /// Worker threads; 0: as many as processors.
    #[arg(long, env = "PROXY_CONCURRENCY", default_value_t = 2)]
    pub concurrency: usize,
    #[arg(long, env = "PROXY_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    #[arg(long, env = "PROXY_LOG_AS_JSON", default_value_t = false)]
    pub log_as_json: bool,
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The pod's address or addresses, separated by commas.
    #[arg(long, env = "INSTANCE_IP")]
    pub instance_ip: String,
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    #[arg(long, env = "TRUST_DOMAIN", default_value = names::CLUSTER_DOMAIN)]
    pub trust_domain: String,
    /// Suffix of the DNS names of services.
    #[arg(long, env = "DNS_DOMAIN", default_value = names::CLUSTER_DOMAIN)]
    pub cluster_domain: String,
    #[arg(long, env = "CA_TOKEN_FILE", default_value = names::path::TOKEN)]
    pub token_file: PathBuf,
    #[arg(long, env = "CA_ROOT_FILE", default_value = names::path::ROOT_CERT)]
    pub root_file: PathBuf,
    /// Wanted life of the certificate, in seconds.
    #[arg(long, env = "SECRET_TTL_SECONDS", default_value_t = 86_400)]
    pub certificate_ttl_s: u64,
    /// Seconds that connections may take to end after SIGTERM. A request that is then being answered gets 20 more.
    #[arg(long, env = "TERMINATION_DRAIN_DURATION_SECONDS", default_value_t = 5)]
    pub drain_time_s: u64,
    /// How long to go on after SIGTERM even if nothing is in flight, such as 5s: for those who have not yet heard that this one
    /// leaves. For a gateway the whole drain time, if not given, since load balancers take their time; else 500ms.
    #[arg(long, env = "MINIMUM_DRAIN_DURATION", value_parser = duration)]
    pub minimum_drain: Option<Duration>,
    /// The pod's labels as the downward API writes them (`key="value"` lines).
    #[arg(long, env = "POD_LABELS_FILE", default_value = "/etc/istio/pod/labels")]
    pub labels_file: PathBuf,
    /// Answer DNS from the mesh's names on 127.0.0.1:15053.
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", default_value_t = true, action = clap::ArgAction::Set)]
    pub dns_capture: bool,
    /// Who may read admin pages: this address should stay on loopback.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    pub admin_address: SocketAddr,
    /// Seconds after which a label set of the standard metrics that nothing was counted for is forgotten; 0: never.
    #[arg(long, env = "METRICS_IDLE_SECONDS", default_value_t = METRICS_IDLE)]
    pub metrics_idle_s: u64,
    /// Keep the last acknowledged configuration in this file (its folder must exist) and start with it while pilot is
    /// away. Off if not given.
    #[arg(long, env = "LAST_GOOD_FILE")]
    pub last_good_file: Option<PathBuf>,
    /// Where the application's own metrics are, as Istio's injector says it: JSON with `scrape`, `port` and `path`. They are
    /// added to those on port 15020.
    #[arg(long, env = "ISTIO_PROMETHEUS_ANNOTATIONS")]
    pub application_metrics: Option<String>,
    /// How the application's probes were written that the kubelet asks for on port 15020, as Istio's injector says it: JSON by
    /// path.
    #[arg(long, env = "ISTIO_KUBE_APP_PROBERS")]
    pub application_probes: Option<String>,
}

/// Run a stock Envoy in a mesh.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Envoy's program; a name without a folder is looked for on PATH.
    #[arg(long, env = "ENVOY_BINARY", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Where Envoy's bootstrap and the socket go over which it talks to the agent; the folder must exist.
    #[arg(long, env = "AGENT_FOLDER", default_value = "/var/lib/istio/data")]
    pub folder: PathBuf,
}

fn parse_kind(text: &str) -> Result<NodeKind, String> {
    match text {
        "sidecar" => Ok(NodeKind::Sidecar),
        "router" => Ok(NodeKind::Router),
        other => Err(format!("{other:?} is neither sidecar nor router")),
    }
}

impl ProxyArgs {
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    /// The least of it.
    pub fn minimum_drain(&self) -> Duration {
        let least = match self.kind {
            NodeKind::Router => self.drain_time(),
            NodeKind::Sidecar => MINIMUM_DRAIN,
        };
        self.minimum_drain.unwrap_or(least).min(self.drain_time())
    }

    /// The node id and metadata that pilot sees.
    pub fn node(&self) -> (NodeId, NodeMetadata) {
        let ip = self
            .instance_ip
            .split(',')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let id = NodeId {
            kind: self.kind,
            ip,
            pod: self.pod_name.clone(),
            namespace: self.pod_namespace.clone(),
            domain: format!("{}.svc.{}", self.pod_namespace, self.cluster_domain),
        };
        let meta = |name: &str| std::env::var(format!("ISTIO_META_{name}")).unwrap_or_default();
        let labels = std::fs::read_to_string(&self.labels_file)
            .map(|text| parse_labels(&text))
            .unwrap_or_default();
        let workload = Some(meta("WORKLOAD_NAME")).filter(|name| !name.is_empty());
        let metadata = NodeMetadata {
            name: self.pod_name.clone(),
            namespace: self.pod_namespace.clone(),
            service_account: self.service_account.clone(),
            workload_name: workload.unwrap_or_else(|| self.pod_name.clone()),
            cluster_id: Some(meta("CLUSTER_ID"))
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| "Kubernetes".into()),
            mesh_id: meta("MESH_ID"),
            labels,
            instance_ips: self.instance_ip.clone(),
            istio_version: mesh_runtime::build::VERSION.to_owned(),
            dns_capture: if self.dns_capture { "true" } else { "" }.to_owned(),
            interception_mode: meta("INTERCEPTION_MODE"),
            generator: "gossamer".to_owned(),
            ..NodeMetadata::default()
        };
        (id, metadata)
    }
}

/// Reads the downward API's form of labels: one `key="value"` a line, the value quoted as in Go.
fn parse_labels(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| {
            let plain = serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            (key.trim().to_owned(), plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_envoys_flags() {
        let cli = Cli::try_parse_from([
            "mesh-proxy",
            "-c",
            "envoy.yaml",
            "--concurrency",
            "1",
            "--base-id",
            "3",
        ])
        .unwrap();
        assert_eq!(cli.envoy.concurrency, Some(1));
        assert!(cli.command.is_none());
    }

    #[test]
    fn reads_labels_of_the_downward_api() {
        let labels = parse_labels("app=\"reviews\"\nversion=\"v\\\"1\"\n");
        assert_eq!(labels["app"], "reviews");
        assert_eq!(labels["version"], "v\"1");
    }
}
