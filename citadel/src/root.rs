//! The self-signed root: how it is made and read back. Pure: key, serial and time are passed in.

use std::time::{Duration, SystemTime};

use mesh_proto::identity::TrustDomain;
use mesh_runtime::tls::{Leaf, TlsError, read_certificates};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

/// Life of a root.
pub const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A root is valid a little before it is made, for machines whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("root key: {0}")]
    Key(String),
    #[error("root certificate: {0}")]
    Certificate(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("root certificate belongs to another key")]
    Mismatch,
    #[error("root certificate ended {} s ago; move it away to have a new one made, and keep the old one in extra-roots.pem while workloads still trust it", .0.as_secs())]
    Expired(Duration),
}

/// A root with its key, ready to sign.
#[derive(Debug)]
pub struct Root {
    pub certificate: CertificateDer<'static>,
    pub issuer: Issuer<'static, KeyPair>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub serial: String,
}

/// A new root as PEM text: key, then certificate.
pub fn generate(
    key: &KeyPair,
    trust_domain: &TrustDomain,
    serial: [u8; 16],
    now: SystemTime,
) -> Result<String, RootError> {
    let certificate = certificate(key, trust_domain, serial, LIFE, now)?;
    Ok(format!("{}{certificate}", key.serialize_pem()))
}

/// The certificate of a new root as PEM text.
pub fn certificate(
    key: &KeyPair,
    trust_domain: &TrustDomain,
    serial: [u8; 16],
    life: Duration,
    now: SystemTime,
) -> Result<String, RootError> {
    let failed = |error: rcgen::Error| RootError::Certificate(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain.as_str());
    // Roots that follow one another are told apart by their names too, not only by their keys.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("mesh root {}", hex(&serial[..4])));
    let uri = format!("spiffe://{trust_domain}").try_into().map_err(failed)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
    Ok(params.self_signed(key).map_err(failed)?.pem())
}

/// Reads what [`generate`] wrote.
pub fn read(pem: &str, now: SystemTime) -> Result<Root, RootError> {
    let key = KeyPair::from_pem(pem).map_err(|error| RootError::Key(error.to_string()))?;
    let certificate = read_certificates(pem.as_bytes())?
        .into_iter()
        .next()
        .ok_or_else(|| RootError::Certificate("none in this file".into()))?;
    let leaf = Leaf::read(&certificate)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|error| RootError::Certificate(error.to_string()))?;
    if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(RootError::Mismatch);
    }
    if let Ok(ago) = now.duration_since(leaf.not_after) {
        return Err(RootError::Expired(ago));
    }
    if !parsed.is_ca() {
        return Err(RootError::Certificate(
            "it is not a certificate authority's".into(),
        ));
    }
    let Leaf {
        not_before,
        not_after,
        serial,
        ..
    } = leaf;
    let issuer = Issuer::from_ca_cert_der(&certificate, key)
        .map_err(|error| RootError::Certificate(error.to_string()))?;
    Ok(Root {
        certificate,
        issuer,
        not_before,
        not_after,
        serial,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_generates() {
        let (key, now) = (KeyPair::generate().unwrap(), SystemTime::now());
        let pem = generate(&key, &TrustDomain::default(), [7; 16], now).unwrap();
        let root = read(&pem, now).unwrap();
        assert_eq!(root.serial, "07".repeat(16));
        assert_eq!(
            mesh_runtime::tls::uri_sans(&root.certificate),
            ["spiffe://cluster.local"]
        );
        assert!(root.not_before < now && root.not_after > now + LIFE - Duration::from_secs(2));
        assert!(matches!(read(&pem, now + LIFE * 2), Err(RootError::Expired(_))));
    }

    #[test]
    fn refuses_what_does_not_belong_together() {
        let (one, other, now) = (
            KeyPair::generate().unwrap(),
            KeyPair::generate().unwrap(),
            SystemTime::now(),
        );
        let pem = generate(&one, &TrustDomain::default(), [1; 16], now).unwrap();
        let certificate = &pem[pem.find("-----BEGIN CERT").unwrap()..];
        let swapped = format!("{}{certificate}", other.serialize_pem());
        assert!(matches!(read(&swapped, now), Err(RootError::Mismatch)));
        assert!(matches!(read(certificate, now), Err(RootError::Key(_))));
        assert!(read(&one.serialize_pem(), now).is_err());
        let plain = CertificateParams::default().self_signed(&one).unwrap().pem();
        let not_ca = read(&format!("{}{plain}", one.serialize_pem()), now)
            .unwrap_err()
            .to_string();
        assert!(not_ca.contains("not a certificate authority"), "{not_ca}");
    }
}
