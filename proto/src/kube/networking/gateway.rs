//! Gateway: what the proxies at the mesh's edge listen for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kube::{Kind, Resource, schema::rule};

/// Ports and hosts that gateway workloads serve.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// What is listened for.
    #[schemars(length(max = 4096))]
    pub servers: Vec<Server>,
    /// Labels of the gateway workloads.
    pub selector: BTreeMap<String, String>,
}

impl Resource for Gateway {
    const KIND: Kind = Kind::Gateway;
}

/// A port, and hosts on it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port", "hosts"], "x-kubernetes-validations" = [rule::cel(
    "!has(self.port.protocol) || !(self.port.protocol in ['HTTPS', 'TLS']) || has(self.tls)",
    "HTTPS and TLS need tls: say mode and credentialName, or mode PASSTHROUGH",
)]))]
pub struct Server {
    /// The port to listen on.
    #[schemars(extend("required" = ["number", "protocol", "name"]))]
    pub port: Option<Port>,
    /// The address to listen on. None: all.
    pub bind: String,
    /// Hosts, with or without a wildcard as first label, each with the namespace of its VirtualServices before a slash
    /// if only these may serve it.
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// Encryption.
    pub tls: Option<ServerTls>,
    /// Never had an effect.
    pub default_endpoint: String,
    /// A name of its own among the servers.
    pub name: String,
}

/// A port of a Gateway's server or of a Sidecar's listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// 1 to 65535; 0 with a Unix socket.
    #[schemars(transform = rule::port_or_none)]
    pub number: u32,
    /// What is spoken: HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, MYSQL, REDIS.
    #[schemars(length(max = 256))]
    pub protocol: String,
    /// A name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Never had an effect here.
    #[schemars(transform = rule::port_or_none)]
    pub target_port: Option<u32>,
}

/// TLS as a server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule::at_most_one(&["credentialName", "credentialNames"]),
    rule::at_most_one(&["credentialName", "tlsCertificates"]),
    rule::at_most_one(&["credentialNames", "tlsCertificates"]),
]))]
pub struct ServerTls {
    /// Clients in plain text are sent to the https address.
    pub https_redirect: bool,
    /// `SIMPLE`: a certificate for clients; `MUTUAL`: and one asked of them; `OPTIONAL_MUTUAL`: verified if they have one;
    /// `PASSTHROUGH`: not decrypted; `AUTO_PASSTHROUGH`: not decrypted, by server name alone; `ISTIO_MUTUAL`: the mesh's own.
    pub mode: Option<ServerTlsMode>,
    /// A file with the server's certificate chain.
    pub server_certificate: String,
    /// A file with its key.
    pub private_key: String,
    /// A file with the authorities that clients' certificates are verified by.
    pub ca_certificates: String,
    /// A file with revoked certificates.
    pub ca_crl: String,
    /// A Secret with key and certificate (and authorities) in the gateway's namespace.
    pub credential_name: String,
    /// As `credentialName`, for certificates of two kinds of keys (RSA and ECDSA).
    #[schemars(length(min = 1, max = 2))]
    pub credential_names: Vec<String>,
    /// A Secret or ConfigMap with the authorities alone.
    pub ca_cert_credential_name: String,
    /// As files, for certificates of two kinds of keys (RSA and ECDSA).
    #[schemars(length(min = 1, max = 2))]
    pub tls_certificates: Vec<CertificateFiles>,
    /// Names of which a client's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Base64 of SHA-256 hashes of keys that clients' certificates may have.
    pub verify_certificate_spki: Vec<String>,
    /// Hex of SHA-256 hashes that clients' certificates may have.
    pub verify_certificate_hash: Vec<String>,
    /// The oldest version of TLS that is spoken. None: 1.2.
    pub min_protocol_version: Option<TlsVersion>,
    /// The newest version of TLS that is spoken. None: 1.3.
    pub max_protocol_version: Option<TlsVersion>,
    /// Cipher suites up to TLS 1.2, by OpenSSL's names.
    pub cipher_suites: Vec<String>,
    /// Curves for the exchange of keys, by preference.
    pub ecdh_curves: Vec<String>,
    /// A client whose certificate fails verification is let in all the same.
    pub insecure_skip_verify: Option<bool>,
}

/// A certificate and its key as files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateFiles {
    /// A file with the server's certificate chain.
    pub server_certificate: String,
    /// A file with its key.
    pub private_key: String,
    /// A file with the authorities that clients' certificates are verified by.
    pub ca_certificates: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V1_0,
    #[serde(rename = "TLSV1_1")]
    V1_1,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
