//! The proxy from an Envoy bootstrap file, by Envoy's own flags: static listeners, clusters, routes and secrets, and a
//! control plane if the file names one.

use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use mesh_proto::xds::Type;
use mesh_runtime::{
    drain::{self, Drain, shutdown_signal},
    log,
    ready::Gates,
    tls::IdentityCell,
};
use tokio::{net::TcpListener, sync::watch};

use super::{
    Workers,
    restart::{self, Asked, Parent},
    worker_count,
};
use crate::{
    admin,
    bootstrap::{self, Bootstrap, Dynamic},
    cluster::discover,
    conn::track::Connections,
    dns::Names,
    listen::sockets::Sockets,
    observe::{Stats, access_log::Host, outlet::Outlet, report::Connect, stats::expire},
    settings::{EnvoyArgs, MINIMUM_DRAIN, Mode},
    store::Store,
    upstream_channel::Channels,
    worker::{Own, Parts},
    xds::{self, apply::Apply},
};

/// How long the process before this one may take to leave the admin port.
const ADMIN: Duration = Duration::from_secs(5);

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
    let count = worker_count(args.concurrency);
    let (parent, inherited) = match args.restart_epoch {
        0 => (None, Vec::new()),
        epoch => {
            let (parent, sockets) = Parent::meet(args.base_id, epoch)?;
            (Some(parent), sockets)
        }
    };
    let sockets = Arc::new(Sockets::new(count, !args.disable_hot_restart, inherited));
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
        sockets: sockets.clone(),
        drain: drain.clone(),
    };
    let workers = Workers::start(count, &parts)?;
    tokio::spawn(discover::dns::follow(store.clone(), drain.clone()));
    tokio::spawn({
        let (outlet, drain) = (outlet.clone(), drain.clone());
        async move { outlet.run(drain).await }
    });
    let idle = Duration::from_secs(args.metrics_idle_s);
    tokio::spawn(expire::run(stats.clone(), idle, drain.clone()));
    // A process of the same epoch takes its name only when the one before it has been heard.
    let child = (!args.disable_hot_restart)
        .then(|| restart::await_child(args.base_id, args.restart_epoch, sockets.clone()))
        .flatten();
    // Where nobody can take over, nobody asks.
    let child = child.unwrap_or_else(|| watch::channel(Asked::Nothing).1);
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
        if let Some(parent) = &parent {
            parent
                .close_admin()
                .context("the process before this one has gone")?;
        }
        let listener = bind_admin(address, parent.is_some()).await?;
        if let Some(path) = &args.admin_address_path {
            fs::write(path, listener.local_addr()?.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        tokio::spawn(serve_admin(
            listener,
            address,
            pages,
            child.clone(),
            drain.clone(),
        ));
    }
    let mut configured = bootstrap
        .dynamic
        .as_ref()
        .map(|dynamic| follow(&bootstrap, dynamic, channels, &store, &stats, &drain));
    let (epoch, patience) = (
        args.restart_epoch,
        Duration::from_secs(args.parent_shutdown_time_s),
    );
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
            tracing::info!(workers = count, epoch, "serving");
            let unused = sockets.settle();
            if unused > 0 {
                tracing::info!(
                    unused,
                    "sockets of the process before this one that nothing listens on any more"
                );
            }
            if let Some(parent) = parent {
                tokio::spawn(replace(parent, patience));
            }
            super::memory::settle().await;
        }
    });
    let (mut replaced, mut ended) = (child.clone(), child);
    tokio::select! {
        () = admin::wait_for_end(&mut asked, shutdown_signal()) => {}
        () = reaches(&mut replaced, Asked::Drain) => {
            trigger.drain();
            // The next process says when it has been long enough; somebody else may be less patient.
            tokio::select! {
                () = workers.emptied() => tracing::info!("the last connection has gone; leaving"),
                () = reaches(&mut ended, Asked::End) => tracing::warn!("leaving before everything has ended"),
                () = admin::wait_for_end(&mut asked, shutdown_signal()) => {}
            }
            outlet.finish().await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    trigger.drain();
    let drain_time = Duration::from_secs(args.drain_time_s);
    workers.leave(MINIMUM_DRAIN.min(drain_time), drain_time).await;
    outlet.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the next process has asked for so much.
async fn reaches(child: &mut watch::Receiver<Asked>, what: Asked) {
    if child.wait_for(|asked| *asked >= what).await.is_err() {
        // Nobody can ask.
        std::future::pending::<()>().await;
    }
}

/// Has the process before this one finish its connections, for so long.
async fn replace(parent: Parent, patience: Duration) {
    let said = parent.drain();
    tokio::time::sleep(patience).await;
    // One that has ended on its own does not hear it.
    if let Err(error) = said.and_then(|()| parent.end()) {
        tracing::debug!(%error, "the process before this one has gone");
    }
}

/// Binds the admin address; `waits`: another process is just leaving it.
async fn bind_admin(address: SocketAddr, waits: bool) -> anyhow::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if waits && start.elapsed() < ADMIN => {
                tracing::debug!(%error, %address, "the admin address is still taken");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot listen on the admin address {address}"));
            }
        }
    }
}

/// Serves the admin pages, except while a next process has the port. If that goes away again, this one has it back.
async fn serve_admin(
    listener: TcpListener,
    address: SocketAddr,
    pages: admin::Admin,
    mut child: watch::Receiver<Asked>,
    drain: Drain,
) {
    let mut listener = Some(listener);
    loop {
        let bound = match listener.take() {
            Some(bound) => Ok(bound),
            None => bind_admin(address, true).await,
        };
        match bound {
            Ok(bound) => tokio::select! {
                () = admin::serve(bound, pages.clone(), drain.clone()) => return,
                () = reaches(&mut child, Asked::Admin) => {}
            },
            Err(error) => tracing::warn!(%error, "no admin pages"),
        }
        if child.wait_for(|asked| *asked == Asked::Nothing).await.is_err() {
            return;
        }
    }
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
