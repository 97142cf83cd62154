//! A certificate signing request (RFC 2986): PEM → public key. Only the key is used, and only when the request is signed
//! with it. Names and extensions in it are claims, and ignored.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::{
    certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer,
    public_key::PublicKey,
};

use crate::error::Refusal;

/// Longest request that is looked at; one with an RSA-8192 key has about 3 kB.
pub const MAX_BYTES: usize = 16 * 1024;
const MIN_RSA_BITS: usize = 2048;

/// A key whose owner has proven to hold it.
pub type ProvenKey = SubjectPublicKeyInfo;

pub fn proven_key(pem: &str) -> Result<ProvenKey, Refusal> {
    let refuse = |text: String| Refusal::Csr(text);
    if pem.len() > MAX_BYTES {
        return Err(refuse(format!("{} bytes, the limit is {MAX_BYTES}", pem.len())));
    }
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| refuse("no PEM block".into()))?;
    if !matches!(
        block.label.as_str(),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
    ) {
        return Err(refuse(format!(
            "PEM block is {:?}, expected CERTIFICATE REQUEST",
            block.label
        )));
    }
    let (rest, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| refuse(format!("not a PKCS #10 request: {error}")))?;
    if !rest.is_empty() {
        return Err(refuse("bytes after the request".into()));
    }
    let subject = &request.certification_request_info.subject_pki;
    match subject.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => {
            return Err(refuse(format!(
                "RSA key of {} bits, at least {MIN_RSA_BITS} are needed",
                key.key_size()
            )));
        }
        Ok(_) => {}
        Err(error) => return Err(refuse(format!("public key cannot be read: {error}"))),
    }
    request
        .verify_signature()
        .map_err(|_| refuse("its signature is not by its own key, or of an unsupported kind".into()))?;
    let key = SubjectPublicKeyInfo::from_der(subject.raw).map_err(|_| {
        refuse("public key is of an unsupported kind; use ECDSA P-256 or P-384, Ed25519, or RSA".into())
    })?;
    debug_assert_eq!(key.der_bytes(), &*subject.subject_public_key.data);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    fn request(key: &KeyPair) -> String {
        let params = CertificateParams::new(vec!["admin.cluster.local".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn takes_the_key_of_every_supported_kind() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let proven = proven_key(&request(&key)).unwrap();
            assert_eq!(proven.der_bytes(), key.der_bytes(), "{algorithm:?}");
        }
    }

    /// Made by `openssl req -newkey rsa:1024` and `rsa:2048`.
    #[test]
    fn takes_long_rsa_keys_only() {
        assert!(proven_key(include_str!("csr/rsa2048.pem")).is_ok());
        let refusal = proven_key(include_str!("csr/rsa1024.pem"))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("1024 bits"), "{refusal}");
    }

    #[test]
    fn refusals() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key);
        let other = request(&KeyPair::generate().unwrap());
        let (good_lines, other_lines): (Vec<_>, Vec<_>) = (good.lines().collect(), other.lines().collect());
        // The end of the request, with the signature, comes from another one.
        let cut = good_lines.len() - 2;
        let grafted = [&good_lines[..cut], &other_lines[other_lines.len() - 2..]]
            .concat()
            .join("\n");
        let long = "x".repeat(MAX_BYTES + 1);
        let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
        let garbage = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        for (pem, expect) in [
            ("", "no PEM block"),
            (long.as_str(), "the limit is"),
            (certificate.as_str(), "expected CERTIFICATE REQUEST"),
            (garbage, "not a PKCS #10 request"),
            (grafted.as_str(), ""),
        ] {
            let refusal = proven_key(pem).unwrap_err().to_string();
            assert!(refusal.contains(expect), "{refusal:?} lacks {expect:?}");
        }
    }

    #[test]
    fn a_changed_signature_is_refused() {
        let key = KeyPair::generate().unwrap();
        let der = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec();
        let mut refused = 0;
        for position in der.len() - 8..der.len() {
            let mut forged = der.clone();
            forged[position] ^= 1;
            let pem = crate::testing::pem("CERTIFICATE REQUEST", &forged);
            refused += usize::from(proven_key(&pem).is_err());
        }
        assert_eq!(refused, 8);
    }
}
