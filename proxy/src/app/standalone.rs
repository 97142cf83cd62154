//! The proxy from an Envoy bootstrap file, by Envoy's own flags: static listeners, clusters, routes and secrets, and a
//! control plane if the file names one.

use std::{fs, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use mesh_proto::xds::Type;
use mesh_runtime::{
    drain::{self, Drain, shutdown_signal},
    log,
    ready::Gates,
    tls::IdentityCell,
};
use tokio::sync::watch;

use super::{Workers, worker_count};
use crate::{
    admin,
    bootstrap::{self, Bootstrap, Dynamic},
    cluster::discover,
    conn::track::Connections,
    dns::Names,
    observe::{Stats, access_log::Host, outlet::Outlet, report::Connect, stats::expire},
    settings::{EnvoyArgs, MINIMUM_DRAIN, Mode},
    store::Store,
    upstream_channel::Channels,
    worker::{Own, Parts},
    xds::{self, apply::Apply},
};

/// Runs until SIGTERM, SIGINT or `/quitquitquit`.
pub async fn run(args: EnvoyArgs) -> anyhow::Result<ExitCode> {
    let Some(path) = &args.config_path else {
        bail!("give a bootstrap file with -c FILE, or a command: see --help")
    };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bootstrap = bootstrap::read(&text).with_context(|| format!("{} was refused", path.display()))?;
    if args.mode == Mode::Validate {
        println!("configuration '{}' OK", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let handle = log::init("mesh-proxy", level(&args.log_level), log::Format::Text)?;
    if let Some(id) = &args.service_node {
        bootstrap.node.id.clone_from(id);
    }
    if let Some(cluster) = &args.service_cluster {
        bootstrap.node.cluster.clone_from(cluster);
    }
    serve(args, bootstrap, handle).await
}

async fn serve(args: EnvoyArgs, bootstrap: Bootstrap, log: log::LogHandle) -> anyhow::Result<ExitCode> {
    let (trigger, drain) = drain::channel();
    let store = Store::default();
    let stats = Stats::new();
    let identity = IdentityCell::new();
    let gates = Gates::new();
    let listening = gates.gate("listeners");
    let node = Arc::new(bootstrap.node.clone());
    let host = Host {
        name: hostname().into(),
        node: Some(node),
    };
    let channels = Arc::new(Channels::new(store.clone(), identity.clone()));
    let outlet = Outlet::new(stats.clone(), host, channels.clone());
    xds::file::account(&store, &bootstrap);
    store.publish(bootstrap.snapshot());
    let connections = Connections::default();
    let parts = Parts {
        store: store.clone(),
        identity: identity.clone(),
        own: Own::default(),
        stats: stats.clone(),
        outlet: outlet.clone(),
        connections: connections.clone(),
        drain: drain.clone(),
    };
    let count = worker_count(args.concurrency);
    let workers = Workers::start(count, &parts)?;
    tokio::spawn(discover::dns::follow(store.clone(), drain.clone()));
    tokio::spawn({
        let (outlet, drain) = (outlet.clone(), drain.clone());
        async move { outlet.run(drain).await }
    });
    let idle = Duration::from_secs(args.metrics_idle_s);
    tokio::spawn(expire::run(stats.clone(), idle, drain.clone()));
    let (commands, mut asked) = admin::commands();
    if let Some(address) = bootstrap.admin {
        let pages = admin::Admin {
            store: store.clone(),
            stats: stats.clone(),
            identity,
            gates: gates.clone(),
            log,
            commands,
            connections,
            node: Some(Arc::new(bootstrap.node.clone())),
        };
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on the admin address {address}"))?;
        if let Some(path) = &args.admin_address_path {
            fs::write(path, listener.local_addr()?.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        tokio::spawn(admin::serve(listener, pages, drain.clone()));
    }
    let mut configured = bootstrap
        .dynamic
        .as_ref()
        .map(|dynamic| follow(&bootstrap, dynamic, channels, &store, &stats, &drain));
    tokio::spawn({
        let store = store.clone();
        async move {
            // A control plane that is away does not keep the static listeners from serving; readiness waits for it.
            if let Some(configured) = &mut configured
                && configured.wait_for(|complete| *complete).await.is_err()
            {
                return;
            }
            store.listening(count).await;
            listening.open();
            tracing::info!(workers = count, "serving");
            super::memory::settle().await;
        }
    });
    admin::wait_for_end(&mut asked, shutdown_signal()).await;
    trigger.drain();
    let drain_time = Duration::from_secs(args.drain_time_s);
    workers.leave(MINIMUM_DRAIN.min(drain_time), drain_time).await;
    outlet.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// Follows the control plane that the bootstrap names; what comes back turns true when its first whole configuration is in
/// force.
fn follow(
    bootstrap: &Bootstrap,
    dynamic: &Dynamic,
    channels: Arc<Channels>,
    store: &Store,
    stats: &Stats,
    drain: &Drain,
) -> watch::Receiver<bool> {
    let types = [
        Type::Cluster,
        Type::Endpoint,
        Type::Listener,
        Type::Route,
        Type::Secret,
    ];
    let mut apply = Apply::new(store.clone(), stats.clone(), Names::new(), Vec::new(), &types);
    apply.start(bootstrap.snapshot());
    let cluster = dynamic.cluster.clone();
    let settings = xds::stream::Settings {
        server: cluster.to_string(),
        connect: Arc::new(move || channels.channel(&cluster)),
        node: bootstrap.node.clone(),
        types: types.to_vec(),
        store: store.clone(),
        stats: stats.clone(),
        identity: None,
        last_good: None,
    };
    let (complete, configured) = watch::channel(false);
    tokio::spawn(xds::stream::run(settings, apply, complete, drain.clone()));
    configured
}

/// Envoy's names of log levels.
fn level(name: &str) -> &str {
    match name {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    }
}

/// The machine's name.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}
