//! The server side: configurations that show the cell's certificate and prove clients by chain and URI names.
//! Mirror image of `client`.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoClientAuth, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{IdentityCell, PeerNames, TlsError, client::WrongPeer, provider, session::Sessions, uri_sans};

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    None,
    /// Shown certificates are checked; none is fine.
    Optional,
    Required,
}

/// A server with the cell's certificate. Clients are checked against the cell's roots and `peer`.
pub fn server_config(
    cell: &IdentityCell,
    auth: ClientAuth,
    peer: PeerNames,
    alpn: &[&str],
) -> Result<ServerConfig, TlsError> {
    server_config_offering(cell, auth, peer, alpn, provider(), rustls::DEFAULT_VERSIONS)
}

/// As [`server_config`], with these algorithms and versions alone.
pub fn server_config_offering(
    cell: &IdentityCell,
    auth: ClientAuth,
    peer: PeerNames,
    alpn: &[&str],
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let algorithms = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ClientCertVerifier> = match auth {
        ClientAuth::None => Arc::new(NoClientAuth),
        ClientAuth::Optional | ClientAuth::Required => {
            let mandatory = auth == ClientAuth::Required;
            Arc::new(Verifier {
                cell: cell.clone(),
                mandatory,
                peer,
                algorithms,
            })
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Resolver(cell.clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(Sessions::new(cell.clone()));
    // Connections inside the mesh live long: one ticket is enough to come back.
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[derive(Debug)]
struct Resolver(IdentityCell);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current().as_ref().map(|current| current.certified.clone())
    }
}

#[derive(Debug)]
struct Verifier {
    cell: IdentityCell,
    mandatory: bool,
    peer: PeerNames,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: the roots may change while this configuration lives, and mesh clients have one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.cell.current().as_ref() {
            Some(current) => current
                .trust
                .clients
                .verify_client_cert(leaf, intermediates, now)?,
            None => {
                return Err(Error::General(
                    "no roots to trust yet: this process has no identity".into(),
                ));
            }
        };
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
        Ok(verified)
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
