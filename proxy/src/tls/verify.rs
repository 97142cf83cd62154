//! Who a client of a server at the edge must be: its chain leads to trusted roots and is not revoked, and its certificate
//! has one of the names and one of the hashes that are asked for. That the client has the certificate's key is always
//! proven, even where anybody may come.

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{SetupError, material::Material};
use crate::{
    config::{
        matcher::StringMatch,
        transport::{Pins, SanKind, SanMatch, Validation},
    },
    decide::matching,
};

/// The verifier of these settings. A client without a certificate comes only where none is required.
pub fn clients(
    validation: &Validation,
    required: bool,
    material: &Material<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, SetupError> {
    let settings = |error: &dyn std::fmt::Display| SetupError::Settings(error.to_string());
    let chain = match &validation.trusted {
        _ if validation.accept_untrusted => None,
        None => {
            return Err(SetupError::Settings(
                "clients cannot be checked without trusted roots".into(),
            ));
        }
        Some(reference) => {
            let mut store = RootCertStore::empty();
            for root in material.roots(reference)? {
                store.add(root).map_err(|error| settings(&error))?;
            }
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
                .with_crls(material.revoked(validation)?)
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| settings(&error))?;
            Some(chain)
        }
    };
    Ok(Arc::new(Clients {
        chain,
        required,
        names: validation.names.clone(),
        pins: validation.pins.clone(),
        algorithms: provider.signature_verification_algorithms,
    }))
}

#[derive(Debug)]
struct Clients {
    /// `None`: anybody may come.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    required: bool,
    names: Vec<SanMatch>,
    pins: Pins,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain
            .as_ref()
            .map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ClientCertVerified::assertion());
        };
        let verified = chain.verify_client_cert(leaf, intermediates, now)?;
        let refused = |why| Err(Error::InvalidCertificate(why));
        if !(self.names.is_empty() || has_name(&self.names, leaf)) {
            return refused(CertificateError::NotValidForName);
        }
        if !(self.pins.is_empty() || is_pinned(&self.pins, leaf)) {
            return refused(CertificateError::ApplicationVerificationFailure);
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

/// Whether one of the rules takes one of the certificate's names of its kind.
fn has_name(rules: &[SanMatch], leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return false;
    };
    extension.value.general_names.iter().any(|name| {
        let (kind, text) = match name {
            GeneralName::DNSName(name) => (SanKind::Dns, (*name).to_owned()),
            GeneralName::URI(uri) => (SanKind::Uri, (*uri).to_owned()),
            GeneralName::RFC822Name(mail) => (SanKind::Email, (*mail).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(ip) => (SanKind::Ip, ip.to_string()),
                None => return false,
            },
            _ => return false,
        };
        rules
            .iter()
            .any(|rule| rule.kind == kind && takes(&rule.rule, kind, &text))
    })
}

/// A certificate for `*.example.com` is one for each name with one label more.
fn takes(rule: &StringMatch, kind: SanKind, name: &str) -> bool {
    if let (SanKind::Dns, Some(parent), StringMatch::Exact { value, .. }) =
        (kind, name.strip_prefix("*."), rule)
    {
        let wanted = String::from_utf8_lossy(value);
        let below = wanted
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent));
        return below || wanted == name;
    }
    matching::string(rule, name.as_bytes())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Whether one of the hashes is the certificate's, or its key's.
fn is_pinned(pins: &Pins, leaf: &CertificateDer<'_>) -> bool {
    let hash = |bytes: &[u8]| digest(&SHA256, bytes);
    if pins.certificates.iter().any(|pin| pin == hash(leaf).as_ref()) {
        return true;
    }
    X509Certificate::from_der(leaf).is_ok_and(|(_, parsed)| {
        let key = hash(parsed.public_key().raw);
        pins.keys.iter().any(|pin| pin == key.as_ref())
    })
}
