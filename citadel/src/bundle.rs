//! The roots that the mesh trusts: the one that signs, and others (of before, or of after) while roots rotate. Pure.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use mesh_runtime::tls::{Leaf, TlsError, read_certificates};
use rustls_pki_types::CertificateDer;

/// Roots in a bundle; more are surely a mistake, and every handshake would carry it.
pub const MAX_ROOTS: usize = 16;

/// The signing root first, then the others that are still valid, each once.
pub fn bundle(
    signing: &CertificateDer<'static>,
    others_pem: Option<&[u8]>,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = vec![signing.clone()];
    for other in others_pem.map(read_certificates).transpose()?.unwrap_or_default() {
        if Leaf::read(&other)?.not_after > now && !all.contains(&other) {
            all.push(other);
        }
    }
    if all.len() > MAX_ROOTS {
        return Err(TlsError::Root(format!(
            "{} roots, at most {MAX_ROOTS} are taken",
            all.len()
        )));
    }
    Ok(all)
}

/// As a PEM text.
pub fn to_pem(roots: &[CertificateDer<'_>]) -> String {
    roots.iter().map(|root| pem("CERTIFICATE", root)).collect()
}

/// One PEM block (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{root, testing};

    #[test]
    fn signing_root_first_each_once_expired_dropped() {
        let (signing, other) = (testing::root().certificate, testing::root().certificate);
        let pem = to_pem(&[other.clone(), signing.clone(), other.clone()]);
        let now = SystemTime::now();
        assert_eq!(
            bundle(&signing, Some(pem.as_bytes()), now).unwrap(),
            [signing.clone(), other]
        );
        assert_eq!(
            bundle(&signing, Some(pem.as_bytes()), now + root::LIFE * 2).unwrap(),
            std::slice::from_ref(&signing)
        );
        assert_eq!(
            bundle(&signing, None, now).unwrap(),
            std::slice::from_ref(&signing)
        );
        assert!(bundle(&signing, Some(b"nonsense"), now).is_err());
    }

    #[test]
    fn pem_blocks_are_read_back() {
        for length in [1, 2, 3, 47, 48, 49, 200] {
            let der: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let text = pem("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(
                read_certificates(text.as_bytes()).unwrap()[0].as_ref(),
                der,
                "{length}"
            );
        }
    }
}
