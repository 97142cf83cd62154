//! `meshctl proxy-config KIND POD`: what one proxy is configured to do, from its own admin pages, or from a file that was
//! saved from them.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use mesh_proto::names::port;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    context::{Mesh, Target},
    output::{self, Format, Table},
    reach::{self, Way},
    show::{Filter, bootstrap, cluster, ecds, endpoint, listener, route, secret},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Everything at once
    All {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        rows: Rows,
    },
    /// What the proxy started from
    #[command(visible_alias = "b")]
    Bootstrap {
        #[command(flatten)]
        of: Of,
    },
    /// Which services it can reach, and how
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster {
        #[command(flatten)]
        of: Of,
        /// Only hosts that contain this
        #[arg(long)]
        fqdn: Option<String>,
        /// Only this port
        #[arg(long)]
        port: Option<u16>,
        /// Only inbound or outbound
        #[arg(long)]
        direction: Option<String>,
        /// Only this subset
        #[arg(long)]
        subset: Option<String>,
    },
    /// Extensions that are configured on their own
    Ecds {
        #[command(flatten)]
        of: Of,
    },
    /// The addresses behind clusters, and how the proxy thinks of each
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint {
        #[command(flatten)]
        of: Of,
        /// Only addresses that contain this
        #[arg(long)]
        address: Option<String>,
        /// Only this port
        #[arg(long)]
        port: Option<u16>,
        /// Only clusters whose name contains this
        #[arg(long)]
        cluster: Option<String>,
        /// Only endpoints that are so: healthy, unhealthy, degraded, draining
        #[arg(long)]
        status: Option<String>,
    },
    /// Where it takes connections, and where each kind goes
    #[command(visible_aliases = ["listeners", "l"])]
    Listener {
        #[command(flatten)]
        of: Of,
        /// Only addresses that contain this
        #[arg(long)]
        address: Option<String>,
        /// Only this port
        #[arg(long)]
        port: Option<u16>,
        /// Only inbound or outbound
        #[arg(long, visible_alias = "type")]
        direction: Option<String>,
    },
    /// Its log level; with --level, another one
    #[command(visible_alias = "o")]
    Log {
        #[command(flatten)]
        of: Of,
        /// `debug`, or `info,mesh_proxy::tls=debug`
        #[arg(long)]
        level: Option<String>,
        /// Back to `info`
        #[arg(short, long, conflicts_with = "level")]
        reset: bool,
    },
    /// For each host, what matches and whose rule it is
    #[command(visible_aliases = ["routes", "r"])]
    Route {
        #[command(flatten)]
        of: Of,
        /// Only route configurations whose name contains this
        #[arg(long)]
        name: Option<String>,
    },
    /// The certificates it holds, and until when they are good; never a key
    #[command(visible_aliases = ["secrets", "s"])]
    Secret {
        #[command(flatten)]
        of: Of,
    },
}

/// Whose, and how shown.
#[derive(Debug, Args)]
pub struct Of {
    /// POD, POD.NAMESPACE or deployment/NAME
    #[arg(required_unless_present = "file")]
    pub pod: Option<String>,
    /// A saved page instead of a running proxy: `/config_dump`, for endpoints `/clusters?format=json`, for secrets `/certs`
    #[arg(short, long, conflicts_with = "pod")]
    pub file: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Port of the proxy's admin pages
    #[arg(long, default_value_t = port::ADMIN)]
    pub proxy_admin_port: u16,
}

/// Filters that mean the same for every kind.
#[derive(Debug, Args)]
pub struct Rows {
    /// Only this port
    #[arg(long)]
    pub port: Option<u16>,
    /// Only names that contain this
    #[arg(long, visible_alias = "fqdn")]
    pub name: Option<String>,
    /// Only inbound or outbound
    #[arg(long)]
    pub direction: Option<String>,
}

/// One kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bootstrap,
    Cluster,
    Listener,
    Route,
    Endpoint,
    Secret,
    Ecds,
}

const ALL: [Kind; 5] = [
    Kind::Cluster,
    Kind::Listener,
    Kind::Route,
    Kind::Endpoint,
    Kind::Secret,
];

impl What {
    /// Whose, which kinds (none for the log), and which rows of them.
    fn asked(self) -> (Of, Vec<Kind>, Filter) {
        match self {
            Self::All { of, rows } => {
                let filter = Filter {
                    port: rows.port,
                    name: rows.name,
                    direction: rows.direction,
                    ..Filter::default()
                };
                (of, ALL.to_vec(), filter)
            }
            Self::Bootstrap { of } => (of, vec![Kind::Bootstrap], Filter::default()),
            Self::Ecds { of } => (of, vec![Kind::Ecds], Filter::default()),
            Self::Secret { of } => (of, vec![Kind::Secret], Filter::default()),
            Self::Cluster {
                of,
                fqdn,
                port,
                direction,
                subset,
            } => {
                let filter = Filter {
                    port,
                    name: fqdn,
                    direction,
                    subset,
                    ..Filter::default()
                };
                (of, vec![Kind::Cluster], filter)
            }
            Self::Endpoint {
                of,
                address,
                port,
                cluster,
                status,
            } => {
                let filter = Filter {
                    port,
                    name: cluster,
                    address,
                    status,
                    ..Filter::default()
                };
                (of, vec![Kind::Endpoint], filter)
            }
            Self::Listener {
                of,
                address,
                port,
                direction,
            } => {
                let filter = Filter {
                    port,
                    address,
                    direction,
                    ..Filter::default()
                };
                (of, vec![Kind::Listener], filter)
            }
            Self::Route { of, name } => {
                let filter = Filter {
                    name,
                    ..Filter::default()
                };
                (of, vec![Kind::Route], filter)
            }
            Self::Log { of, .. } => (of, Vec::new(), Filter::default()),
        }
    }
}

