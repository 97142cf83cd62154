//! Builds pilot, runs it, drains it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mesh_runtime::{
    drain::{self, Drain},
    grpc,
    http::{self, Pages},
    identity::{self, Agent},
    log::LogHandle,
    metrics::Registry,
    ready::{Gate, Gates},
    tls::{self, ClientAuth, IdentityCell, PeerNames},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::{
    admin,
    error::Error,
    ingest, jwks,
    metrics::Metrics,
    push::{Hub, Loop},
    serve::{Service, Trust, limit::Limits},
    settings::{Settings, Source},
};

mod cluster;

use cluster::Cluster;

/// A handshake must be done within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const PENDING: usize = 256;
/// Streams on one connection; a proxy needs one.
const STREAMS: u32 = 16;
/// A dead peer is noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What a drain leaves to streams that are being told.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings, log: LogHandle) -> Result<(), Error> {
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
    let source = settings.source()?;
    let (registry, gates) = (Registry::new(), Gates::new());
    let hub = Arc::new(Hub::new(build_salt(), Metrics::new(&registry)));
    let (changes, cluster) = match source {
        Source::Files => (
            ingest::file::watch(folders(&settings)?).map_err(Error::Watch)?,
            None,
        ),
        Source::Kubernetes => {
            let (changes, cluster) = Cluster::connect(&settings, &drain).await?;
            (changes, Some(cluster))
        }
    };
    let changes = jwks::join(hub.clone(), changes, drain.clone());
    let synced = gates.gate("objects");
    let push = Loop {
        hub: hub.clone(),
        changes,
        synced: synced.clone(),
    };
    let push = tokio::spawn(push.run(drain.clone()));

    let cell = IdentityCell::new();
    let agent = agent(&settings);
    agent.register(&registry);
    tokio::spawn({
        let (agent, cell, drain) = (agent.clone(), cell.clone(), drain.clone());
        async move { agent.run(cell, drain).await }
    });

    let address = settings.admin_address;
    let admin = listen(address, "admin server", "--admin-address").await?;
    let mut pages = admin::pages(Pages::new().standard(&registry, &gates, &log), hub.clone());
    if let Some(cluster) = &cluster {
        pages = admin::sources(pages, cluster.board().clone());
    }
    let admin = tokio::spawn(http::serve_on(admin, pages, drain.clone()));

    let limits = Arc::new(Limits::new(settings.max_streams, settings.admission_rate));
    // A proxy that came before everything is known would be given half of it.
    wait(&synced, &drain).await;
    let mut elections = Vec::new();
    if let Some(cluster) = cluster {
        let listening = gates.gate("webhooks");
        elections = cluster.start(&settings, &hub, &cell, listening, &drain).await?;
    }
    let trust = Trust {
        domain: settings.trust_domain.clone(),
    };
    let service = Service::new(hub.clone(), limits.clone(), Some(trust), drain.clone());
    let plain = settings.xds_plaintext_address.map(|address| {
        let service = Service::new(hub.clone(), limits, None, drain.clone());
        tokio::spawn(plaintext(service, address, drain.clone()))
    });
    serve(service, &settings, &cell, gates.gate("certificate"), &drain).await?;
    if let Some(plain) = plain {
        drop(plain.await);
    }
    drop(tokio::join!(push, admin));
    for election in elections {
        election.ended().await;
    }
    Ok(())
}

/// The kernel tells about changes by whole paths, so the folders are named by theirs from the start.
fn folders(settings: &Settings) -> Result<Vec<PathBuf>, Error> {
    let whole = |folder: &PathBuf| folder.canonicalize().ok().filter(|folder| folder.is_dir());
    let missing = |folder: &PathBuf| Error::ConfigDir(folder.display().to_string());
    settings
        .config_dir
        .iter()
        .map(|folder| whole(folder).ok_or_else(|| missing(folder)))
        .collect()
}

/// Distinguishes the encodings of different builds: a proxy that reconnects to another build gets its resources anew.
fn build_salt() -> u64 {
    let mut hasher = DefaultHasher::new();
    mesh_runtime::build::VERSION.hash(&mut hasher);
    if let Ok(metadata) = std::env::current_exe().and_then(std::fs::metadata) {
        metadata.len().hash(&mut hasher);
        metadata.modified().ok().hash(&mut hasher);
    }
    hasher.finish()
}

fn agent(settings: &Settings) -> Agent {
    let base = identity::Settings::new(
        &settings.ca_address,
        &settings.root_file,
        settings.trust_domain.clone(),
    );
    Agent::new(identity::Settings {
        ca_san: format!(
            "spiffe://{}/ns/{}/sa/citadel",
            settings.trust_domain, settings.namespace
        ),
        token_file: Some(settings.token_file.clone()),
        ttl: settings.certificate_ttl,
        ..base
    })
}

async fn listen(address: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen {
        what,
        address,
        flag,
        source,
    })
}

async fn wait(gate: &Gate, drain: &Drain) {
    while !gate.is_open() && !drain.is_draining() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .tcp_nodelay(true)
}

async fn serve(
    service: Service,
    settings: &Settings,
    cell: &IdentityCell,
    certificate: Gate,
    drain: &Drain,
) -> Result<(), Error> {
    // Without a certificate no handshake can end well; clients are better told by a closed port.
    tokio::select! {
        _ = cell.ready() => certificate.open(),
        () = drain.drained() => return Ok(()),
    }
    let listener = listen(settings.xds_address, "xDS server", "--xds-address").await?;
    let config = tls::server_config(cell, ClientAuth::Required, PeerNames::Any, &["h2"])?;
    let connections = grpc::incoming(listener, Arc::new(config), HANDSHAKE, PENDING);
    tracing::info!(address = %settings.xds_address, "xDS server listens");
    let serving = server()
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(connections, drain.drained());
    finish(serving, drain).await
}

async fn plaintext(service: Service, address: SocketAddr, drain: Drain) {
    let listener = match listen(address, "plaintext xDS server", "--xds-plaintext-address").await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "no plaintext xDS"),
    };
    tracing::warn!(%address, "xDS without TLS: any client is believed");
    let incoming = TcpListenerStream::new(listener);
    let serving = server()
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(incoming, drain.drained());
    if let Err(error) = finish(serving, &drain).await {
        tracing::error!(%error, "plaintext xDS ended");
    }
}

/// Waits for the server, after the drain only so long.
async fn finish(
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    drain: &Drain,
) -> Result<(), Error> {
    let late = async {
        drain.drained().await;
        tokio::time::sleep(DRAIN_TIME).await;
    };
    tokio::select! {
        result = serving => Ok(result?),
        () = late => Ok(()),
    }
}
