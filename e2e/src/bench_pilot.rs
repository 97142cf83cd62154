//! Pilot at scale, behind `make bench-pilot`: the real mesh-pilot and mesh-citadel as processes, a folder of
//! generated objects, and simulated proxies that each have a connection of their own with mutual TLS and one
//! delta stream on it, and answer as our proxy does.
//!
//! Two modes. `full`: every proxy subscribes to everything, as a sidecar without a Sidecar object does.
//! `ondemand`: a proxy asks by name for the few clusters that it uses and for their endpoints, and has all
//! listeners and routes.
//!
//! What is measured: pilot's memory without and with the proxies; the time from a changed file to the answer
//! of every proxy that it concerns, for endpoints and for routes; pilot's processor time for each; how long
//! all take to come back after pilot was killed. Simulator and pilot share the processors, so on a small
//! machine the times are those of both.

mod board;
mod control;
mod identity;
mod objects;
mod protocol;
mod proxy;
mod report;

use crate::need;
use anyhow::{Context, bail, ensure};
use board::Board;
use clap::{Parser, ValueEnum};
use control::Control;
use mesh_proto::xds::Type;
use objects::Population;
use proxy::Fleet;
use report::{Report, Times};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a proxy subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Everything.
    Full,
    /// Clusters and endpoints by name.
    Ondemand,
}

#[derive(Clone, Debug, Parser)]
#[command(
    name = "mesh-bench-pilot",
    about = "Pilot with many services and many proxies"
)]
pub struct Settings {
    #[arg(long, default_value_t = 1000)]
    pub services: usize,
    /// Endpoints (pods) of each service.
    #[arg(long, default_value_t = 10)]
    pub endpoints: usize,
    /// Simulated proxies, each beside a pod; so no more than there are pods.
    #[arg(long, default_value_t = 2000)]
    pub proxies: usize,
    #[arg(long, value_enum, default_value = "full")]
    pub mode: Mode,
    /// Different port numbers that the services are spread over: services on one port share a route table.
    #[arg(long, default_value_t = 10)]
    pub ports: usize,
    /// Services in a namespace.
    #[arg(long, default_value_t = 50)]
    pub per_namespace: usize,
    /// Clusters that a proxy asks for in mode `ondemand`.
    #[arg(long, default_value_t = 10)]
    pub wanted: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 20)]
    pub changes: usize,
    /// Pilot's --admission-rate: how many proxies a second it takes.
    #[arg(long, default_value_t = 500)]
    pub admission_rate: u32,
    /// Seconds that any one step may take.
    #[arg(long, default_value_t = 180)]
    pub patience: u64,
    /// Folder with mesh-pilot; without it the release build, else the development build.
    #[arg(long)]
    pub programs: Option<PathBuf>,
    /// Leave out the reconnect after pilot was killed.
    #[arg(long)]
    pub no_reconnect: bool,
    /// Keep everything running for so many seconds at the end, to look at pilot with a profiler.
    #[arg(long, default_value_t = 0)]
    pub linger: u64,
}

/// Memory is read this long after the last proxy is in sync, when what only the rush needed has been given
/// back.
const CALM: Duration = Duration::from_secs(5);
/// Between two changes, so that each comes alone.
const PAUSE: Duration = Duration::from_millis(300);
/// File descriptors beside those of the proxies.
const DESCRIPTORS: usize = 1000;

pub fn run(settings: Settings) -> anyhow::Result<()> {
    ensure!(
        settings.services > 0 && settings.endpoints > 0 && settings.ports > 0 && settings.per_namespace > 0,
        "--services, --endpoints, --ports and --per-namespace must be at least 1"
    );
    ensure!(
        settings.proxies <= settings.services * settings.endpoints,
        "--proxies {}: each is beside a pod, and there are only {} x {}",
        settings.proxies,
        settings.services,
        settings.endpoints
    );
    raise_file_limit(settings.proxies + DESCRIPTORS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&settings))?;
    println!("\n{}", report.render(&settings));
    runtime.shutdown_background();
    Ok(())
}

/// Every simulated proxy is a descriptor here, and one in pilot, which inherits the limit.
fn raise_file_limit(wanted: usize) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::try_from(wanted)?;
    if soft >= wanted {
        return Ok(());
    }
    ensure!(
        hard >= wanted || nix::unistd::geteuid().is_root(),
        "{wanted} file descriptors are needed and the limit is {hard}: run as root, or with fewer --proxies"
    );
    setrlimit(Resource::RLIMIT_NOFILE, wanted.max(soft), hard.max(wanted))
        .with_context(|| format!("the limit of file descriptors cannot be raised to {wanted}"))
}

