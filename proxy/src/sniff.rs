//! What do the first bytes of a connection say? Pure: bytes in, a verdict out; peeking and waiting are `listen`'s.
//! Every detector is bounded: it gives a verdict at the latest after [`MAX_BYTES`].

pub mod http;
pub mod proxy_protocol;
pub mod tls;

/// More than any of the detectors needs: a ClientHello with a post-quantum key share and a long list of protocols.
pub const MAX_BYTES: usize = 16 << 10;

/// A verdict over some first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniff<T> {
    /// Could still become it.
    NeedMore,
    /// Is not it, whatever follows.
    Not,
    Found(T),
}
