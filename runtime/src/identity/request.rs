//! One request for a certificate: a fresh P-256 key, its signing request, and what becomes of the answer. Names are not
//! asked for: the authority takes them from the proven caller.

use std::time::SystemTime;

use mesh_proto::identity::{SpiffeId, TrustDomain};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::IdentityError;
use crate::tls::{self, Identity};

pub struct Request {
    key: KeyPair,
    csr: String,
}

impl Request {
    pub fn new() -> Result<Self, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Request(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(failed)?;
        Ok(Self { key, csr })
    }

    /// The signing request, PEM.
    pub fn csr(&self) -> String {
        self.csr.clone()
    }

    /// The identity that the authority's answer (PEM texts, leaf first, root last) makes of this key. `trusted` are
    /// the roots of the root file; the answer's own root is trusted too, as it came from the proven authority.
    pub fn finish(
        self,
        answer: &[String],
        trusted: &[CertificateDer<'static>],
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let mut chain = Vec::new();
        for pem in answer {
            chain.extend(tls::read_certificates(pem.as_bytes())?);
        }
        if chain.len() < 2 {
            return Err(IdentityError::Answer(format!(
                "{} certificates, expected leaf and root",
                chain.len()
            )));
        }
        let mut roots = trusted.to_vec();
        if let Some(root) = chain.pop().filter(|root| !trusted.contains(root)) {
            roots.push(root);
        }
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let identity = Identity::new(chain, key, roots)?;
        let names: Vec<Result<SpiffeId, _>> = identity.uris().iter().map(|uri| uri.parse()).collect();
        match &names[..] {
            [Ok(id)] if id.trust_domain == *trust_domain => {}
            _ => {
                let uris = identity.uris();
                let text =
                    format!("leaf names {uris:?}, expected one SPIFFE id of trust domain {trust_domain}");
                return Err(IdentityError::Answer(text));
            }
        }
        if !identity.is_valid_at(now) {
            return Err(IdentityError::Answer(
                "the certificate is not valid now; compare this machine's clock with the authority's".into(),
            ));
        }
        Ok(identity)
    }
}
