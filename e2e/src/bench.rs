//! The side-by-side comparison: our proxy beside Envoy, nginx and HAProxy in the same job, one hop; a pair of ours beside a pair of
//! Envoys with mutual TLS between; both from the very same bootstrap files. Then the times of the whole mesh.
//!
//! A shared machine makes absolute times mean little, so everything is a ratio within one run: the proxies take turns, each figure
//! is the median of the rounds. The proxies have CPU 0, load and upstream CPU 1. CPU per request is user and system time of the
//! proxy's processes divided by the requests that were answered.

mod certificates;
mod files;
mod load;
mod mesh;
mod proxy;
mod table;

use crate::need;
use anyhow::{Context, ensure};
use clap::Parser;
use proxy::{Kind, Running};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use table::{Figures, Row};

#[derive(Debug, Parser)]
#[command(name = "mesh-bench", about = "Our proxy beside Envoy, nginx and HAProxy")]
pub struct Settings {
    /// Turns of each proxy; each figure is the median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each turn.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Requests per second, all together, when latency is measured.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Our proxy's binary.
    #[arg(long)]
    proxy: Option<PathBuf>,
    /// Leave out the times of the whole mesh, which need root.
    #[arg(long)]
    no_mesh: bool,
    /// Only these parts: hop, pair, large, mesh.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Where the proxies listen, and where the application is.
pub const FRONT: u16 = 18_081;
pub const MIDDLE: u16 = 18_082;
pub const UPSTREAM: u16 = 18_080;
/// Connections of the load that fills the proxy.
const CONNECTIONS: u32 = 64;

/// Everything a turn needs.
struct Bench<'a> {
    settings: &'a Settings,
    folder: PathBuf,
    ours: PathBuf,
    envoy: PathBuf,
}

pub fn run(settings: &Settings) -> anyhow::Result<()> {
    ensure!(
        settings.rounds > 0 && settings.seconds > 0,
        "at least one round of at least one second"
    );
    for (program, package) in [
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
        ("nginx", "nginx"),
        ("haproxy", "haproxy"),
        ("taskset", "util-linux"),
    ] {
        need::program(program, package)?;
    }
    let target = need::binaries()?
        .parent()
        .context("no folder above the binaries")?
        .to_owned();
    let ours = settings
        .proxy
        .clone()
        .unwrap_or_else(|| target.join("release/mesh-proxy"));
    ensure!(ours.exists(), "{} is not built: run `make bench`", ours.display());
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bench = Bench {
        settings,
        folder,
        ours,
        envoy: need::envoy()?,
    };
    files::write_all(&bench.folder)?;

    let wants = |part: &str| settings.only.is_empty() || settings.only.iter().any(|only| only == part);
    let mut text = String::new();
    if wants("hop") || wants("pair") || wants("large") {
        let upstream = bench.start(Kind::Upstream, "upstream.conf", UPSTREAM)?;
        if wants("hop") {
            text += &bench.hop()?;
        }
        if wants("pair") {
            text += &bench.pair()?;
        }
        if wants("large") {
            text += &bench.large()?;
        }
        upstream.stop()?;
    }
    if wants("mesh") && !settings.no_mesh {
        text += &mesh::times()?;
    }
    println!("\n{text}");
    Ok(())
}

