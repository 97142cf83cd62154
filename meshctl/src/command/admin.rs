//! `meshctl admin log`: the log level of the control plane's daemons, shown or changed while they run. A change is gone
//! with the process.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use mesh_proto::names::port;

use crate::{
    context::Mesh,
    local::object,
    output::{self, Table},
    reach::{self, Way},
};

/// Daemons with a page for their log level.
const PARTS: [&str; 3] = ["pilot", "citadel", "telemetry"];

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// The log levels of the control plane; with --level, another one
    #[command(visible_alias = "l")]
    Log {
        /// Only this pod
        pod: Option<String>,
        /// Only this part: pilot, citadel or telemetry
        #[arg(long)]
        part: Option<String>,
        /// `debug`, or `info,mesh_pilot::push=debug`
        #[arg(long)]
        level: Option<String>,
        /// Back to `info`
        #[arg(short, long, conflicts_with = "level")]
        reset: bool,
    },
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    let What::Log {
        pod,
        part,
        level,
        reset,
    } = arguments.what;
    let level = if reset { Some("info".to_owned()) } else { level };
    if let Some(part) = part.as_deref().filter(|part| !PARTS.contains(part)) {
        bail!("there is no part {part:?}; there are {}", PARTS.join(", "));
    }
    let mut table = Table::new(&["POD", "LEVEL"]);
    for name in PARTS
        .into_iter()
        .filter(|name| part.as_deref().is_none_or(|part| part == *name))
    {
        // A part that was not installed has no level.
        let Ok(pods) = mesh.parts(name).await else {
            continue;
        };
        for one in pods {
            let of = object::text(&one, "/metadata/name");
            if pod.as_deref().is_some_and(|wanted| wanted != of) {
                continue;
            }
            let told = self::level(&mesh.way(&one), port::CONTROL, level.as_deref())
                .await
                .with_context(|| format!("pod {of}"))?;
            table.row(vec![of.to_owned(), told.trim().to_owned()]);
        }
    }
    if table.is_empty() {
        bail!(
            "no such pod of the control plane is running in namespace {} of {mesh}",
            mesh.system
        );
    }
    output::print(&table.to_string());
    Ok(0)
}

/// The level of one process; sets it first, if another one is wanted.
pub async fn level(way: &Way, port: u16, wanted: Option<&str>) -> anyhow::Result<String> {
    let answer = match wanted {
        Some(level) => {
            // The syntax of levels has no characters that a query does not take, but for spaces, which mean nothing.
            let level: String = level.chars().filter(|c| !c.is_whitespace()).collect();
            if let Some(odd) = level.chars().find(|c| "&#%+?\"<>".contains(*c)) {
                bail!("a level has no {odd:?}; write `debug`, or `info,mesh_proxy::tls=debug`");
            }
            reach::post(way, port, &format!("/logging?level={level}")).await?
        }
        None => reach::get(way, port, "/logging").await?,
    };
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
