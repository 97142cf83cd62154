//! gRPC between daemons: a channel that connects over mesh TLS and reconnects by itself, and a stream of accepted
//! connections that carry the peer's proven names into each request.

mod connect;
mod incoming;

pub use connect::{ConnectError, connect};
pub use incoming::{PeerCertificate, TlsConnection, incoming};

/// Who makes this call, as proven by the TLS connection; `None` on a connection without TLS.
pub fn peer<T>(request: &tonic::Request<T>) -> Option<&PeerCertificate> {
    request.extensions().get()
}
