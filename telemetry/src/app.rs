//! Builds telemetry, runs it, drains it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use mesh_runtime::{
    drain::{self, Drain},
    grpc,
    http::{self, Pages},
    identity::{self, Agent},
    log::LogHandle,
    metrics::Registry,
    ready::Gates,
    tls::{self, ClientAuth, IdentityCell, PeerNames},
};
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::{
    admin,
    aggregate::cardinality::Budget,
    dashboard,
    metrics::Metrics,
    receive::{State, access_log, otlp},
    series::Series,
    settings::Settings,
    sink::prometheus,
};

/// A handshake must be done within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const PENDING: usize = 256;
/// Streams on one connection: a proxy needs a handful.
const STREAMS: u32 = 64;
/// Dead connections are found by asking.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often idle edges are looked for.
const EXPIRY: Duration = Duration::from_secs(10);
/// What a drain leaves to streams: proxies send batches every second or so.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings, log: LogHandle) -> anyhow::Result<()> {
    let (trigger, drain) = drain::channel();
    tokio::spawn(async move {
        match drain::shutdown_signal().await {
            Ok(signal) => tracing::info!(signal, "draining"),
            Err(error) => tracing::error!(%error, "signals cannot be received; stopping"),
        }
        trigger.drain();
    });
    let bind = async |what, address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("{what} cannot listen on {address}"))
    };
    let admin = bind("admin server", settings.admin_address).await?;
    let dashboard = bind("dashboard", settings.dashboard_address).await?;
    let listener = bind("telemetry service", settings.listen).await?;

    let (registry, gates) = (Registry::new(), Gates::new());
    let state = state(&settings, &registry);
    let certificate = gates.gate("certificate");
    let pages = admin::pages(Pages::new().standard(&registry, &gates, &log), state.clone());
    let admin = tokio::spawn(http::serve_on(admin, pages, drain.clone()));
    let dashboard = tokio::spawn(http::serve_on(
        dashboard,
        dashboard::pages(state.clone()),
        drain.clone(),
    ));
    tokio::spawn(expire(state.clone(), drain.clone()));

    let cell = IdentityCell::new();
    let agent = agent(&settings);
    agent.register(&registry);
    let renewal = {
        let (cell, drain) = (cell.clone(), drain.clone());
        tokio::spawn(async move { agent.run(cell, drain).await })
    };
    tokio::select! {
        _ = cell.ready() => certificate.open(),
        () = drain.drained() => {}
    }
    serve(state, &settings, listener, &cell, &drain).await?;
    renewal.await.context("certificate renewal")?;
    admin.await.context("admin server")?;
    dashboard.await.context("dashboard")
}

/// What receivers, sinks and pages share.
pub fn state(settings: &Settings, registry: &Registry) -> State {
    let series = Series::new(
        Budget {
            max: settings.max_edges,
        },
        settings.idle_expiry,
    );
    prometheus::register(registry, series.clone());
    State::new(series, settings.max_traces, Metrics::new(registry))
}

fn agent(settings: &Settings) -> Agent {
    let trust_domain = settings.trust_domain.clone();
    let mut own = identity::Settings::new(settings.ca_address.as_str(), &settings.root_file, trust_domain);
    own.token_file = Some(settings.token_file.clone());
    own.ttl = settings.ttl;
    Agent::new(own)
}

/// Receives until the drain.
pub async fn serve(
    state: State,
    settings: &Settings,
    listener: TcpListener,
    cell: &IdentityCell,
    drain: &Drain,
) -> anyhow::Result<()> {
    let mesh = PeerNames::Prefix(format!("spiffe://{}/", settings.trust_domain));
    let config = tls::server_config(cell, ClientAuth::Required, mesh, &["h2"])?;
    let connections = grpc::incoming(listener, Arc::new(config), HANDSHAKE, PENDING);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(access_log::Receiver::new(state.clone()).into_server())
        .add_service(otlp::Receiver::new(state).into_server())
        .serve_with_incoming_shutdown(connections, drain.drained());
    // Streams of proxies never end by themselves.
    let overdue = async {
        drain.drained().await;
        tokio::time::sleep(DRAIN_TIME).await;
    };
    tokio::select! {
        result = server => result.context("telemetry service"),
        () = overdue => Ok(()),
    }
}

async fn expire(state: State, drain: Drain) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRY) => {}
            () = drain.drained() => return,
        }
        let expired = state.series.expire(state.now());
        state
            .metrics
            .expired
            .inc_by(u64::try_from(expired).unwrap_or(u64::MAX));
        state
            .metrics
            .edges
            .set(i64::try_from(state.series.len()).unwrap_or(i64::MAX));
    }
}
