//! Bookinfo, the application that every mesh user knows, as one program with four services:
//!
//! ```text
//!                  +-> details v1
//!   productpage ---+
//!                  +-> reviews v1 (no stars) | v2 (black stars) | v3 (red stars)
//!                              v2, v3 -> ratings v1 (in memory) | v2 (in Redis)
//! ```
//!
//! The services know nothing about a mesh. They do the one thing that a mesh cannot do for them: pass the headers of a
//! request on to the requests it causes (`headers`), so that traces connect and the signed-in user travels along.

pub mod details;
pub mod fetch;
pub mod headers;
pub mod productpage;
pub mod ratings;
pub mod reviews;
pub mod serve;
pub mod session;
pub mod settings;
