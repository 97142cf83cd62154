//! The proxy as part of a mesh: configured by pilot, identified by citadel.
//!
//! Order: certificate → xDS → first complete configuration → sockets → ready. Each step is a gate that `/ready` names
//! while it is closed. On SIGTERM new work is still taken while connections are told to go elsewhere; the process leaves
//! when nothing is in flight, or after the drain time.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use mesh_proto::xds::Type;
use mesh_proto::{
    envoy::config::core::v3::Node,
    identity::{TrustDomain, account_behind},
    names,
    node::NodeMetadata,
};
use mesh_runtime::{
    drain::{self, Drain, shutdown_signal},
    grpc,
    identity::{Agent, Settings as IdentitySettings},
    log,
    ready::Gates,
    tls::{IdentityCell, PeerNames, client_config},
};
use tokio::{net::TcpListener, sync::watch};

use super::{Workers, standalone::hostname, worker_count};
use crate::{
    admin::{self, Admin, merge::Application, probe::Probes},
    cluster::discover,
    conn::track::Connections,
    dns::{self, Names, resolv_conf},
    observe::{Stats, Workload, access_log::Host, outlet::Outlet, stats::expire},
    settings::ProxyArgs,
    store::Store,
    upstream_channel::Channels,
    worker::{Own, Parts},
    xds::{self, apply::Apply, last_good::LastGood},
};

/// Runs until SIGTERM, SIGINT or `/quitquitquit`.
pub async fn run(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let format = if args.log_as_json {
        log::Format::Json
    } else {
        log::Format::Text
    };
    let log = log::init("mesh-proxy", &args.log_level, format)?;
    let (id, metadata) = args.node();
    let node = Node {
        id: id.to_string(),
        cluster: format!("{}.{}", metadata.workload_name, metadata.namespace),
        metadata: Some(metadata.to_struct()),
        user_agent_name: "gossamer".to_owned(),
        ..Node::default()
    };
    let (trigger, drain) = drain::channel();
    let (store, stats, identity, gates) = (Store::new(), Stats::new(), IdentityCell::new(), Gates::new());
    let listening = gates.gate("listeners");
    let agent = agent(&args)?;
    tokio::spawn({
        let (agent, identity, drain) = (agent.clone(), identity.clone(), drain.clone());
        async move { agent.run(identity, drain).await }
    });
    let names = Names::new();
    let channels = Arc::new(Channels::new(store.clone(), identity.clone()));
    let host = Host {
        name: hostname().into(),
        node: Some(Arc::new(node.clone())),
    };
    let outlet = Outlet::new(stats.clone(), host, channels);
    let connections = Connections::default();
    let parts = Parts {
        store: store.clone(),
        identity: identity.clone(),
        own: Own {
            workload: Arc::new(workload(&metadata)),
        },
        stats: stats.clone(),
        outlet: outlet.clone(),
        connections: connections.clone(),
        // A pod is replaced, not its process.
        sockets: Arc::default(),
        drain: drain.clone(),
    };
    let count = worker_count(Some(args.concurrency));
    let workers = Workers::start(count, &parts)?;
    tokio::spawn(discover::dns::follow(store.clone(), drain.clone()));
    tokio::spawn({
        let (outlet, drain) = (outlet.clone(), drain.clone());
        async move { outlet.run(drain).await }
    });
    let idle = Duration::from_secs(args.metrics_idle_s);
    tokio::spawn(expire::run(stats.clone(), idle, drain.clone()));
    if args.dns_capture {
        serve_dns(&names, &stats, &drain);
    }
    let (commands, mut asked) = admin::commands();
    let pages = Admin {
        store: store.clone(),
        stats: stats.clone(),
        identity: identity.clone(),
        gates: gates.clone(),
        log,
        commands,
        connections,
        node: Some(Arc::new(node.clone())),
    };
    serve_pages(&args, &pages, &drain).await?;
    let configured = follow_pilot(&args, node, &store, &stats, &identity, &names, &drain);
    let gate = gates.gate("configuration");
    tokio::spawn({
        let store = store.clone();
        async move {
            let mut configured = configured;
            if configured.wait_for(|complete| *complete).await.is_err() {
                return;
            }
            gate.open();
            store.listening(count).await;
            listening.open();
            tracing::info!(workers = count, "ready");
            super::memory::settle().await;
        }
    });
    admin::wait_for_end(&mut asked, shutdown_signal()).await;
    trigger.drain();
    workers.leave(args.minimum_drain(), args.drain_time()).await;
    outlet.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// Follows pilot on a task of its own; what comes back turns true when the first whole configuration is in force.
fn follow_pilot(
    args: &ProxyArgs,
    node: Node,
    store: &Store,
    stats: &Stats,
    identity: &IdentityCell,
    names: &Names,
    drain: &Drain,
) -> watch::Receiver<bool> {
    let mut types = vec![
        Type::Cluster,
        Type::Endpoint,
        Type::Listener,
        Type::Route,
        Type::Secret,
    ];
    let search = resolv_conf::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()).search;
    if args.dns_capture {
        types.push(Type::NameTable);
    }
    let apply = Apply::new(store.clone(), stats.clone(), names.clone(), search, &types);
    let settings = xds::stream::Settings {
        server: args.discovery_address.clone(),
        connect: pilot(args, identity),
        last_good: args
            .last_good_file
            .as_deref()
            .map(|path| LastGood::new(path, &node)),
        node,
        types,
        store: store.clone(),
        stats: stats.clone(),
        // Pilot wants to know who we are: there is no stream without a certificate.
        identity: Some(identity.clone()),
    };
    let (complete, configured) = watch::channel(false);
    tokio::spawn(xds::stream::run(settings, apply, complete, drain.clone()));
    configured
}

