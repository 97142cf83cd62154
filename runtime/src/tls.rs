//! TLS by mesh identity. An [`IdentityCell`] holds this process' certificate and the roots it trusts; configurations
//! made here look into the cell at each handshake, so a rotation changes nothing else and breaks no connection.
//!
//! A peer is proven by its chain (webpki, against the cell's current roots) and by the URI names (SPIFFE) in its leaf;
//! DNS names play no part inside the mesh. What a handshake needs (parsed roots, verifiers, the signing key) is built
//! once, when the cell changes.
//!
//! Bounds: a server keeps [`SESSIONS`] sessions for at most [`SESSION_TIME`], and forgets them when the roots change;
//! so that is the longest that a resumed session outlives a peer's certificate. Chains are at most webpki's depth.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

mod cell;
mod client;
mod peer;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use cell::IdentityCell;
pub use client::{client_config, client_config_with_roots};
pub use peer::PeerNames;
pub use server::{ClientAuth, server_config, server_config_offering};
pub use session::{SESSION_TIME, SESSIONS};

/// A certificate with its key, and what this process trusts.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first, then intermediates; no root.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// More than one while roots rotate.
    pub roots: Vec<CertificateDer<'static>>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Hexadecimal, as certificate viewers print it.
    pub serial: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("a certificate chain needs at least its leaf")]
    NoLeaf,
    #[error("no root certificate: nobody could be trusted")]
    NoRoots,
    #[error("certificate cannot be read: {0}")]
    Certificate(String),
    #[error("root certificate cannot be used: {0}")]
    Root(String),
    #[error("private key cannot be used: {0}")]
    Key(String),
    #[error("the private key is not that of the certificate")]
    KeyMismatch,
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub uris: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub serial: String,
}

impl Leaf {
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|e| TlsError::Certificate(e.to_string()))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self {
            uris: uris(&parsed),
            not_before: from_unix(not_before),
            not_after: from_unix(not_after),
            serial: parsed
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }
}

fn from_unix(seconds: i64) -> SystemTime {
    let magnitude = std::time::Duration::from_secs(seconds.unsigned_abs());
    if seconds >= 0 {
        SystemTime::UNIX_EPOCH + magnitude
    } else {
        SystemTime::UNIX_EPOCH - magnitude
    }
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// The URI names of a certificate; none when it cannot be read.
pub fn uri_sans(certificate: &CertificateDer<'_>) -> Vec<String> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| uris(&parsed))
        .unwrap_or_default()
}

/// All certificates of a PEM text. None at all is an error.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::Certificate(error.to_string()))?;
    if all.is_empty() {
        Err(TlsError::Certificate(
            "no CERTIFICATE block in this PEM text".into(),
        ))
    } else {
        Ok(all)
    }
}

/// The first private key of a PEM text.
pub fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Key(error.to_string()))
}

impl Identity {
    /// Reads times and serial from the leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let leaf = Leaf::read(chain.first().ok_or(TlsError::NoLeaf)?)?;
        let Leaf {
            not_before,
            not_after,
            serial,
            ..
        } = leaf;
        Ok(Self {
            chain,
            key,
            roots,
            not_before,
            not_after,
            serial,
        })
    }

    /// The URI names of the leaf.
    pub fn uris(&self) -> Vec<String> {
        self.chain.first().map(uri_sans).unwrap_or_default()
    }

    /// The same certificate with other roots.
    pub fn with_roots(&self, roots: Vec<CertificateDer<'static>>) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots,
            not_before: self.not_before,
            not_after: self.not_after,
            serial: self.serial.clone(),
        }
    }

    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// The cryptography of every configuration made here; one instance for the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
        .clone()
}
