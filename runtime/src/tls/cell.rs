//! The one place that holds the identity of a process. Written by whoever obtains certificates, read at each handshake
//! by one atomic load; everything that a handshake needs is derived when the cell is set.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwapOption, Guard};
use rustls::{
    RootCertStore,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::{Identity, TlsError, provider};

/// Holds the identity of this process, or none yet. Clones share it.
#[derive(Clone, Debug)]
pub struct IdentityCell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwapOption<Current>,
    /// Counts changes of the roots: sessions made under other roots are not resumed.
    generation: AtomicU64,
    changed: watch::Sender<Option<Arc<Identity>>>,
}

/// An identity, ready for handshakes.
#[derive(Debug)]
pub(super) struct Current {
    pub identity: Arc<Identity>,
    pub certified: Arc<CertifiedKey>,
    pub trust: Arc<Trust>,
}

/// Parsed roots, with the verifiers over them.
#[derive(Debug)]
pub(super) struct Trust {
    pub roots: Arc<RootCertStore>,
    pub clients: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    pub fn new(certificates: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| TlsError::Root(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| TlsError::Root(error.to_string()))?;
        Ok(Self { roots, clients })
    }
}

impl IdentityCell {
    /// A cell without an identity: handshakes fail until it is set.
    pub fn new() -> Self {
        let current = ArcSwapOption::empty();
        Self(Arc::new(Inner {
            current,
            generation: AtomicU64::new(0),
            changed: watch::channel(None).0,
        }))
    }

    pub fn get(&self) -> Option<Arc<Identity>> {
        self.0
            .current
            .load()
            .as_ref()
            .map(|current| current.identity.clone())
    }

    /// Takes a new identity for all handshakes from now on. One that could not work is refused, and the old one stays.
    pub fn set(&self, identity: Identity) -> Result<(), TlsError> {
        let key = provider()
            .key_provider
            .load_private_key(identity.key.clone_key())
            .map_err(|error| TlsError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(identity.chain.clone(), key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(TlsError::KeyMismatch),
            Err(error) => return Err(TlsError::Certificate(error.to_string())),
        }
        let old = self.0.current.load_full();
        let trust = match &old {
            Some(old) if old.identity.roots == identity.roots => old.trust.clone(),
            _ => Arc::new(Trust::new(&identity.roots)?),
        };
        let roots_changed = old.is_none_or(|old| !Arc::ptr_eq(&old.trust, &trust));
        let identity = Arc::new(identity);
        let current = Current {
            identity: identity.clone(),
            certified: Arc::new(certified),
            trust,
        };
        self.0.current.store(Some(Arc::new(current)));
        if roots_changed {
            self.0.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.0.changed.send_replace(Some(identity));
        Ok(())
    }

    /// The newest identity, and every later one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.0.changed.subscribe()
    }

    /// Waits until there is an identity.
    pub async fn ready(&self) -> Arc<Identity> {
        let mut receiver = self.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(identity) => match identity.as_ref() {
                Some(identity) => identity.clone(),
                None => std::future::pending().await,
            },
            // The sender lives in `self`, so it cannot be gone.
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn current(&self) -> Guard<Option<Arc<Current>>> {
        self.0.current.load()
    }

    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}

impl Default for IdentityCell {
    fn default() -> Self {
        Self::new()
    }
}