impl Bench<'_> {
    fn program(&self, kind: Kind) -> anyhow::Result<PathBuf> {
        match kind {
            Kind::Ours => Ok(self.ours.clone()),
            Kind::Envoy => Ok(self.envoy.clone()),
            Kind::Nginx | Kind::Upstream => need::program("nginx", "nginx"),
            Kind::Haproxy => need::program("haproxy", "haproxy"),
        }
    }

    fn start(&self, kind: Kind, file: &str, port: u16) -> anyhow::Result<Running> {
        proxy::start(kind, &self.program(kind)?, &self.folder.join(file), port)
    }

    /// One proxy between load and upstream, HTTP/1.1, no TLS.
    fn hop(&self) -> anyhow::Result<String> {
        let contestants = [
            (Kind::Ours, "hop.json"),
            (Kind::Envoy, "hop.json"),
            (Kind::Nginx, "nginx.conf"),
            (Kind::Haproxy, "haproxy.cfg"),
        ];
        let mut rows: BTreeMap<Kind, Vec<Figures>> = BTreeMap::new();
        for round in 1..=self.settings.rounds {
            for (kind, file) in contestants {
                eprintln!(
                    "one hop, round {round} of {}: {}",
                    self.settings.rounds,
                    kind.name()
                );
                let proxy = self.start(kind, file, FRONT)?;
                rows.entry(kind)
                    .or_default()
                    .push(self.turn(&[&proxy])?.remove(0));
                proxy.stop()?;
            }
        }
        let rows = rows
            .into_iter()
            .map(|(kind, figures)| Row {
                name: kind.name().to_owned(),
                kind,
                figures,
            })
            .collect();
        Ok(table::render(
            "One hop, HTTP/1.1 with keep-alive, 64 connections, 100 bytes, no TLS",
            rows,
        ))
    }

    /// Two proxies: the client's and the server's, mutual TLS and HTTP/2 between, a route and an authorization rule.
    fn pair(&self) -> anyhow::Result<String> {
        let mut sides: [BTreeMap<Kind, Vec<Figures>>; 2] = Default::default();
        for round in 1..=self.settings.rounds {
            for kind in [Kind::Ours, Kind::Envoy] {
                eprintln!("pair, round {round} of {}: {}", self.settings.rounds, kind.name());
                let server = self.start(kind, "server.json", MIDDLE)?;
                let client = self.start(kind, "client.json", FRONT)?;
                for (side, figures) in sides.iter_mut().zip(self.turn(&[&client, &server])?) {
                    side.entry(kind).or_default().push(figures);
                }
                client.stop()?;
                server.stop()?;
            }
        }
        let mut text = String::new();
        for (side, name) in sides.into_iter().zip(["client's side", "server's side"]) {
            let row = |(kind, figures): (Kind, _)| Row {
                name: kind.name().to_owned(),
                kind,
                figures,
            };
            let title = format!(
                "A pair with mutual TLS, HTTP/2 between, authorization: the {name} (latency of both together)"
            );
            text += &table::render(&title, side.into_iter().map(row).collect());
        }
        Ok(text)
    }

    /// 1,000 clusters of 10 endpoints and 5,000 routes: memory and time to start.
    fn large(&self) -> anyhow::Result<String> {
        let mut rows: BTreeMap<Kind, Vec<Figures>> = BTreeMap::new();
        for _ in 0..self.settings.rounds.min(3) {
            for kind in [Kind::Ours, Kind::Envoy] {
                eprintln!("large configuration: {}", kind.name());
                let proxy = self.start(kind, "large.json", FRONT)?;
                let figures = Figures {
                    ready_ms: Some(proxy.ready_ms),
                    idle_mb: Some(proxy.resident_mb()?),
                    ..Figures::default()
                };
                rows.entry(kind).or_default().push(figures);
                proxy.stop()?;
            }
        }
        let rows = rows
            .into_iter()
            .map(|(kind, figures)| Row {
                name: kind.name().to_owned(),
                kind,
                figures,
            })
            .collect();
        Ok(table::render(
            "Large configuration: 1,000 clusters of 10 endpoints, 5,000 routes",
            rows,
        ))
    }

    /// One turn: idle memory, then load that fills the proxy, then load at a fixed rate. One set of figures for each proxy.
    fn turn(&self, proxies: &[&Running]) -> anyhow::Result<Vec<Figures>> {
        let idle: Vec<f64> = proxies
            .iter()
            .map(|proxy| proxy.resident_mb())
            .collect::<anyhow::Result<_>>()?;
        let url = format!("http://127.0.0.1:{FRONT}/reviews/0");
        load::full(&url, CONNECTIONS, Duration::from_secs(1))?;
        let before: Vec<Duration> = proxies
            .iter()
            .map(|proxy| proxy.cpu())
            .collect::<anyhow::Result<_>>()?;
        let full = load::full(&url, CONNECTIONS, Duration::from_secs(self.settings.seconds))?;
        let after: Vec<Duration> = proxies
            .iter()
            .map(|proxy| proxy.cpu())
            .collect::<anyhow::Result<_>>()?;
        let paced = load::paced(
            &url,
            self.settings.rate,
            self.settings.seconds,
            &self.folder.join("latency.log"),
        )?;
        let mut figures = Vec::new();
        for (i, proxy) in proxies.iter().enumerate() {
            let cpu = after[i].saturating_sub(before[i]).as_secs_f64() * 1e6 / full.requests as f64;
            figures.push(Figures {
                cpu_us: Some(cpu),
                per_second: Some(full.per_second),
                p50_us: Some(paced.p50_us),
                p99_us: Some(paced.p99_us),
                idle_mb: Some(idle[i]),
                loaded_mb: Some(proxy.resident_mb()?),
                ready_ms: Some(proxy.ready_ms),
            });
        }
        Ok(figures)
    }
}
