//! The authority with a root of its own, kept in the store and made there the first time.

use std::{sync::Arc, time::SystemTime};

use mesh_proto::identity::TrustDomain;
use mesh_runtime::tls::TlsError;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{Authority, Current, serial, signer::Signer};
use crate::{
    bundle,
    root::{self, RootError},
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

/// Reads the root, or makes one. Of several that start at once with one store, all use the first's.
pub fn open(
    store: &dyn Store,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Authority, SelfSignedError> {
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
    let mut trusted = bundle::bundle(&root.certificate, others.as_deref(), now).map_err(|source| {
        SelfSignedError::Others {
            place: store.place("extra-roots.pem"),
            source,
        }
    })?;
    trusted.remove(0);
    Ok(Authority::new(Current {
        signer: Arc::new(Signer::of_root(root, trusted)),
        others: Vec::new(),
        place,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{authority::signer::Wish, store::file::Files, testing};

    #[test]
    fn the_root_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Files::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let first = open(&store, &TrustDomain::default(), now).unwrap();
        let second = open(&store, &TrustDomain::default(), now).unwrap();
        assert_eq!(first.roots(now), second.roots(now));
        let wish = Wish {
            id: &"spiffe://cluster.local/ns/default/sa/a".parse().unwrap(),
            dns: &[],
            key: &testing::proven_key(),
            life: Duration::from_secs(60),
        };
        let signed = second.sign(&wish, now).unwrap();
        assert_eq!(signed.chain.len(), 2);
        assert_ne!(signed.serial, first.sign(&wish, now).unwrap().serial);
    }

    #[test]
    fn extra_roots_are_trusted_and_broken_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Files::open(dir.path()).unwrap();
        let now = SystemTime::now();
        let other = testing::root().certificate;
        let extra = bundle::to_pem(std::slice::from_ref(&other));
        std::fs::write(dir.path().join("extra-roots.pem"), extra).unwrap();
        let authority = open(&store, &TrustDomain::default(), now).unwrap();
        let own = authority.current().signer.root().clone();
        assert_eq!(authority.roots(now), [own, other]);

        for name in ["extra-roots.pem", "root.pem"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
            let error = open(&store, &TrustDomain::default(), now)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
