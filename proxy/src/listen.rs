//! Downstream connections: sockets that follow the configuration, and what is found out about a connection before a
//! filter chain is chosen.
//!
//! `bind` opens the sockets, `accept` keeps them in step with the snapshot and takes connections, `origin` asks netfilter
//! where a connection wanted to go, `peek` looks at the first bytes, `grace` says how long it waits for them,
//! `sockets` keeps what a next process takes over.

pub mod accept;
pub mod bind;
pub mod grace;
pub mod origin;
pub mod peek;
pub mod sockets;