/// How to reach pilot: a channel over TLS with our certificate, to nobody else than pilot.
pub(crate) fn pilot(args: &ProxyArgs, identity: &IdentityCell) -> xds::stream::Connect {
    // A revision's pilot has an account of its own.
    let (namespace, account) =
        account_behind(&args.discovery_address).unwrap_or((names::SYSTEM_NAMESPACE, "pilot"));
    let pilot = format!("spiffe://{}/ns/{namespace}/sa/{account}", args.trust_domain);
    let (address, cell) = (args.discovery_address.clone(), identity.clone());
    Arc::new(move || {
        let peer = PeerNames::Exact(vec![pilot.clone()]);
        let config = client_config(&cell, peer, &["h2"]).map_err(|error| error.to_string())?;
        grpc::connect(&address, Some(Arc::new(config))).map_err(|error| error.to_string())
    })
}

pub(crate) fn agent(args: &ProxyArgs) -> anyhow::Result<Agent> {
    let trust_domain: TrustDomain = args.trust_domain.parse().context("TRUST_DOMAIN")?;
    let mut settings = IdentitySettings::new(&args.ca_address, &args.root_file, trust_domain);
    settings.token_file = Some(args.token_file.clone());
    settings.ttl = Duration::from_secs(args.certificate_ttl_s);
    Ok(Agent::new(settings))
}

/// What this proxy calls its workload, in metrics and to its peers.
fn workload(metadata: &NodeMetadata) -> Workload {
    let label = |name: &str| metadata.labels.get(name).cloned().unwrap_or_default();
    let or = |first: String, second: String| if first.is_empty() { second } else { first };
    let app = label(names::label::APP);
    let version = label(names::label::VERSION);
    let canonical = or(
        label(names::label::CANONICAL_NAME),
        or(label(names::label::APP_NAME), app.clone()),
    );
    let revision = or(label(names::label::CANONICAL_REVISION), version.clone());
    Workload {
        name: metadata.workload_name.clone(),
        namespace: metadata.namespace.clone(),
        canonical_service: or(canonical, metadata.workload_name.clone()),
        canonical_revision: or(revision, "latest".to_owned()),
        app,
        version,
        kube_cluster: metadata.cluster_id.clone(),
    }
}

pub(crate) fn serve_dns(names: &Names, stats: &Stats, drain: &Drain) {
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let settings = dns::Settings {
        port: names::port::DNS,
        names: names.clone(),
        resolvers: resolv_conf::parse(&conf),
        stats: stats.clone(),
    };
    let drain = drain.clone();
    tokio::spawn(async move {
        if let Err(error) = dns::serve(settings, drain).await {
            tracing::error!(%error, port = names::port::DNS, "cannot serve DNS; names are resolved without the mesh");
        }
    });
}

/// The admin page on loopback; health and metrics for everybody.
async fn serve_pages(args: &ProxyArgs, pages: &Admin, drain: &Drain) -> anyhow::Result<()> {
    let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
    };
    let listener = bind(args.admin_address).await?;
    tokio::spawn(admin::serve(listener, pages.clone(), drain.clone()));
    for port in [names::port::METRICS, names::port::HEALTH, names::port::STATS] {
        let listener = bind(any(port)).await?;
        let application = application(args).filter(|_| port == names::port::METRICS);
        let probes = if port == names::port::METRICS {
            probes(args)
        } else {
            Probes::default()
        };
        tokio::spawn(admin::serve_public(
            listener,
            pages.clone(),
            application,
            probes,
            drain.clone(),
        ));
    }
    Ok(())
}

/// The application's probes that the kubelet asks us for.
pub(crate) fn probes(args: &ProxyArgs) -> Probes {
    let Some(text) = args.application_probes.as_deref() else {
        return Probes::default();
    };
    let first = args.instance_ip.split(',').next().unwrap_or_default();
    let address = first.trim().parse().ok();
    Probes::read(text, address).unwrap_or_else(|why| {
        tracing::warn!(%why, "ISTIO_KUBE_APP_PROBERS is not used; probes of the application fail");
        Probes::default()
    })
}

/// The application whose metrics are served beside ours.
pub(crate) fn application(args: &ProxyArgs) -> Option<Application> {
    let text = args.application_metrics.as_deref()?;
    Application::from_annotations(text).unwrap_or_else(|why| {
        tracing::warn!(%why, "ISTIO_PROMETHEUS_ANNOTATIONS is not used; the application's metrics are missing");
        None
    })
}
