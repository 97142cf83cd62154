//! Finds what TLS settings name: the proxy's own identity, secrets that pilot sent, certificates in the configuration or
//! in files.

use std::{collections::HashMap, fs, sync::Arc, time::SystemTime};

use mesh_runtime::tls::{Identity, IdentityCell, PeerNames, read_certificates, read_key};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};

use super::SetupError;
use crate::config::{
    matcher::StringMatch,
    secret::{Secret, SecretKind, Source},
    transport::{SanKind, SanMatch, SdsSource, SecretRef, Validation},
};

/// Secrets by name, as the snapshot holds them.
pub type Secrets = HashMap<Arc<str>, Arc<Secret>>;

/// Where certificates come from for one side of one connection.
pub struct Material<'a> {
    pub own: &'a IdentityCell,
    pub secrets: &'a Secrets,
}

/// A chain and its key.
pub struct Pair {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Material<'_> {
    /// Is this the proxy's own identity (or its roots)?
    pub fn is_own(reference: &SecretRef) -> bool {
        matches!(
            reference,
            SecretRef::Sds {
                source: SdsSource::Cluster(_),
                ..
            }
        )
    }

    fn secret(&self, reference: &SecretRef) -> Result<Arc<Secret>, SetupError> {
        match reference {
            SecretRef::Inline(secret) => Ok(secret.clone()),
            SecretRef::Sds { name, .. } => self
                .secrets
                .get(name)
                .cloned()
                .ok_or_else(|| SetupError::Missing(name.to_string())),
        }
    }

    pub fn pair(&self, reference: &SecretRef) -> Result<Pair, SetupError> {
        let secret = self.secret(reference)?;
        let wrong = |why: String| SetupError::Secret {
            name: secret.name.to_string(),
            why,
        };
        let SecretKind::Certificate { chain, key } = &secret.kind else {
            return Err(wrong("is a trust bundle where a certificate is needed".into()));
        };
        let chain =
            read_certificates(&read(chain).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
        let key = read_key(&read(&key.0).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
        Ok(Pair { chain, key })
    }

    pub fn roots(&self, reference: &SecretRef) -> Result<Vec<CertificateDer<'static>>, SetupError> {
        if Self::is_own(reference) {
            let own = self.own.get();
            return own
                .map(|own| own.roots.clone())
                .ok_or_else(|| SetupError::Missing("ROOTCA".into()));
        }
        let secret = self.secret(reference)?;
        let wrong = |why: String| SetupError::Secret {
            name: secret.name.to_string(),
            why,
        };
        let SecretKind::Validation { roots, .. } = &secret.kind else {
            return Err(wrong("is a certificate where a trust bundle is needed".into()));
        };
        read_certificates(&read(roots).map_err(wrong)?).map_err(|error| wrong(error.to_string()))
    }

    /// The lists of revoked certificates that count: the settings' own, and that of the secret with the roots.
    pub fn revoked(
        &self,
        validation: &Validation,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, SetupError> {
        let mut sources: Vec<Source> = validation.revoked.iter().cloned().collect();
        if let Some(reference) = validation.trusted.as_ref().filter(|one| !Self::is_own(one))
            && let SecretKind::Validation { revoked, .. } = &self.secret(reference)?.kind
        {
            sources.extend(revoked.clone());
        }
        let mut lists = Vec::new();
        for source in &sources {
            let wrong = |why: String| SetupError::Settings(format!("revoked certificates: {why}"));
            let pem = read(source).map_err(wrong)?;
            let before = lists.len();
            for list in CertificateRevocationListDer::pem_slice_iter(&pem) {
                lists.push(list.map_err(|error| wrong(error.to_string()))?);
            }
            if lists.len() == before {
                return Err(wrong(format!("{source:?} holds no X509 CRL in PEM")));
            }
        }
        Ok(lists)
    }

    /// The identity for mutual TLS: the proxy's own cell, or one made of the certificate and roots that are named.
    pub fn mutual(&self, certificate: &SecretRef, roots: &SecretRef) -> Result<IdentityCell, SetupError> {
        if Self::is_own(certificate) && Self::is_own(roots) {
            return Ok(self.own.clone());
        }
        let cell = IdentityCell::new();
        let settings = |error: mesh_runtime::tls::TlsError| SetupError::Settings(error.to_string());
        let identity = match (Self::is_own(certificate), Self::is_own(roots)) {
            (true, _) => {
                let own = self
                    .own
                    .get()
                    .ok_or_else(|| SetupError::Missing("default".into()))?;
                own.with_roots(self.roots(roots)?)
            }
            (false, own_roots) => {
                let pair = self.pair(certificate)?;
                let roots = if own_roots {
                    self.own
                        .get()
                        .ok_or_else(|| SetupError::Missing("ROOTCA".into()))?
                        .roots
                        .clone()
                } else {
                    self.roots(roots)?
                };
                Identity::new(pair.chain, pair.key, roots).map_err(settings)?
            }
        };
        cell.set(identity).map_err(settings)?;
        Ok(cell)
    }
}

/// Reads a source. Files are read at each new configuration; they are small and local.
fn read(source: &Source) -> Result<Vec<u8>, String> {
    match source {
        Source::Inline(bytes) => Ok(bytes.to_vec()),
        Source::File(path) => {
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        }
        Source::Environment(name) => std::env::var(&**name)
            .map(String::into_bytes)
            .map_err(|error| format!("environment variable {name}: {error}")),
    }
}

/// When a file-based certificate changed last; other sources never change by themselves.
pub fn modified(reference: &SecretRef) -> Option<SystemTime> {
    let SecretRef::Inline(secret) = reference else {
        return None;
    };
    match &secret.kind {
        SecretKind::Certificate { chain, .. } => changed(chain),
        SecretKind::Validation { roots, revoked } => changed(roots).max(revoked.as_ref().and_then(changed)),
    }
}

/// When a source changed last, if it is a file.
pub fn changed(source: &Source) -> Option<SystemTime> {
    let Source::File(path) = source else { return None };
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The rule over a peer's URI names.
pub fn peer_names(validation: &Validation) -> Result<PeerNames, SetupError> {
    let mut exact = Vec::new();
    for SanMatch { kind, rule } in &validation.names {
        if *kind != SanKind::Uri {
            return Err(SetupError::Settings(format!(
                "{kind:?} names cannot be checked on mutual TLS, only URI names"
            )));
        }
        match rule {
            StringMatch::Exact {
                value,
                ignore_case: false,
            } => exact.push(String::from_utf8_lossy(value).into_owned()),
            StringMatch::Prefix {
                value,
                ignore_case: false,
            } if validation.names.len() == 1 => {
                return Ok(PeerNames::Prefix(String::from_utf8_lossy(value).into_owned()));
            }
            StringMatch::Any => return Ok(PeerNames::Any),
            _ => {
                let why = "peer names can be exact, or one prefix".to_owned();
                return Err(SetupError::Settings(why));
            }
        }
    }
    Ok(if exact.is_empty() {
        PeerNames::Any
    } else {
        PeerNames::Exact(exact)
    })
}
