//! HTTP/2 (RFC 9113) on both sides of the proxy. Frames, flow control and header compression are the `h2` library's; here is
//! how an exchange uses them: in one task, the body it sends pumped beside the one it reads.
//!
//! | File | What it does |
//! | --- | --- |
//! | `body` | a body that comes, a body that goes |
//! | `server`, `client` | the two ends of a stream, and their connections |
//! | `frames`, `guard` | frames as they pass, and who sends too many of them |
//! | `ping` | is the peer still there? |
//!
//! Bounds: streams and windows are configured; `h2` bounds header blocks, streams that are reset before they are served, and
//! what it keeps to be written; `guard` bounds frames that move nothing.

pub mod body;
pub mod client;
pub mod frames;
pub mod guard;
mod ping;
pub mod server;
