//! Certificates and keys of gateways, from Secrets.

use std::fmt;

use super::Origin;

/// What a Secret of type `kubernetes.io/tls` (or Istio's generic form) holds, as PEM. Parsed when it was made.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    pub origin: Origin,
    /// Certificate chain, the leaf first. Empty in a Secret that holds only a CA.
    pub certificate: Vec<u8>,
    pub private_key: Vec<u8>,
    /// `ca.crt` or `cacert`, for MUTUAL.
    pub ca_certificates: Option<Vec<u8>>,
    /// `ca.crl`: certificates that the authorities have revoked.
    pub revoked: Option<Vec<u8>>,
}

/// Never shows the key.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("origin", &self.origin)
            .field("certificate", &format_args!("{} bytes", self.certificate.len()))
            .field("ca_certificates", &self.ca_certificates.is_some())
            .finish_non_exhaustive()
    }
}
