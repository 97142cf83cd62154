//! Certificate authority material as four PEM texts (`ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`, `root-cert.pem`, as
//! Istio names them) → a [`Signer`], or the reason why not, by the name of the text that is wrong. Pure.
//!
//! The chain is found by signatures, not by the order in which people paste certificates: from the signing certificate
//! over those of `cert-chain.pem` to one of `root-cert.pem`. Each step must be a CA that is valid now and whose path
//! length allows what lies below it (RFC 5280 §6.1.4).

use std::time::SystemTime;

use mesh_runtime::tls::{Leaf, TlsError, read_certificates, read_key};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

use super::signer::Signer;
use crate::bundle::MAX_ROOTS;

pub const CERTIFICATE: &str = "ca-cert.pem";
pub const KEY: &str = "ca-key.pem";
pub const CHAIN: &str = "cert-chain.pem";
pub const ROOTS: &str = "root-cert.pem";
/// Certificates between leaf and root, the signing one included.
pub const MAX_CHAIN: usize = 8;

/// The four texts; the chain may be empty.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    pub certificate: &'a [u8],
    pub key: &'a [u8],
    pub chain: &'a [u8],
    pub roots: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    #[error("{name}: {source}")]
    Pem { name: &'static str, source: TlsError },
    #[error(
        "{KEY}: not a key that can sign: {0}; use ECDSA P-256 or P-384, Ed25519 or RSA of 2048 bits or more"
    )]
    Key(String),
    #[error("{KEY} is not the key of {CERTIFICATE}")]
    Mismatch,
    #[error("{name}: certificate {subject:?} {reason}")]
    Certificate {
        name: &'static str,
        subject: String,
        reason: String,
    },
    #[error(
        "{CERTIFICATE}: no chain leads from {subject:?} to a root of {ROOTS}; put every certificate between them into {CHAIN}"
    )]
    NoChain { subject: String },
    #[error("{ROOTS}: {0} roots, at most {MAX_ROOTS} are taken")]
    TooMany(usize),
}

/// One parsed certificate and the text it came from.
struct Link<'a> {
    name: &'static str,
    der: &'a CertificateDer<'static>,
    x509: X509Certificate<'a>,
}

pub fn read(material: Material<'_>, now: SystemTime) -> Result<Signer, MaterialError> {
    let signing = certificates(CERTIFICATE, material.certificate)?;
    let roots = certificates(ROOTS, material.roots)?;
    if roots.len() > MAX_ROOTS {
        return Err(MaterialError::TooMany(roots.len()));
    }
    let between = match material.chain.trim_ascii() {
        [] => Vec::new(),
        text => certificates(CHAIN, text)?,
    };
    let key = key(material.key)?;
    let Some((first, rest)) = signing.split_first() else {
        return Err(MaterialError::Missing(CERTIFICATE));
    };
    let signing = link(CERTIFICATE, first)?;
    if *signing.x509.public_key().subject_public_key.data != *key.public_key_raw()
        && *signing.x509.public_key().raw != *spki(&key)
    {
        return Err(MaterialError::Mismatch);
    }
    let anchors = links(ROOTS, &roots)?;
    // A file with more than the signing certificate helps with its chain.
    let mut steps = links(CERTIFICATE, rest)?;
    steps.extend(links(CHAIN, &between)?);
    let path = path(signing, &steps, &anchors)?;
    let mut end = None::<SystemTime>;
    for (below, link) in path.iter().enumerate() {
        let ends = check(link, below, now)?;
        end = Some(end.map_or(ends, |end| end.min(ends)));
    }
    let chain: Vec<CertificateDer<'static>> = path.iter().map(|link| link.der.clone()).collect();
    let root = chain.last().cloned();
    let others = roots
        .iter()
        .filter(|other| Some(*other) != root.as_ref())
        .cloned()
        .collect();
    let issuer = Issuer::from_ca_cert_der(first, key).map_err(|error| MaterialError::Certificate {
        name: CERTIFICATE,
        subject: String::new(),
        reason: error.to_string(),
    })?;
    Ok(Signer::new(issuer, chain, end.unwrap_or(now), others))
}

