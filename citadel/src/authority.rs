//! Who signs, now: one [`Signer`], and the roots that the mesh is to trust besides its own. Both change while citadel
//! runs, whole, and everybody who must know is told.
//!
//! | File | What it holds |
//! | --- | --- |
//! | [`signer`] | an authority that is ready to sign (pure) |
//! | [`self_signed`] | a root of its own, in a folder |
//! | [`intermediate`] | the user's material, checked (pure) |
//! | [`choice`] | which of several signs while roots change (pure) |
//! | [`secrets`] | both kinds in Secrets of Kubernetes, watched; the root rotated |

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use mesh_runtime::tls::Leaf;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::{bundle::MAX_ROOTS, error::Refusal};

pub mod choice;
pub mod intermediate;
pub mod secrets;
pub mod self_signed;
pub mod signer;

use signer::{Signed, Signer, Wish};

/// What is in use.
#[derive(Clone, Debug)]
pub struct Current {
    pub signer: Arc<Signer>,
    /// Trusted besides the signer's root: of before, of after, or of others.
    pub others: Vec<CertificateDer<'static>>,
    /// Where the signer was read from, for people.
    pub place: String,
}

/// Signs names that others have proven.
#[derive(Debug)]
pub struct Authority {
    current: RwLock<Arc<Current>>,
    changed: watch::Sender<u64>,
}

impl Authority {
    pub fn new(current: Current) -> Self {
        Self {
            current: RwLock::new(Arc::new(current)),
            changed: watch::channel(0).0,
        }
    }

    pub fn current(&self) -> Arc<Current> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes another one, and tells who listens if anything is different.
    pub fn set(&self, next: Current) {
        let before = self.current();
        if before.signer.same(&next.signer) && before.others == next.others {
            return;
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn sign(&self, wish: &Wish<'_>, now: SystemTime) -> Result<Signed, Refusal> {
        self.current().signer.sign(wish, serial(), now)
    }

    /// The roots that the mesh is to trust: the one that signs first, then the others that are still valid.
    pub fn roots(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let current = self.current();
        let mut all = vec![current.signer.root().clone()];
        for other in current.signer.others().iter().chain(&current.others) {
            let valid = Leaf::read(other).is_ok_and(|leaf| leaf.not_after > now);
            if valid && !all.contains(other) && all.len() < MAX_ROOTS {
                all.push(other.clone());
            }
        }
        all
    }

    /// When signing ends.
    pub fn not_after(&self) -> SystemTime {
        self.current().signer.end()
    }
}

/// RFC 5280 §4.1.2.2: positive, unpredictable.
pub(crate) fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    serial
}