pub async fn run(arguments: Arguments, target: &Target) -> anyhow::Result<i32> {
    if let What::Log { of, level, reset } = arguments.what {
        let level = if reset { Some("info".to_owned()) } else { level };
        return log(&of, level.as_deref(), target).await;
    }
    let (of, kinds, filter) = arguments.what.asked();
    let source = Source::open(&of, target).await?;
    if matches!(of.output, Format::Json | Format::Yaml) {
        let value = match &kinds[..] {
            [kind] => resources(*kind, &source.page(*kind).await?, &filter),
            _ => source.page(Kind::Cluster).await?,
        };
        match of.output {
            Format::Json => output::json(&value)?,
            _ => output::yaml(&value)?,
        }
        return Ok(0);
    }
    for (index, kind) in kinds.iter().enumerate() {
        if index > 0 {
            output::line("");
        }
        output::print(&table(*kind, &source.page(*kind).await?, &filter).to_string());
    }
    Ok(0)
}

/// Where the pages come from.
enum Source {
    Proxy(Way, u16),
    File(Value),
}

impl Source {
    async fn open(of: &Of, target: &Target) -> anyhow::Result<Self> {
        if let Some(file) = &of.file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let value =
                serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
            return Ok(Self::File(value));
        }
        let mesh = Mesh::find(target).await?;
        let pod = mesh.pod(of.pod.as_deref().unwrap_or_default()).await?;
        Ok(Self::Proxy(mesh.way(&pod), of.proxy_admin_port))
    }

    async fn page(&self, kind: Kind) -> anyhow::Result<Value> {
        let path = match kind {
            Kind::Endpoint => "/clusters?format=json",
            Kind::Secret => "/certs",
            _ => "/config_dump",
        };
        match self {
            Self::File(value) => Ok(value.clone()),
            Self::Proxy(way, port) => {
                let page = reach::get_json(way, *port, path)
                    .await
                    .context("the proxy's admin page cannot be read; has the pod a sidecar?")?;
                if kind != Kind::Bootstrap || bootstrap::find(&page).is_some() {
                    return Ok(page);
                }
                // A proxy that was started by flags has no bootstrap file, but it knows who it is.
                Ok(bootstrap::of_node(
                    &reach::get_json(way, *port, "/server_info").await?,
                ))
            }
        }
    }
}

/// What is shown as JSON or YAML.
fn resources(kind: Kind, page: &Value, filter: &Filter) -> Value {
    match kind {
        Kind::Bootstrap => json!(bootstrap::find(page)),
        Kind::Cluster => json!(cluster::list(page, filter)),
        Kind::Listener => json!(listener::list(page, filter)),
        Kind::Route => json!(route::list(page, filter)),
        Kind::Endpoint => json!(endpoint::list(page, filter)),
        Kind::Ecds => json!(ecds::list(page)),
        Kind::Secret => page.clone(),
    }
}

fn table(kind: Kind, page: &Value, filter: &Filter) -> Table {
    match kind {
        Kind::Bootstrap => bootstrap::table(page),
        Kind::Cluster => cluster::table(page, filter),
        Kind::Listener => listener::table(page, filter),
        Kind::Route => route::table(page, filter),
        Kind::Endpoint => endpoint::table(page, filter),
        Kind::Ecds => ecds::table(page),
        Kind::Secret => secret::table(page, OffsetDateTime::now_utc()),
    }
}

async fn log(of: &Of, level: Option<&str>, target: &Target) -> anyhow::Result<i32> {
    let Some(written) = of.pod.as_deref().filter(|_| of.file.is_none()) else {
        bail!("name the pod whose log level is meant");
    };
    let mesh = Mesh::find(target).await?;
    let pod = mesh.pod(written).await?;
    let answer = super::admin::level(&mesh.way(&pod), of.proxy_admin_port, level).await?;
    output::line(answer.trim());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_page_is_enough() {
        let dump = json!({"configs": [{"@type": "x.ClustersConfigDump", "dynamic_active_clusters": [
            {"cluster": {"name": "outbound|80|v1|a.b", "type": "EDS"}},
            {"cluster": {"name": "outbound|80||a.b", "type": "EDS"}}]}]});
        let filter = Filter {
            subset: Some("v1".into()),
            ..Filter::default()
        };
        assert_eq!(
            resources(Kind::Cluster, &dump, &filter).as_array().map(Vec::len),
            Some(1)
        );
        assert!(table(Kind::Cluster, &dump, &filter).to_string().contains("a.b"));
        assert!(table(Kind::Bootstrap, &dump, &filter).is_empty());
    }
}
