//! The downstream side: a filter chain's settings become a rustls server. Mirror image of `client`.

use std::sync::Arc;

use mesh_proto::names::alpn;
use mesh_runtime::tls::{ClientAuth, provider, server_config};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    SetupError,
    material::{Material, Pair, peer_names},
};
use crate::config::transport::{DownstreamTls, Versions};

/// Sessions remembered for resumption.
const SESSIONS: usize = 1024;

/// Builds the server side.
pub fn build(tls: &DownstreamTls, material: &Material<'_>) -> Result<Arc<ServerConfig>, SetupError> {
    let roots = tls
        .validation
        .as_ref()
        .and_then(|validation| validation.trusted.as_ref());
    let config = match (roots, tls.certificates.as_slice()) {
        (_, []) => {
            return Err(SetupError::Settings(
                "a TLS filter chain needs a certificate".into(),
            ));
        }
        (Some(roots), [certificate, ..]) => {
            let cell = material.mutual(certificate, roots)?;
            let auth = if tls.require_client_certificate {
                ClientAuth::Required
            } else {
                ClientAuth::Optional
            };
            let names = tls
                .validation
                .as_ref()
                .map(peer_names)
                .transpose()?
                .unwrap_or_default();
            let mut list = super::names(&tls.alpn);
            if tls.require_client_certificate && Material::is_own(certificate) && list.contains(&"h2") {
                list.insert(0, alpn::CARRIER);
            }
            server_config(&cell, auth, names, &list)
                .map_err(|error| SetupError::Settings(error.to_string()))?
        }
        (None, certificates) => one_sided(tls, certificates.iter().map(|one| material.pair(one)))?,
    };
    Ok(Arc::new(config))
}

/// A server that does not ask who the client is.
fn one_sided(
    tls: &DownstreamTls,
    pairs: impl Iterator<Item = Result<Pair, SetupError>>,
) -> Result<ServerConfig, SetupError> {
    if tls.require_client_certificate {
        let why = "require_client_certificate needs validation_context.trusted_ca";
        return Err(SetupError::Settings(why.into()));
    }
    let mut keys = Vec::new();
    for pair in pairs {
        let pair = pair?;
        let key = any_supported_type(&pair.key).map_err(|error| SetupError::Settings(error.to_string()))?;
        let certified = CertifiedKey::new(pair.chain, key);
        certified
            .keys_match()
            .map_err(|error| SetupError::Settings(format!("certificate and key: {error}")))?;
        keys.push(Arc::new(certified));
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(tls.versions))
        .map_err(|error| SetupError::Settings(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = tls.alpn.clone();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(config)
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

/// Shows the first certificate whose key suits the client.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}
