//! Roots, keys and tokens for tests and benches.

use std::time::SystemTime;

use mesh_proto::identity::TrustDomain;
use rcgen::{CertificateParams, KeyPair};

pub use crate::bundle::pem;
use crate::{
    csr::{self, ProvenKey},
    root::{self, Root},
    rotate::RootText,
};

/// A new root.
///
/// # Panics
/// If the cryptography of this build does not work.
#[allow(clippy::unwrap_used)]
pub fn root() -> Root {
    let (key, now) = (KeyPair::generate().expect("P-256 key"), SystemTime::now());
    let pem = root::generate(&key, &TrustDomain::default(), rand::random(), now).expect("a root");
    root::read(&pem, now).expect("its own text")
}

/// A new root, as a Secret has it.
///
/// # Panics
/// If the cryptography of this build does not work.
#[allow(clippy::unwrap_used)]
pub fn root_text() -> RootText {
    let key = KeyPair::generate().expect("P-256 key");
    let (domain, now) = (TrustDomain::default(), SystemTime::now());
    let certificate = root::certificate(&key, &domain, rand::random(), root::LIFE, now).expect("a root");
    RootText {
        certificate,
        key: key.serialize_pem(),
    }
}

/// A signing request with a new key.
///
/// # Panics
/// If the cryptography of this build does not work.
#[allow(clippy::unwrap_used)]
pub fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().expect("P-256 key");
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .expect("a request");
    (key, csr)
}

/// The key of a new signing request.
///
/// # Panics
/// If the cryptography of this build does not work.
#[allow(clippy::unwrap_used)]
pub fn proven_key() -> ProvenKey {
    csr::proven_key(&request().1).expect("its own request")
}
