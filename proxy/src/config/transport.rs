//! TLS settings of both sides. The certificates themselves are [`super::secret`]s; here are the references to them.

use std::{sync::Arc, time::Duration};

use super::{
    matcher::StringMatch,
    secret::{Secret, Source},
};

/// How a chain's connections are secured.
#[derive(Clone, Debug)]
pub struct DownstreamTls {
    /// The first that fits the server name and the algorithms is shown.
    pub certificates: Vec<SecretRef>,
    pub validation: Option<Validation>,
    pub require_client_certificate: bool,
    /// In order of preference; empty: no ALPN.
    pub alpn: Vec<Vec<u8>>,
    pub offer: Offer,
    pub session_tickets: bool,
    pub session_timeout: Option<Duration>,
}

/// How connections to a cluster are secured.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub certificates: Vec<SecretRef>,
    pub validation: Option<Validation>,
    pub alpn: Vec<Vec<u8>>,
    pub offer: Offer,
    /// Empty: none is sent.
    pub sni: Arc<str>,
    /// Send the endpoint's host name instead.
    pub auto_host_sni: bool,
    /// Check the server's certificate for the name that was sent.
    pub auto_sni_san: bool,
}

/// How the peer's certificate is checked. `trusted` missing: the peer is not checked at all.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    pub trusted: Option<SecretRef>,
    /// One of these must match one of the certificate's names; empty: any name.
    pub names: Vec<SanMatch>,
    /// Revoked certificates, besides those that the trusted secret brings.
    pub revoked: Option<Source>,
    pub pins: Pins,
    /// A peer whose certificate fails any of this may come all the same; then it counts as nobody.
    pub accept_untrusted: bool,
}

/// SHA-256 of certificates, or of their keys, one of which the peer must have; both empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    pub certificates: Vec<[u8; 32]>,
    pub keys: Vec<[u8; 32]>,
}

impl Pins {
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.keys.is_empty()
    }
}

#[derive(Clone, Debug)]
pub struct SanMatch {
    pub kind: SanKind,
    pub rule: StringMatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanKind {
    Uri,
    Dns,
    Ip,
    Email,
}

/// Where a certificate, or a trust bundle, comes from.
#[derive(Clone, Debug)]
pub enum SecretRef {
    /// By name: from the secret service, or from the proxy's own identity.
    Sds { name: Arc<str>, source: SdsSource },
    /// In the configuration itself (or in files it names).
    Inline(Arc<Secret>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SdsSource {
    /// On the stream that all other configuration comes on.
    Ads,
    /// From another service, named by its cluster; `sds-grpc` is the proxy's own identity.
    Cluster(Arc<str>),
    /// Among the static secrets of the bootstrap.
    Static,
}

impl SecretRef {
    /// The name of the secret, if it comes by name.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Sds { name, .. } => Some(name),
            Self::Inline(_) => None,
        }
    }
}

/// What is offered to the peer, each by preference; missing: everything that is safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub versions: Versions,
    /// Of TLS 1.2.
    pub ciphers: Option<Vec<Cipher>>,
    pub curves: Option<Vec<Curve>>,
}

/// The cipher suites of TLS 1.2 that have forward secrecy and authenticate what they encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    EcdsaAes128,
    EcdsaAes256,
    EcdsaChacha20,
    RsaAes128,
    RsaAes256,
    RsaChacha20,
}

impl Cipher {
    /// By OpenSSL's name. `None`: it is not spoken.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ECDHE-ECDSA-AES128-GCM-SHA256" => Self::EcdsaAes128,
            "ECDHE-ECDSA-AES256-GCM-SHA384" => Self::EcdsaAes256,
            "ECDHE-ECDSA-CHACHA20-POLY1305" => Self::EcdsaChacha20,
            "ECDHE-RSA-AES128-GCM-SHA256" => Self::RsaAes128,
            "ECDHE-RSA-AES256-GCM-SHA384" => Self::RsaAes256,
            "ECDHE-RSA-CHACHA20-POLY1305" => Self::RsaChacha20,
            _ => return None,
        })
    }
}

/// How keys are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

impl Curve {
    /// By OpenSSL's name. `None`: it is not spoken.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "X25519" => Self::X25519,
            "P-256" => Self::P256,
            "P-384" => Self::P384,
            "X25519MLKEM768" => Self::X25519MlKem768,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versions {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}
