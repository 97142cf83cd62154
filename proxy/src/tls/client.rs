//! The upstream side: a cluster's settings become a rustls client. Mirror image of `server`.

use std::sync::Arc;

use mesh_proto::names::alpn;
use mesh_runtime::tls::{client_config, provider};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    SetupError,
    material::{Material, peer_names},
    server::{offered, versions},
};
use crate::config::{
    matcher::StringMatch,
    transport::{SanKind, SanMatch, UpstreamTls, Validation},
};

/// What a connection is for. Inside the mesh's own TLS the application protocols say so, and the server chooses its filter
/// chain by them, so they are offered by what is really sent and not only by what the cluster lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Tcp,
    Http1,
    Http2,
    /// Any HTTP, in HTTP/2 where the server is one of our proxies; the application speaks HTTP/1.1 or HTTP/2.
    Carried {
        http2: bool,
    },
}

impl Purpose {
    fn offers(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &[alpn::TCP],
            Self::Http1 => &[alpn::HTTP_11, "http/1.1"],
            Self::Http2 => &[alpn::HTTP_2, "h2"],
            Self::Carried { http2: false } => &[alpn::CARRIER, alpn::HTTP_11, "http/1.1"],
            Self::Carried { http2: true } => &[alpn::CARRIER, alpn::HTTP_2, "h2"],
        }
    }
}

/// Builds the client side.
pub fn build(
    tls: &UpstreamTls,
    material: &Material<'_>,
    purpose: Purpose,
) -> Result<Arc<ClientConfig>, SetupError> {
    let roots = tls
        .validation
        .as_ref()
        .and_then(|validation| validation.trusted.as_ref());
    let by_uri = tls.validation.as_ref().is_some_and(|validation| {
        validation.names.iter().all(|name| name.kind == SanKind::Uri)
            && validation.revoked.is_none()
            && !validation.accept_untrusted
    });
    let config = match (roots, tls.certificates.first()) {
        (Some(roots), Some(certificate)) if by_uri => {
            let cell = material.mutual(certificate, roots)?;
            let names = tls
                .validation
                .as_ref()
                .map(peer_names)
                .transpose()?
                .unwrap_or_default();
            let list = if is_mesh(tls) {
                purpose.offers().to_vec()
            } else {
                super::names(&tls.alpn)
            };
            client_config(&cell, names, &list).map_err(|error| SetupError::Settings(error.to_string()))?
        }
        _ => one_sided(tls, material)?,
    };
    Ok(Arc::new(config))
}

/// Is this the mesh's own TLS: our identity, and application protocols of the mesh?
pub fn is_mesh(tls: &UpstreamTls) -> bool {
    let ours = tls.certificates.first().is_some_and(Material::is_own);
    ours && super::names(&tls.alpn)
        .iter()
        .any(|name| name.starts_with(alpn::TCP))
}

/// TLS to servers outside the mesh: the server is checked by its DNS name, or not at all where no roots are named.
fn one_sided(tls: &UpstreamTls, material: &Material<'_>) -> Result<ClientConfig, SetupError> {
    let settings = |error: &dyn std::fmt::Display| SetupError::Settings(error.to_string());
    let roots = tls
        .validation
        .as_ref()
        .and_then(|validation| validation.trusted.as_ref());
    let algorithms = provider().signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match roots {
        Some(_) if tls.validation.as_ref().is_some_and(|own| own.accept_untrusted) => {
            Arc::new(Unchecked(algorithms))
        }
        None => Arc::new(Unchecked(algorithms)),
        Some(reference) => {
            let mut store = RootCertStore::empty();
            for root in material.roots(reference)? {
                store.add(root).map_err(|error| settings(&error))?;
            }
            let revoked = tls.validation.as_ref().map(|own| material.revoked(own));
            let revoked = revoked.transpose()?.unwrap_or_default();
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
                .with_crls(revoked)
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| settings(&error))?;
            Arc::new(ByName {
                inner,
                names: dns_names(tls.validation.as_ref())?,
            })
        }
    };
    let builder = ClientConfig::builder_with_provider(offered(&tls.offer))
        .with_protocol_versions(&versions(tls.offer.versions))
        .map_err(|error| settings(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match tls.certificates.first() {
        None => builder.with_no_client_auth(),
        Some(reference) => {
            let pair = material.pair(reference)?;
            builder
                .with_client_auth_cert(pair.chain, pair.key)
                .map_err(|error| settings(&error))?
        }
    };
    config.alpn_protocols = tls.alpn.clone();
    config.enable_sni = !tls.sni.is_empty() || tls.auto_host_sni;
    Ok(config)
}

/// The DNS names one of which the server must have; empty: the name that was asked for.
fn dns_names(validation: Option<&Validation>) -> Result<Vec<ServerName<'static>>, SetupError> {
    let mut names = Vec::new();
    for SanMatch { kind, rule } in validation.iter().flat_map(|validation| &validation.names) {
        let StringMatch::Exact { value, .. } = rule else {
            return Err(SetupError::Settings(
                "a server's DNS name must be given exactly".into(),
            ));
        };
        if !matches!(kind, SanKind::Dns | SanKind::Ip) {
            return Err(SetupError::Settings(format!(
                "{kind:?} names need a client certificate and roots"
            )));
        }
        let text = String::from_utf8_lossy(value).into_owned();
        names.push(ServerName::try_from(text).map_err(|error| SetupError::Settings(error.to_string()))?);
    }
    Ok(names)
}

/// Checks the chain, and the certificate for one of these names.
#[derive(Debug)]
struct ByName {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.names.is_empty() {
            return self.inner.verify_server_cert(leaf, chain, asked, ocsp, now);
        }
        let mut result = Err(Error::General("no name to check".into()));
        for name in &self.names {
            result = self.inner.verify_server_cert(leaf, chain, name, ocsp, now);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// No roots were given: the connection is encrypted, the server is not checked. That is Envoy's behaviour, and the
/// finding IST0128 warns of it.
#[derive(Debug)]
struct Unchecked(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
