//! `meshctl proxy-config KIND POD`: what one proxy is configured to do, from its own admin pages.

use clap::{Args, ValueEnum};
use mesh_proto::names::port;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    context::Context,
    output::{self, Format, Table},
    reach,
    show::{Filter, cluster, endpoint, listener, route, secret},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// What to show
    pub kind: Kind,
    /// POD, POD.NAMESPACE or deployment/NAME
    pub pod: String,
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Only this port
    #[arg(long)]
    pub port: Option<u16>,
    /// Only names that contain this: hosts (cluster), clusters (endpoint), listeners, routes
    #[arg(long, visible_aliases = ["fqdn", "cluster"])]
    pub name: Option<String>,
    /// inbound or outbound (cluster, endpoint, listener)
    #[arg(long)]
    pub direction: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    #[value(aliases = ["clusters", "c"])]
    Cluster,
    #[value(aliases = ["listeners", "l"])]
    Listener,
    #[value(aliases = ["routes", "r"])]
    Route,
    #[value(aliases = ["endpoints", "ep"])]
    Endpoint,
    #[value(aliases = ["secrets", "s"])]
    Secret,
    All,
}

pub async fn run(arguments: Arguments, context: &Context) -> anyhow::Result<i32> {
    let pod = context.pod(&arguments.pod, &arguments.namespace).await?;
    let network = context.network(&pod);
    let filter = Filter {
        port: arguments.port,
        name: arguments.name,
        direction: arguments.direction,
    };
    let page = |path: &'static str| reach::get_json(&network, port::ADMIN, path);
    let whole = arguments.kind == Kind::All;
    let machine = matches!(arguments.output, Format::Json | Format::Yaml);
    let value = if machine {
        Some(match arguments.kind {
            Kind::All => page("/config_dump").await?,
            Kind::Secret => page("/certs").await?,
            Kind::Endpoint => {
                json!(endpoint::list(&page("/clusters?format=json").await?, &filter))
            }
            Kind::Cluster => json!(cluster::list(&page("/config_dump").await?, &filter)),
            Kind::Listener => json!(listener::list(&page("/config_dump").await?, &filter)),
            Kind::Route => json!(route::list(&page("/config_dump").await?, &filter)),
        })
    } else {
        None
    };
    if let Some(value) = value {
        if arguments.output == Format::Json {
            output::json(&value)?
        } else {
            output::yaml(&value)?
        }
        return Ok(0);
    }
    let kinds: &[Kind] = if whole {
        &[
            Kind::Cluster,
            Kind::Listener,
            Kind::Route,
            Kind::Endpoint,
            Kind::Secret,
        ]
    } else {
        &[arguments.kind]
    };
    for (index, kind) in kinds.iter().enumerate() {
        let path = match kind {
            Kind::Endpoint => "/clusters?format=json",
            Kind::Secret => "/certs",
            _ => "/config_dump",
        };
        if index > 0 {
            output::line("");
        }
        output::print(&table(*kind, &page(path).await?, &filter).to_string());
    }
    Ok(0)
}

fn table(kind: Kind, page: &Value, filter: &Filter) -> Table {
    match kind {
        Kind::Cluster => cluster::table(page, filter),
        Kind::Listener => listener::table(page, filter),
        Kind::Route => route::table(page, filter),
        Kind::Endpoint => endpoint::table(page, filter),
        Kind::Secret | Kind::All => secret::table(page, OffsetDateTime::now_utc()),
    }
}