async fn measure(settings: &Settings) -> anyhow::Result<Report> {
    let population = Arc::new(Population::new(settings));
    let folder = need::binaries()?
        .parent()
        .context("no folder above the binaries")?
        .join("bench/pilot");
    let mut control = Control::prepare(&folder, settings)?;
    eprintln!("writing objects: {}", population.describe());
    population.write_all(&control.objects)?;
    eprintln!("starting {}", control.describe());
    control.start_citadel()?;
    let mut report = Report {
        build: control.describe(),
        population: population.describe(),
        ..Report::default()
    };
    let began = Instant::now();
    control.start_pilot(settings.patience)?;
    report.start = began.elapsed();
    report.memory_alone = control.resident()?;

    eprintln!(
        "certificates of {} accounts",
        population.accounts_of(settings.proxies)
    );
    let identities = control.identities(&population, settings.proxies).await?;
    let board = Arc::new(Board::default());
    let fleet = Fleet::new(settings, &population, &identities, control.xds, board.clone())?;
    let patience = Duration::from_secs(settings.patience);

    eprintln!("{} proxies connect", settings.proxies);
    let cpu = control.cpu()?;
    let began = Instant::now();
    fleet.start();
    fleet.complete(patience).await?;
    control.settled(settings.proxies, patience).await?;
    report.connect = began.elapsed();
    report.connect_cpu = control.cpu()?.saturating_sub(cpu);
    report.received = fleet.received();
    tokio::time::sleep(CALM).await;
    report.memory = control.resident()?;
    report.memory_peak = control.peak()?;

    report.endpoints = changes(settings, &control, &population, &board, Kind::Endpoint).await?;
    report.routes = changes(settings, &control, &population, &board, Kind::Route).await?;
    report.memory_later = control.resident()?;
    if !settings.no_reconnect {
        eprintln!("pilot is killed and started again");
        control.kill_pilot()?;
        let began = Instant::now();
        control.start_pilot(settings.patience)?;
        report.restart = began.elapsed();
        fleet.complete(patience).await?;
        control.settled(settings.proxies, patience).await?;
        report.reconnect = Some(began.elapsed());
        report.reconnect_cpu = control.cpu()?;
        tokio::time::sleep(CALM).await;
        report.memory_reconnected = control.resident()?;
    }
    if settings.linger > 0 {
        eprintln!(
            "pilot is process {}; waiting {} s",
            control.pilot_pid()?,
            settings.linger
        );
        tokio::time::sleep(Duration::from_secs(settings.linger)).await;
    }
    fleet.stop();
    control.stop()?;
    Ok(report)
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One endpoint of one service gets another address.
    Endpoint,
    /// A rule of one service says something else.
    Route,
}

/// One change after the other, each until every proxy concerned has answered for it.
async fn changes(
    settings: &Settings,
    control: &Control,
    population: &Population,
    board: &Board,
    kind: Kind,
) -> anyhow::Result<Times> {
    eprintln!("{} changes: {kind:?}", settings.changes);
    let mut times = Times::default();
    let patience = Duration::from_secs(settings.patience);
    for number in 0..settings.changes {
        tokio::time::sleep(PAUSE).await;
        let service = population.service_to_change(number, kind == Kind::Route);
        let (written, resource) = match kind {
            Kind::Endpoint => (population.move_endpoint(service, number), Type::Endpoint),
            Kind::Route => (population.change_route(service, number), Type::Route),
        };
        let concerned = match (kind, settings.mode) {
            (Kind::Endpoint, Mode::Ondemand) => population.wanting(service, settings),
            _ => settings.proxies,
        };
        // It must lie there whole when pilot looks: written beside, then moved.
        let prepared = control.prepare_file(&written.text)?;
        let cpu = control.cpu()?;
        let change = board.begin(resource, written.marker.clone(), concerned);
        std::fs::rename(&prepared, control.objects.join(&written.path))?;
        let Some(latencies) = change.wait(patience).await else {
            bail!(
                "change {number} ({kind:?} of service {service}): {} of {concerned} proxies answered within {patience:?}",
                change.count()
            );
        };
        control.acknowledged(&written.object, patience).await?;
        let known = change.elapsed();
        board.end();
        times.add(latencies, known, control.cpu()?.saturating_sub(cpu), concerned);
    }
    Ok(times)
}
