//! Our own HTTP/1.1 codec (RFC 9112), for both sides of the proxy. It exists for three things that a library codec does not
//! give: the spelling and order of an application's headers can be handed on, the framing is strict (a message that two
//! parsers could read differently is refused), and an exchange needs no second task and no channel.
//!
//! | File | What it does |
//! | --- | --- |
//! | `spelling` | header names as their sender wrote them, and in which order |
//! | `head` | bytes → request or response head, with its framing |
//! | `chunk` | a body's bytes taken out of its framing |
//! | `encode` | heads and bodies → bytes |
//! | `wire` | one connection's buffers over its byte stream |
//! | `server`, `client` | the two ends of an exchange |
//!
//! Bounds: a head's bytes and number of headers (configured), a chunk's size line and trailers ([`chunk`]), what is kept for a
//! slow reader ([`wire::HIGH`]); a connection that waits holds no buffer.

pub mod chunk;
pub mod client;
pub mod encode;
pub mod head;
pub mod server;
pub mod spelling;
pub mod wire;

use std::io;

use self::{chunk::BadBody, head::BadHead};

/// What went wrong on a connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed in the middle of a message")]
    Closed,
    #[error("{0}")]
    Head(#[from] BadHead),
    #[error("{0}")]
    Body(#[from] BadBody),
    /// More or less was sent than `content-length` said.
    #[error("the body is not as long as its content-length says")]
    Length,
    #[error("the body to be sent broke off")]
    Source,
}

/// How an HTTP/1.1 message was written, where it must arrive as it was.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    pub spelling: Option<std::rc::Rc<spelling::Spelling>>,
    /// A reason phrase that is not the standard one.
    pub reason: Option<http::HeaderValue>,
}
