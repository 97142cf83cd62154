//! Gateways: what a gateway's proxy listens for.

use std::fmt;

use super::{Host, Key, Origin, Protocol, Selector};

/// Where a route applies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// `mesh`: all sidecars.
    Mesh,
    Gateway(Key),
}

impl fmt::Display for GatewayRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Gateway(key) => key.fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    pub origin: Origin,
    /// Workloads that serve it, of all namespaces. The empty selector takes every gateway, never a sidecar.
    pub selector: Selector,
    pub servers: Vec<Server>,
}

impl Gateway {
    pub fn reference(&self) -> GatewayRef {
        GatewayRef::Gateway(self.origin.key())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Empty when unnamed.
    pub name: String,
    pub port: u16,
    pub port_name: String,
    pub protocol: Protocol,
    pub bind: Option<std::net::IpAddr>,
    pub hosts: Vec<ServerHost>,
    pub tls: Option<ServerTls>,
}

impl Server {
    /// Does it look into HTTP (plain or after TLS ended here)?
    pub fn is_http(&self) -> bool {
        self.protocol.is_http() || (self.protocol == Protocol::Https && self.terminates_tls())
    }

    pub fn terminates_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            !matches!(
                tls.mode,
                ServerTlsMode::None | ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
            )
        })
    }

    /// The hosts of `route_hosts` that a VirtualService of `namespace` may serve here, each narrowed to what both
    /// stand for.
    pub fn admits<'a>(
        &'a self,
        namespace: &'a str,
        gateway_namespace: &'a str,
        host: &'a Host,
    ) -> Vec<&'a Host> {
        let mut narrowed: Vec<&Host> = self
            .hosts
            .iter()
            .filter(|server| server.scope.allows(gateway_namespace, namespace) && server.host.overlaps(host))
            .map(|server| server.host.narrower(host))
            .collect();
        narrowed.sort_unstable();
        narrowed.dedup();
        narrowed
    }
}

/// `namespace/host` of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerHost {
    pub scope: HostScope,
    pub host: Host,
}

/// VirtualServices of which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostScope {
    Any,
    /// `.`: the gateway's own.
    Own,
    Namespace(String),
}

impl HostScope {
    pub fn allows(&self, own: &str, namespace: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Own => own == namespace,
            Self::Namespace(name) => name == namespace,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerTls {
    pub mode: ServerTlsMode,
    /// HTTP answers with 301 to https.
    pub https_redirect: bool,
    /// Secrets of the gateway workload's namespace, in order; not empty for SIMPLE and MUTUAL unless files are given.
    pub credentials: Vec<String>,
    /// Certificate chains and their keys, in files of the gateway's pods.
    pub files: Vec<(String, String)>,
    pub clients: Clients,
    pub minimum: Option<TlsVersion>,
    pub maximum: Option<TlsVersion>,
    /// OpenSSL names; TLS up to 1.2 only.
    pub cipher_suites: Vec<String>,
    /// By preference.
    pub curves: Vec<String>,
}

/// How clients are verified, where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Clients {
    /// The Secret with the authorities; else that of the first credential counts.
    pub ca_credential: Option<String>,
    /// A file with the authorities.
    pub ca_certificates: Option<String>,
    /// A file with revoked certificates.
    pub revoked: Option<String>,
    pub subject_alt_names: Vec<String>,
    /// SHA-256 in Base64, and in hexadecimal digits.
    pub key_hashes: Vec<String>,
    pub certificate_hashes: Vec<String>,
    /// Any certificate will do.
    pub accept_untrusted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerTlsMode {
    /// Only `httpsRedirect` was wanted.
    #[default]
    None,
    Simple,
    Mutual,
    OptionalMutual,
    /// By server name, not ended here; a VirtualService's `tls` routes say where.
    Passthrough,
    /// By a server name of the mesh's form.
    AutoPassthrough,
    /// With the mesh's own certificate.
    MeshMutual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}
