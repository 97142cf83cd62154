//! Builds citadel, runs it, drains it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use mesh_proto::names;
use mesh_runtime::{
    drain::{self, Drain},
    grpc,
    http::{self, Pages},
    log::LogHandle,
    metrics::Registry,
    ready::Gates,
    tls::{self, ClientAuth, IdentityCell, PeerNames},
};
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::{
    admin::{self, Journal, Opened},
    authenticate::Authenticator,
    authorize::Place,
    issue::Life,
    metrics::Metrics,
    serve::Service,
    settings::Settings,
};

mod own;
mod platform;

use own::Own;
use platform::Platform;

/// A handshake must be done within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const PENDING: usize = 256;
/// Calls under way on one connection.
const STREAMS: u32 = 32;
/// Clients call seldom: a connection that stays longer is asked to go.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
const CALL: Duration = Duration::from_secs(10);
/// Life of citadel's own certificate.
const OWN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings, log: LogHandle) -> anyhow::Result<()> {
    let (trigger, drain) = drain::channel();
    let delay = settings.shutdown_delay;
    tokio::spawn(async move {
        match drain::shutdown_signal().await {
            Ok(signal) => {
                tracing::info!(signal, after = ?delay, "draining");
                tokio::time::sleep(delay).await;
            }
            Err(error) => tracing::error!(%error, "signals cannot be received; stopping"),
        }
        trigger.drain();
    });
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("certificate service cannot listen on {}", settings.listen))?;
    let admin = TcpListener::bind(settings.admin_address)
        .await
        .with_context(|| format!("admin server cannot listen on {}", settings.admin_address))?;
    serve(settings, listener, admin, Some(log), drain).await
}

/// Runs on these listeners until the drain.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    admin: TcpListener,
    log: Option<LogHandle>,
    drain: Drain,
) -> anyhow::Result<()> {
    let (registry, gates) = (Registry::new(), Gates::new());
    let metrics = Metrics::new(&registry);
    // Readiness and metrics are there from the start: the platform may let us wait.
    let (journal, opened) = (Journal::default(), Opened::new(OnceLock::new()));
    let mut pages = Pages::new();
    if let Some(log) = &log {
        pages = pages.standard(&registry, &gates, log);
    }
    let pages = admin::pages(pages, journal.clone(), opened.clone());
    let serving = gates.gate("certificate service");
    let admin = tokio::spawn(http::serve_on(admin, pages, drain.clone()));

    let Some(platform) = platform::start(&settings, &gates, &metrics, &drain).await? else {
        return admin.await.context("admin server");
    };
    let Platform {
        authority,
        tokens,
        election,
    } = platform;
    let _ = opened.set(authority.clone());
    let cell = IdentityCell::new();
    let namespace = if settings.kube {
        settings.namespace.as_str()
    } else {
        names::SYSTEM_NAMESPACE
    };
    let own = Own {
        place: Place {
            trust_domain: settings.trust_domain.clone(),
            namespace: namespace.to_owned(),
        },
        life: OWN_LIFE.min(settings.max_ttl.max(Duration::from_secs(60))),
        authority: authority.clone(),
        metrics: metrics.clone(),
    };
    let wait = own.renew(&cell)?;
    tokio::spawn(own.run(cell.clone(), wait, drain.clone()));

    let life = Life {
        default: settings.default_ttl,
        max: settings.max_ttl,
    };
    let authenticator = Authenticator {
        tokens,
        trust_domain: settings.trust_domain.clone(),
    };
    let service = Service::new(
        authenticator,
        authority,
        namespace.to_owned(),
        life,
        metrics,
        journal,
    );
    serving.open();
    grpc_server(service, listener, &cell, &drain).await?;
    if let Some(election) = election {
        election.ended().await;
    }
    admin.await.context("admin server")
}

async fn grpc_server(
    service: Service,
    listener: TcpListener,
    cell: &IdentityCell,
    drain: &Drain,
) -> anyhow::Result<()> {
    let config = tls::server_config(cell, ClientAuth::Optional, PeerNames::Any, &["h2"])?;
    let address: Option<SocketAddr> = listener.local_addr().ok();
    let connections = grpc::incoming(listener, Arc::new(config), HANDSHAKE, PENDING);
    tracing::info!(?address, "certificate service listens");
    Server::builder()
        .timeout(CALL)
        .max_concurrent_streams(STREAMS)
        .max_connection_age(CONNECTION_AGE)
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(connections, drain.drained())
        .await
        .context("certificate service")
}