fn certificates(name: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    if pem.trim_ascii().is_empty() {
        return Err(MaterialError::Missing(name));
    }
    read_certificates(pem).map_err(|source| MaterialError::Pem { name, source })
}

fn key(pem: &[u8]) -> Result<KeyPair, MaterialError> {
    if pem.trim_ascii().is_empty() {
        return Err(MaterialError::Missing(KEY));
    }
    let der = read_key(pem).map_err(|source| MaterialError::Pem { name: KEY, source })?;
    KeyPair::try_from(&der).map_err(|error| MaterialError::Key(error.to_string()))
}

/// The key as a certificate would name it.
fn spki(key: &KeyPair) -> Vec<u8> {
    rcgen::PublicKeyData::subject_public_key_info(key)
}

fn link<'a>(name: &'static str, der: &'a CertificateDer<'static>) -> Result<Link<'a>, MaterialError> {
    let (_, x509) = x509_parser::parse_x509_certificate(der).map_err(|error| MaterialError::Pem {
        name,
        source: TlsError::Certificate(error.to_string()),
    })?;
    Ok(Link { name, der, x509 })
}

fn links<'a>(
    name: &'static str,
    ders: &'a [CertificateDer<'static>],
) -> Result<Vec<Link<'a>>, MaterialError> {
    ders.iter().map(|der| link(name, der)).collect()
}

/// From the signing certificate to a root, by signatures. Roots are preferred at each step, so a root that stands in
/// `cert-chain.pem` too is no detour.
fn path<'a>(
    signing: Link<'a>,
    steps: &[Link<'a>],
    anchors: &[Link<'a>],
) -> Result<Vec<Link<'a>>, MaterialError> {
    let subject = signing.x509.subject().to_string();
    let mut path = vec![signing];
    while path.len() <= MAX_CHAIN {
        let last = &path[path.len() - 1];
        if anchors.iter().any(|anchor| anchor.der == last.der) {
            return Ok(path);
        }
        let signed_by = |above: &&Link<'a>| {
            last.x509.issuer().as_raw() == above.x509.subject().as_raw()
                && last.x509.verify_signature(Some(above.x509.public_key())).is_ok()
        };
        let unused = |step: &&Link<'a>| path.iter().all(|used| used.der != step.der);
        let above = anchors
            .iter()
            .find(signed_by)
            .or_else(|| steps.iter().filter(unused).find(signed_by));
        match above {
            Some(above) => path.push(Link {
                name: above.name,
                der: above.der,
                x509: above.x509.clone(),
            }),
            None => break,
        }
    }
    Err(MaterialError::NoChain { subject })
}

/// Whether this certificate may sign with `below` others under it; says when it ends.
fn check(link: &Link<'_>, below: usize, now: SystemTime) -> Result<SystemTime, MaterialError> {
    let refuse = |reason: String| MaterialError::Certificate {
        name: link.name,
        subject: link.x509.subject().to_string(),
        reason,
    };
    let constraints = link
        .x509
        .basic_constraints()
        .map_err(|error| refuse(format!("has constraints that cannot be read: {error}")))?
        .filter(|constraints| constraints.value.ca)
        .ok_or_else(|| {
            refuse("is not a certificate authority's (basicConstraints CA:TRUE is missing)".into())
        })?;
    if let Some(length) = constraints.value.path_len_constraint
        && (length as usize) < below
    {
        return Err(refuse(format!(
            "allows {length} authorities below it, but there are {below} (pathLenConstraint)"
        )));
    }
    let usage = link
        .x509
        .key_usage()
        .map_err(|error| refuse(format!("has a key usage that cannot be read: {error}")))?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(refuse(
            "may not sign certificates (keyUsage has no keyCertSign)".into(),
        ));
    }
    let times = Leaf::read(link.der).map_err(|source| MaterialError::Pem {
        name: link.name,
        source,
    })?;
    if let Ok(ago) = now.duration_since(times.not_after) {
        return Err(refuse(format!(
            "ended {} s ago; replace it by a new one",
            ago.as_secs()
        )));
    }
    if let Ok(ahead) = times.not_before.duration_since(now) {
        return Err(refuse(format!(
            "is not valid for another {} s; compare the clocks",
            ahead.as_secs()
        )));
    }
    Ok(times.not_after)
}

#[cfg(test)]
mod tests;
