//! The authority with a root of its own, kept in the store and made there the first time.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::{SpiffeId, TrustDomain};
use mesh_runtime::tls::{Leaf, TlsError};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;

use super::{Authority, Signed};
use crate::{
    bundle,
    csr::ProvenKey,
    error::Refusal,
    issue::{self, Order},
    root::{self, Root, RootError},
    store::{Store, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{place}: {source}")]
    Root { place: String, source: RootError },
    #[error("{place}: {source}")]
    Others { place: String, source: TlsError },
}

/// Signs with a root of its own.
#[derive(Debug)]
pub struct SelfSigned {
    root: Root,
    root_pem: String,
    others: Option<Vec<u8>>,
}

impl SelfSigned {
    /// Reads the root, or makes one. Of several that start at once with one store, all use the first's.
    pub fn open(
        store: &dyn Store,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, SelfSignedError> {
        let place = store.place("root.pem");
        let wrong = |source| SelfSignedError::Root {
            place: place.clone(),
            source,
        };
        let text = match store.read("root.pem")? {
            Some(text) => text,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                    .map_err(|error| wrong(RootError::Key(error.to_string())))?;
                let pem = root::generate(&key, trust_domain, serial(), now).map_err(wrong)?;
                tracing::info!(%place, "made a new root");
                store.create("root.pem", pem.as_bytes())?
            }
        };
        let root = root::read(&String::from_utf8_lossy(&text), now).map_err(wrong)?;
        let others = store.read("extra-roots.pem")?;
        bundle::bundle(&root.certificate, others.as_deref(), now).map_err(|source| {
            SelfSignedError::Others {
                place: store.place("extra-roots.pem"),
                source,
            }
        })?;
        Ok(Self {
            root_pem: bundle::to_pem(std::slice::from_ref(&root.certificate)),
            root,
            others,
        })
    }

    pub fn root(&self) -> &Root {
        &self.root
    }
}

fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    serial
}

impl Authority for SelfSigned {
    fn sign(
        &self,
        id: &SpiffeId,
        key: &ProvenKey,
        life: Duration,
        now: SystemTime,
    ) -> Result<Signed, Refusal> {
        let order = Order {
            id,
            key,
            life,
            serial: serial(),
            now,
        };
        let issued = issue::issue(&order, &self.root.issuer, self.root.not_after)?;
        let leaf = Leaf::read(&issued.certificate).map_err(|error| Refusal::Signing(error.to_string()))?;
        Ok(Signed {
            chain: vec![issued.pem, self.root_pem.clone()],
            leaf: issued.certificate,
            not_after: issued.not_after,
            serial: leaf.serial,
        })
    }

    fn roots(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let signing = &self.root.certificate;
        bundle::bundle(signing, self.others.as_deref(), now).unwrap_or_else(|_| vec![signing.clone()])
    }

    fn not_after(&self) -> SystemTime {
        self.root.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::file::Files, testing};

    #[test]
    fn the_root_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Files::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let first = SelfSigned::open(&store, &TrustDomain::default(), now).unwrap();
        let second = SelfSigned::open(&store, &TrustDomain::default(), now).unwrap();
        assert_eq!(first.root().certificate, second.root().certificate);
        let id = "spiffe://cluster.local/ns/default/sa/a".parse().unwrap();
        let signed = second
            .sign(&id, &testing::proven_key(), Duration::from_secs(60), now)
            .unwrap();
        assert_eq!(signed.chain.len(), 2);
        assert_ne!(
            signed.serial,
            first
                .sign(&id, &testing::proven_key(), Duration::from_secs(60), now)
                .unwrap()
                .serial
        );
    }

    #[test]
    fn extra_roots_are_trusted_and_broken_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Files::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let other = testing::root().certificate;
        std::fs::write(
            dir.path().join("extra-roots.pem"),
            bundle::to_pem(std::slice::from_ref(&other)),
        )
        .unwrap();
        let authority = SelfSigned::open(&store, &TrustDomain::default(), now).unwrap();
        assert_eq!(
            authority.roots(now),
            [authority.root().certificate.clone(), other]
        );

        std::fs::write(dir.path().join("extra-roots.pem"), "x").unwrap();
        let error = SelfSigned::open(&store, &TrustDomain::default(), now)
            .unwrap_err()
            .to_string();
        assert!(error.contains("extra-roots.pem"), "{error}");
        std::fs::write(dir.path().join("root.pem"), "x").unwrap();
        let error = SelfSigned::open(&store, &TrustDomain::default(), now)
            .unwrap_err()
            .to_string();
        assert!(error.contains("root.pem"), "{error}");
    }
}
