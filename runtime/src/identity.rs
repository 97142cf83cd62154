//! The life of this process' certificate: a new key and request, the call to citadel, renewal at half life, again after
//! failures. The key never leaves the process. A failed renewal never evicts a valid certificate; the token file and
//! the root file are read again at each call, and a changed root file is followed without one.
//!
//! From: token file or the current certificate, root file, citadel. To: one [`IdentityCell`].
//! Bounds: one call at a time, [`CALL_TIMEOUT`] each, waits between failures by [`Backoff`].

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_proto::{
    ca::{IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient},
    identity::{self, TrustDomain},
    names,
};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use rustls::pki_types::CertificateDer;
use tonic::metadata::MetadataValue;

use crate::{
    backoff::Backoff,
    drain::Drain,
    grpc,
    metrics::Registry,
    tls::{self, IdentityCell, PeerNames, TlsError},
};

mod request;
mod schedule;
#[cfg(test)]
mod tests;

use request::Request;

/// How long one call to the authority may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the root file is looked at between calls.
const ROOT_POLL: Duration = Duration::from_secs(2);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of citadel.
    pub ca_address: String,
    /// The platform's token for this workload. Without one, the current certificate proves the caller.
    pub token_file: Option<PathBuf>,
    /// PEM file with the roots that prove citadel.
    pub root_file: PathBuf,
    pub trust_domain: TrustDomain,
    /// The life to ask for; zero leaves it to citadel.
    pub ttl: Duration,
    /// The URI name that citadel must have.
    pub ca_san: String,
}

