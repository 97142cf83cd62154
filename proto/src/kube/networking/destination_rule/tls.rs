//! Encryption towards a destination.

use schemars::JsonSchema;
use serde::Deserialize;

/// TLS as a client.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// `DISABLE`: plain text; `SIMPLE`: TLS; `MUTUAL`: with a certificate of yours; `ISTIO_MUTUAL`: with the mesh's.
    pub mode: ClientTlsMode,
    /// `MUTUAL`: a file with the client's certificate chain.
    pub client_certificate: String,
    /// `MUTUAL`: a file with its key.
    pub private_key: String,
    /// A file with the authorities that the server's certificate is verified by.
    pub ca_certificates: String,
    /// A file with revoked certificates.
    pub ca_crl: String,
    /// A Secret with key, certificate and authorities, in place of files.
    pub credential_name: String,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// The server name to ask for. None: the destination's.
    pub sni: String,
    /// The server's certificate is not verified.
    pub insecure_skip_verify: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

impl ClientTlsMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Simple => "SIMPLE",
            Self::Mutual => "MUTUAL",
            Self::IstioMutual => "ISTIO_MUTUAL",
        }
    }
}
