//! What a certificate says, for the operators that ask. Off the path, from the leaf's DER.

use base64::{Engine, prelude::BASE64_STANDARD};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use crate::config::log::{CertificateFact, TimeFormat};

use super::time_format;

/// One fact; `None` when the certificate does not have it (or cannot be read).
pub(super) fn fact(fact: CertificateFact, der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    match fact {
        CertificateFact::UriSan => names(&certificate, |name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        }),
        CertificateFact::DnsSan => names(&certificate, |name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }),
        CertificateFact::IpSan => names(&certificate, |name| match name {
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        }),
        CertificateFact::Subject => some(certificate.subject().to_string()),
        CertificateFact::Issuer => some(certificate.issuer().to_string()),
        CertificateFact::Serial => some(hex(certificate.raw_serial())),
        CertificateFact::Fingerprint256 => Some(hex(digest(
            &rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            der,
        )?
        .as_slice())),
        // SHA-1 is not among what our TLS library offers, on purpose.
        CertificateFact::Fingerprint1 => None,
        CertificateFact::ValidFrom => Some(time(certificate.validity().not_before)),
        CertificateFact::ValidUntil => Some(time(certificate.validity().not_after)),
        CertificateFact::Pem => Some(pem(der)),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn names(
    certificate: &X509Certificate<'_>,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Option<String> {
    let extension = certificate.subject_alternative_name().ok()??;
    let names: Vec<String> = extension.value.general_names.iter().filter_map(pick).collect();
    some(names.join(","))
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()))
        .ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, through the hash of a cipher suite: the one way to it that rustls has.
fn digest(suite: &rustls::SupportedCipherSuite, data: &[u8]) -> Option<Vec<u8>> {
    let suite = suite.tls13()?;
    Some(suite.common.hash_provider.hash(data).as_ref().to_vec())
}

fn time(time: ASN1Time) -> String {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    time_format::render(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
        &TimeFormat::Iso,
    )
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}