impl Settings {
    /// Settings for the citadel at this address, in the namespace that the address names.
    pub fn new(
        ca_address: impl Into<String>,
        root_file: impl Into<PathBuf>,
        trust_domain: TrustDomain,
    ) -> Self {
        let (ca_address, root_file) = (ca_address.into(), root_file.into());
        let namespace =
            identity::account_behind(&ca_address).map_or(names::SYSTEM_NAMESPACE, |(namespace, _)| namespace);
        let ca_san = format!("spiffe://{trust_domain}/ns/{namespace}/sa/citadel");
        Self {
            ca_address,
            token_file: None,
            root_file,
            trust_domain,
            ttl: Duration::ZERO,
            ca_san,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{what} {path:?}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("root file {path:?}: {source}")]
    RootFile { path: PathBuf, source: TlsError },
    #[error("token file {0:?} holds no usable token")]
    Token(PathBuf),
    #[error("no token file is set and there is no valid certificate to renew")]
    NoProof,
    #[error("citadel address: {0}")]
    Address(#[from] grpc::ConnectError),
    #[error("citadel {address} refused: {code:?}: {message}")]
    Refused {
        address: String,
        code: tonic::Code,
        message: String,
    },
    #[error("citadel {address} did not answer within {CALL_TIMEOUT:?}")]
    Timeout { address: String },
    #[error("key or request could not be made: {0}")]
    Request(String),
    #[error("answer of the authority is unusable: {0}")]
    Answer(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is known about the certificate's life, for admin pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The last failure, until a success.
    pub last_error: Option<(SystemTime, String)>,
    /// When the next call is due.
    pub next_attempt: Option<SystemTime>,
    pub issued: u64,
    pub failed: u64,
}

/// Keeps one [`IdentityCell`] filled. Clones share the status.
#[derive(Clone, Debug)]
pub struct Agent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    status: Mutex<Status>,
    /// The root file as the last call to the authority found it: what it says later is compared with this.
    roots: Mutex<Option<Vec<CertificateDer<'static>>>>,
    issued: Counter,
    failed: Counter,
    expiry: Gauge,
}

impl Agent {
    pub fn new(settings: Settings) -> Self {
        let (issued, failed, expiry) = (Counter::default(), Counter::default(), Gauge::default());
        Self(Arc::new(Inner {
            settings,
            status: Mutex::default(),
            roots: Mutex::default(),
            issued,
            failed,
            expiry,
        }))
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Shows the certificate's life in this registry.
    pub fn register(&self, registry: &Registry) {
        let Inner {
            issued,
            failed,
            expiry,
            ..
        } = &*self.0;
        registry.with(|r| {
            r.register(
                "mesh_identity_issued",
                "Certificates obtained from citadel",
                issued.clone(),
            );
            r.register(
                "mesh_identity_failed",
                "Calls to citadel that gave no certificate",
                failed.clone(),
            );
            let help = "Unix time at which the current certificate ends; 0 without one";
            r.register("mesh_identity_expiry_seconds", help, expiry.clone());
        });
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Obtains and renews until the drain.
    pub async fn run(&self, cell: IdentityCell, drain: Drain) {
        let mut backoff = Backoff::new(schedule::FIRST_RETRY, schedule::LONGEST_RETRY);
        loop {
            let result = tokio::select! {
                result = self.renew(&cell) => result,
                () = drain.drained() => return,
            };
            let now = SystemTime::now();
            let remaining = cell
                .get()
                .and_then(|identity| identity.not_after.duration_since(now).ok());
            let wait = match result {
                Ok(()) => {
                    backoff.reset();
                    schedule::renewal(remaining.unwrap_or_default(), rand::random())
                }
                Err(error) => {
                    let wait = schedule::retry(backoff.next(rand::random()), remaining);
                    self.failed(now, &error, wait, remaining);
                    wait
                }
            };
            self.lock().next_attempt = Some(now + wait);
            tokio::select! {
                () = self.follow_roots(&cell, wait) => {}
                () = drain.drained() => return,
            }
        }
    }

    fn failed(&self, now: SystemTime, error: &IdentityError, wait: Duration, remaining: Option<Duration>) {
        self.0.failed.inc();
        let mut status = self.lock();
        status.failed += 1;
        status.last_error = Some((now, error.to_string()));
        match remaining {
            Some(left) => {
                tracing::warn!(%error, retry_in = ?wait, valid_for = ?left, "certificate not renewed")
            }
            None => tracing::warn!(%error, retry_in = ?wait, "no certificate yet"),
        }
    }

    /// One call: a new key, a new certificate, into the cell.
    pub async fn renew(&self, cell: &IdentityCell) -> Result<(), IdentityError> {
        let read = self.read_roots().await;
        *self.0.roots.lock().unwrap_or_else(PoisonError::into_inner) = read.as_ref().ok().cloned();
        let trusted = match read {
            Ok(roots) => roots,
            // A certificate in use names roots that were proven before.
            Err(error) => cell.get().map(|identity| identity.roots.clone()).ok_or(error)?,
        };
        let request = Request::new()?;
        let chain = self.call(cell, &trusted, request.csr()).await?;
        let identity = request.finish(&chain, &trusted, &self.0.settings.trust_domain, SystemTime::now())?;
        let (not_after, serial, uris) = (identity.not_after, identity.serial.clone(), identity.uris());
        cell.set(identity)?;
        self.0.issued.inc();
        let until = not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.0.expiry.set(i64::try_from(until).unwrap_or(i64::MAX));
        let mut status = self.lock();
        status.issued += 1;
        status.last_error = None;
        tracing::info!(identity = ?uris, serial, expires_unix = until, "certificate obtained");
        Ok(())
    }

    async fn call(
        &self,
        cell: &IdentityCell,
        trusted: &[CertificateDer<'static>],
        csr: String,
    ) -> Result<Vec<String>, IdentityError> {
        let settings = &self.0.settings;
        let valid = cell
            .get()
            .is_some_and(|identity| identity.is_valid_at(SystemTime::now()));
        let token = self.token(valid).await?;
        let shown = if valid { Some(cell) } else { None };
        let peer = PeerNames::Exact(vec![settings.ca_san.clone()]);
        let config = tls::client_config_with_roots(trusted, shown, peer, &["h2"])?;
        let channel = grpc::connect(&settings.ca_address, Some(Arc::new(config)))?;
        let validity_duration = i64::try_from(settings.ttl.as_secs()).unwrap_or(i64::MAX);
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr,
            validity_duration,
            metadata: None,
        });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let address = || settings.ca_address.clone();
        let mut client = IstioCertificateServiceClient::new(channel);
        match tokio::time::timeout(CALL_TIMEOUT, client.create_certificate(request)).await {
            Err(_) => Err(IdentityError::Timeout { address: address() }),
            Ok(Err(status)) => Err(IdentityError::Refused {
                address: address(),
                code: status.code(),
                message: explain(&status),
            }),
            Ok(Ok(response)) => Ok(response.into_inner().cert_chain),
        }
    }

    /// The `authorization` header, or none when the current certificate is the proof.
    async fn token(
        &self,
        certified: bool,
    ) -> Result<Option<MetadataValue<tonic::metadata::Ascii>>, IdentityError> {
        let Some(path) = &self.0.settings.token_file else {
            return if certified {
                Ok(None)
            } else {
                Err(IdentityError::NoProof)
            };
        };
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) => text,
            Err(_) if certified => return Ok(None),
            Err(source) => {
                return Err(IdentityError::File {
                    what: "token file",
                    path: path.clone(),
                    source,
                });
            }
        };
        let unusable = || IdentityError::Token(path.clone());
        let token = text.trim();
        if token.is_empty() {
            return Err(unusable());
        }
        let mut value: MetadataValue<_> = format!("Bearer {token}").parse().map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn read_roots(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let path = &self.0.settings.root_file;
        let file = |source| IdentityError::File {
            what: "root file",
            path: path.clone(),
            source,
        };
        let pem = tokio::fs::read(path).await.map_err(file)?;
        tls::read_certificates(&pem).map_err(|source| IdentityError::RootFile {
            path: path.clone(),
            source,
        })
    }

    /// Waits, and meanwhile adopts a changed root file: a root added or removed there is trusted or not at once.
    async fn follow_roots(&self, cell: &IdentityCell, wait: Duration) {
        let end = tokio::time::Instant::now() + wait;
        let mut known = self
            .0
            .roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            tokio::time::sleep(left.min(ROOT_POLL)).await;
            if left <= ROOT_POLL {
                return;
            }
            let Ok(roots) = self.read_roots().await else {
                continue;
            };
            if known.as_ref() == Some(&roots) {
                continue;
            }
            known = Some(roots.clone());
            let Some(identity) = cell.get() else {
                // The file is what was missing: try at once.
                return;
            };
            match cell.set(identity.with_roots(roots)) {
                Ok(()) => tracing::info!(path = ?self.0.settings.root_file, "trusted roots changed"),
                Err(error) => tracing::warn!(%error, "changed root file is not used"),
            }
        }
    }
}

/// What went wrong, with the reasons below it: a transport error says only "transport error" itself.
fn explain(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text
}
