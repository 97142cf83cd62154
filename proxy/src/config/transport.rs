//! TLS settings of both sides. The certificates themselves are [`super::secret`]s; here are the references to them.

use std::{sync::Arc, time::Duration};

use super::{matcher::StringMatch, secret::Secret};

/// How a chain's connections are secured.
#[derive(Clone, Debug)]
pub struct DownstreamTls {
    /// The first that fits the server name and the algorithms is shown.
    pub certificates: Vec<SecretRef>,
    pub validation: Option<Validation>,
    pub require_client_certificate: bool,
    /// In order of preference; empty: no ALPN.
    pub alpn: Vec<Vec<u8>>,
    pub versions: Versions,
    pub session_tickets: bool,
    pub session_timeout: Option<Duration>,
}

/// How connections to a cluster are secured.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub certificates: Vec<SecretRef>,
    pub validation: Option<Validation>,
    pub alpn: Vec<Vec<u8>>,
    pub versions: Versions,
    /// Empty: none is sent.
    pub sni: Arc<str>,
    /// Send the endpoint's host name instead.
    pub auto_host_sni: bool,
    /// Check the server's certificate for the name that was sent.
    pub auto_sni_san: bool,
}

/// How the peer's certificate is checked. `trusted` missing: the peer is not checked at all.
#[derive(Clone, Debug)]
pub struct Validation {
    pub trusted: Option<SecretRef>,
    /// One of these must match one of the certificate's names; empty: any name.
    pub names: Vec<SanMatch>,
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
