//! Builds citadel, runs it, drains it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use mesh_runtime::{
    drain::{self, Drain},
    grpc,
    http::{self, Pages},
    log::LogHandle,
    metrics::Registry,
    ready::{Gate, Gates},
    tls::{self, ClientAuth, Identity, IdentityCell, PeerNames},
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::{
    admin::{self, Journal},
    authenticate::{Authenticator, claims::Expected, jwks::JwksFile, jwt::Jwt},
    authority::{Authority, self_signed::SelfSigned},
    authorize::own_name,
    csr,
    issue::Life,
    metrics::{Metrics, unix},
    publish,
    serve::Service,
    settings::Settings,
    store::file::Files,
};

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
    tokio::spawn(async move {
        match drain::shutdown_signal().await {
            Ok(signal) => tracing::info!(signal, "draining"),
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
    let store = Files::open(&settings.state_dir)?;
    let authority = SelfSigned::open(&store, &settings.trust_domain, SystemTime::now())?;
    metrics.root_expiry.set(unix(authority.not_after()));
    let authority: Arc<dyn Authority> = Arc::new(authority);

    let cell = IdentityCell::new();
    let own = Own {
        settings: settings.clone(),
        authority: authority.clone(),
        metrics: metrics.clone(),
    };
    own.renew(&cell)?;
    tokio::spawn(own.run(cell.clone(), drain.clone()));

    let expected = Expected {
        issuer: settings.jwt_issuer.clone(),
        audience: settings.jwt_audience.clone(),
    };
    let jwt = Arc::new(Jwt::new(JwksFile::new(&settings.jwks_file), expected));
    tokio::spawn(wait_for_keys(
        jwt.clone(),
        gates.gate("issuer keys"),
        drain.clone(),
    ));
    if let Some(path) = settings.publish_root.clone() {
        tokio::spawn(publish::run(
            path,
            authority.clone(),
            gates.gate("published root"),
            drain.clone(),
        ));
    }

    let journal = Journal::default();
    let mut pages = Pages::new();
    if let Some(log) = &log {
        pages = pages.standard(&registry, &gates, log);
    }
    let pages = admin::pages(pages, journal.clone(), authority.clone());
    let admin = tokio::spawn(http::serve_on(admin, pages, drain.clone()));

    let life = Life {
        default: settings.default_ttl,
        max: settings.max_ttl,
    };
    let authenticator = Authenticator {
        jwt,
        trust_domain: settings.trust_domain.clone(),
    };
    let service = Service::new(authenticator, authority, life, metrics, journal);
    grpc_server(service, listener, &cell, &drain).await?;
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

/// Ready only when tokens can be checked: before, every workload would be refused.
async fn wait_for_keys(jwt: Arc<Jwt>, gate: Gate, drain: Drain) {
    let mut said = false;
    loop {
        match jwt.check() {
            Ok(()) => return gate.open(),
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, "waiting for the keys of the token issuer");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = drain.drained() => return,
        }
    }
}

/// Citadel's own serving certificate, signed by itself.
struct Own {
    settings: Settings,
    authority: Arc<dyn Authority>,
    metrics: Metrics,
}

impl Own {
    fn renew(&self, cell: &IdentityCell) -> anyhow::Result<Duration> {
        let now = SystemTime::now();
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        let life = OWN_LIFE.min(self.settings.max_ttl.max(Duration::from_secs(60)));
        let id = own_name(&self.settings.trust_domain);
        let signed = self.authority.sign(&id, &csr::proven_key(&request)?, life, now)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        cell.set(Identity::new(vec![signed.leaf], key, self.authority.roots(now))?)?;
        self.metrics.own_expiry.set(unix(signed.not_after));
        Ok(signed.not_after.duration_since(now).unwrap_or_default() / 2)
    }

    async fn run(self, cell: IdentityCell, drain: Drain) {
        let remaining = cell
            .get()
            .and_then(|own| own.not_after.duration_since(SystemTime::now()).ok());
        let mut wait = remaining.unwrap_or_default() / 2;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.drained() => return,
            }
            wait = self.renew(&cell).unwrap_or_else(|error| {
                tracing::error!(%error, "citadel's own certificate could not be renewed");
                Duration::from_secs(5)
            });
        }
    }
}
