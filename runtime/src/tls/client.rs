//! The client side: configurations that show the cell's certificate when asked for one, and prove the server by its
//! chain and URI names. Mirror image of `server`.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{IdentityCell, PeerNames, TlsError, cell::Trust, provider, uri_sans};

/// Servers whose sessions one configuration remembers.
const REMEMBERED_SERVERS: usize = 64;

/// The server's certificate is not that of an accepted identity.
#[derive(Clone, Debug, thiserror::Error)]
#[error("peer is {found:?}, expected {expected:?}")]
pub(super) struct WrongPeer {
    pub found: Vec<String>,
    pub expected: PeerNames,
}

impl WrongPeer {
    pub fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// A client that shows the cell's certificate and trusts the cell's roots, both as of each handshake.
pub fn client_config(cell: &IdentityCell, peer: PeerNames, alpn: &[&str]) -> Result<ClientConfig, TlsError> {
    build(Source::Cell(cell.clone()), Some(cell.clone()), peer, alpn)
}

/// A client that trusts fixed roots; for the first call to the authority. It shows the certificate of `cell`, if any.
pub fn client_config_with_roots(
    roots: &[CertificateDer<'static>],
    cell: Option<&IdentityCell>,
    peer: PeerNames,
    alpn: &[&str],
) -> Result<ClientConfig, TlsError> {
    build(
        Source::Fixed(Arc::new(Trust::new(roots)?)),
        cell.cloned(),
        peer,
        alpn,
    )
}

fn build(
    source: Source,
    cell: Option<IdentityCell>,
    peer: PeerNames,
    alpn: &[&str],
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier {
        source,
        peer,
        algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match cell {
        Some(cell) => builder.with_client_cert_resolver(Arc::new(Resolver(cell))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS);
    Ok(config)
}

#[derive(Debug)]
enum Source {
    Cell(IdentityCell),
    Fixed(Arc<Trust>),
}

#[derive(Debug)]
struct Verifier {
    source: Source,
    peer: PeerNames,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let check = |trust: &Trust| {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &trust.roots, intermediates, now, algorithms)
        };
        match &self.source {
            Source::Fixed(trust) => check(trust),
            Source::Cell(cell) => match cell.current().as_ref() {
                Some(current) => check(&current.trust),
                None => Err(Error::General(
                    "no roots to trust yet: this process has no identity".into(),
                )),
            },
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chain(leaf, intermediates, now)?;
        if self.peer != PeerNames::Any {
            let found = uri_sans(leaf);
            if !self.peer.accept(&found) {
                return Err(WrongPeer {
                    found,
                    expected: self.peer.clone(),
                }
                .into_error());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Resolver(IdentityCell);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current().as_ref().map(|current| current.certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.0.current().is_some()
    }
}
