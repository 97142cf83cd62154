//! Why a request for a certificate is refused: each reason has a gRPC code, a word for metrics and a text that tells
//! the caller what to do. Nothing secret is in a text: never a token, never a key.

use tonic::{Code, Status};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "no credentials: send the platform's token as \"authorization: Bearer ...\" or use a current client certificate"
    )]
    NoCredentials,
    #[error("authorization header is not \"Bearer <token>\"")]
    Header,
    #[error("token: {0}")]
    Token(String),
    #[error("client certificate: {0}")]
    Certificate(String),
    #[error("{0}")]
    NotAllowed(String),
    #[error("signing request: {0}")]
    Csr(String),
    #[error("validity_duration {0} s is negative")]
    Duration(i64),
    #[error("too many requests of {caller}; the next is accepted in {wait} s")]
    Rate { caller: String, wait: u64 },
    #[error("citadel is busy; try again")]
    Busy,
    #[error("keys of the token issuer cannot be read, so no token can be checked: {0}")]
    Keys(String),
    #[error("the token cannot be checked now: {0}")]
    Review(String),
    #[error("certificate could not be signed: {0}")]
    Signing(String),
}

impl Refusal {
    pub fn code(&self) -> Code {
        match self {
            Self::NoCredentials | Self::Header | Self::Token(_) | Self::Certificate(_) => {
                Code::Unauthenticated
            }
            Self::NotAllowed(_) => Code::PermissionDenied,
            Self::Csr(_) | Self::Duration(_) => Code::InvalidArgument,
            Self::Rate { .. } => Code::ResourceExhausted,
            Self::Busy | Self::Keys(_) | Self::Review(_) => Code::Unavailable,
            Self::Signing(_) => Code::Internal,
        }
    }

    /// The label in `mesh_citadel_refused_total{reason}`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Header => "header",
            Self::Token(_) => "token",
            Self::Certificate(_) => "certificate",
            Self::NotAllowed(_) => "not_allowed",
            Self::Csr(_) => "csr",
            Self::Duration(_) => "duration",
            Self::Rate { .. } => "rate",
            Self::Busy => "busy",
            Self::Keys(_) => "keys",
            Self::Review(_) => "token_review",
            Self::Signing(_) => "signing",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}
