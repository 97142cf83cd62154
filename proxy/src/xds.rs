//! Configuration from the control plane, on the control thread: one ADS stream (delta), from which the store's snapshots
//! are made.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`stream`] | keeps the stream open: requests, responses, ACK and NACK, reconnects |
//! | [`apply`] | the only writer of snapshots: takes resources, decides what may serve, swaps |
//! | [`file`] | the bootstrap's own resources, for the account |
//! | [`last_good`] | the configuration in a file, for a start while the control plane is away |
//! | [`want`] | what a resource refers to (pure) |
//!
//! The rules: a resource that cannot be read is refused by its field's path and the last good one stays. A listener
//! serves when its routes and secrets are there; a cluster when its endpoints are; a route when the clusters it names
//! are, if they are on their way. An ACK of a listener or route means that it serves, so "acknowledged" means "in
//! effect". What does not come within [`apply::PATIENCE`] counts as absent.

pub mod apply;
pub mod file;
pub mod last_good;
pub mod stream;
pub mod want;

#[cfg(test)]
mod tests;

pub use apply::Apply;
pub use stream::{Settings, run};
