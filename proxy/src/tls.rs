//! TLS on both sides of the proxy. `server` and `client` are mirror images: each turns the settings of a filter chain or
//! a cluster into a rustls configuration; `material` finds the certificates they name; `verify` checks clients of servers
//! at the edge; `resolve` keeps the results, one
//! set per worker, so that a handshake costs a look-up and a rotation of certificates costs nothing.
//!
//! The proxy's own identity is read from its cell at every handshake. Certificates from secrets are compared by
//! pointer: a new secret makes a new configuration at the next handshake; connections in flight keep theirs.

pub mod client;
pub mod material;
pub mod resolve;
pub mod server;
mod verify;

/// Why TLS cannot be set up as configured.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SetupError {
    #[error("secret {0:?} has not arrived yet")]
    Missing(String),
    #[error("secret {name:?}: {why}")]
    Secret { name: String, why: String },
    #[error("{0}")]
    Settings(String),
}

/// The application protocol that stands for "HTTP/2 frames between two of our proxies".
pub(crate) fn is_carrier(alpn: Option<&[u8]>) -> bool {
    alpn == Some(mesh_proto::names::alpn::CARRIER.as_bytes())
}

/// ALPN lists are bytes on the wire; every name that we configure is text.
fn names(alpn: &[Vec<u8>]) -> Vec<&str> {
    alpn.iter()
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect()
}
