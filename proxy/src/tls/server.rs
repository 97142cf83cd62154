//! The downstream side: a filter chain's settings become a rustls server. Mirror image of `client`. Inside the mesh it is
//! the proxy's own identity that is shown; at the edge, certificates that somebody else gave.

use std::sync::Arc;

use mesh_proto::names::alpn;
use mesh_runtime::tls::{ClientAuth, provider, server_config_offering};
use rustls::{
    CipherSuite, ServerConfig, SignatureAlgorithm, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite as suite, kx_group, sign::any_supported_type},
    },
    server::{
        ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    SetupError,
    material::{Material, peer_names},
    verify,
};
use crate::config::transport::{Cipher, Curve, DownstreamTls, Offer, SecretRef, Validation, Versions};

/// Sessions remembered for resumption.
const SESSIONS: usize = 1024;
const WITHOUT_ROOTS: &str = "require_client_certificate needs validation_context.trusted_ca";

/// Builds the server side.
pub fn build(tls: &DownstreamTls, material: &Material<'_>) -> Result<Arc<ServerConfig>, SetupError> {
    let config = match (&tls.validation, tls.certificates.as_slice()) {
        (_, []) => {
            return Err(SetupError::Settings(
                "a TLS filter chain needs a certificate".into(),
            ));
        }
        (Some(validation), [certificate, ..])
            if Material::is_own(certificate) && !validation.accept_untrusted =>
        {
            mesh(tls, validation, certificate, material)?
        }
        _ => edge(tls, material)?,
    };
    Ok(Arc::new(config))
}

/// A server that shows the proxy's own identity, as of each handshake.
fn mesh(
    tls: &DownstreamTls,
    validation: &Validation,
    certificate: &SecretRef,
    material: &Material<'_>,
) -> Result<ServerConfig, SetupError> {
    let Some(roots) = &validation.trusted else {
        return Err(SetupError::Settings(WITHOUT_ROOTS.into()));
    };
    let cell = material.mutual(certificate, roots)?;
    let auth = if tls.require_client_certificate {
        ClientAuth::Required
    } else {
        ClientAuth::Optional
    };
    let mut list = super::names(&tls.alpn);
    if tls.require_client_certificate && list.contains(&"h2") {
        list.insert(0, alpn::CARRIER);
    }
    let (provider, versions) = (offered(&tls.offer), versions(tls.offer.versions));
    server_config_offering(&cell, auth, peer_names(validation)?, &list, provider, &versions)
        .map_err(|error| SetupError::Settings(error.to_string()))
}

/// A server at the mesh's edge, with certificates of its own.
fn edge(tls: &DownstreamTls, material: &Material<'_>) -> Result<ServerConfig, SetupError> {
    let settings = |error: &dyn std::fmt::Display| SetupError::Settings(error.to_string());
    let mut keys = Vec::new();
    for reference in &tls.certificates {
        let pair = material.pair(reference)?;
        let key = any_supported_type(&pair.key).map_err(|error| settings(&error))?;
        let certified = CertifiedKey::new(pair.chain, key);
        certified
            .keys_match()
            .map_err(|error| SetupError::Settings(format!("certificate and key: {error}")))?;
        keys.push(Arc::new(certified));
    }
    let provider = offered(&tls.offer);
    let clients: Arc<dyn ClientCertVerifier> = match &tls.validation {
        None if tls.require_client_certificate => {
            return Err(SetupError::Settings(WITHOUT_ROOTS.into()));
        }
        None => WebPkiClientVerifier::no_client_auth(),
        Some(validation) => verify::clients(validation, tls.require_client_certificate, material, &provider)?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls.offer.versions))
        .map_err(|error| settings(&error))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(Certificates {
            keys,
            offer: tls.offer.clone(),
        }));
    config.alpn_protocols = tls.alpn.clone();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(config)
}

/// The algorithms to offer.
pub(super) fn offered(offer: &Offer) -> Arc<CryptoProvider> {
    if offer.ciphers.is_none() && offer.curves.is_none() {
        return provider();
    }
    let mut narrowed = CryptoProvider::clone(&provider());
    if let Some(ciphers) = &offer.ciphers {
        let of_13 = narrowed.cipher_suites.iter().copied();
        let mut suites: Vec<SupportedCipherSuite> = of_13
            .filter(|suite| suite.tls13().is_some() && offer.versions.tls13)
            .collect();
        suites.extend(ciphers.iter().map(|cipher| match cipher {
            Cipher::EcdsaAes128 => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            Cipher::EcdsaAes256 => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            Cipher::EcdsaChacha20 => suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            Cipher::RsaAes128 => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            Cipher::RsaAes256 => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            Cipher::RsaChacha20 => suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        }));
        narrowed.cipher_suites = suites;
    }
    if let Some(curves) = &offer.curves {
        let group = |curve: &Curve| match curve {
            Curve::X25519 => kx_group::X25519,
            Curve::P256 => kx_group::SECP256R1,
            Curve::P384 => kx_group::SECP384R1,
            Curve::X25519MlKem768 => kx_group::X25519MLKEM768,
        };
        narrowed.kx_groups = curves.iter().map(group).collect();
    }
    Arc::new(narrowed)
}

/// The versions to offer.
pub(super) fn versions(versions: Versions) -> Vec<&'static SupportedProtocolVersion> {
    let mut list = Vec::new();
    if versions.tls13 {
        list.push(&TLS13);
    }
    if versions.tls12 {
        list.push(&TLS12);
    }
    list
}

/// Shows the first certificate whose key suits the client and the cipher suites that are left to both.
#[derive(Debug)]
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    offer: Offer,
}

impl Certificates {
    /// Suites of TLS 1.2 are for one sort of key, those of TLS 1.3 for any.
    fn usable(&self, key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
        let newer = |suite: &CipherSuite| u16::from(*suite) >> 8 == 0x13;
        if self.offer.versions.tls13 && hello.cipher_suites().iter().any(newer) {
            return true;
        }
        self.offer.ciphers.as_ref().is_none_or(|ciphers| {
            ciphers.iter().any(|cipher| match cipher {
                Cipher::EcdsaAes128 | Cipher::EcdsaAes256 | Cipher::EcdsaChacha20 => {
                    key.key.algorithm() != SignatureAlgorithm::RSA
                }
                Cipher::RsaAes128 | Cipher::RsaAes256 | Cipher::RsaChacha20 => {
                    key.key.algorithm() == SignatureAlgorithm::RSA
                }
            })
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| {
            key.key.choose_scheme(hello.signature_schemes()).is_some() && self.usable(key, &hello)
        };
        self.keys.iter().find(fits).or(self.keys.first()).cloned()
    }
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
