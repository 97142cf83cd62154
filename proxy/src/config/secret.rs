//! Certificates, keys and trust bundles as they came: PEM bytes, in place or in a file that the TLS layer reads.
//! A key never appears in `Debug`.

use std::{fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub name: Arc<str>,
    pub kind: SecretKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretKind {
    Certificate {
        chain: Source,
        key: KeySource,
    },
    /// Trusted roots and revoked certificates; further limits of validation are in `transport::Validation`.
    Validation {
        roots: Source,
        revoked: Option<Source>,
    },
}

/// Bytes, or the file (or environment variable) that has them.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    Inline(Bytes),
    File(PathBuf),
    Environment(Box<str>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// A private key's source.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySource(pub Source);

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Inline(_) => f.write_str("[redacted]"),
            other => other.fmt(f),
        }
    }
}
