//! A proven caller: its name, and how it was proven.

use mesh_proto::identity::SpiffeId;
use serde::Serialize;

/// Who asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
    pub proof: Proof,
}

/// How a caller was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "proof")]
pub enum Proof {
    /// By a token of the platform, bound to this pod if it says so.
    Token { pod: Option<String> },
    /// By a current certificate of this mesh.
    Certificate,
}

impl Proof {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Certificate => "certificate",
        }
    }
}
