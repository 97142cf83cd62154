//! Pilot: discovery, configuration, validation and injection. `object → model → snapshot → view of one proxy → generator
//! inputs → resources → delta to that proxy`.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`inject`] | pod → pod with a sidecar |
//! | [`ingest`] | changes of objects, from folders or from Kubernetes |
//! | [`jwks`] | public keys of token issuers |
//! | [`convert`] | one object → its meaning, and findings |
//! | [`model`] | the meaning: plain values |
//! | [`store`] | the last good meaning of every object, and what is wrong with the newest version |
//! | [`analyze`] | what is wrong between objects |
//! | [`registry`] | services and their endpoints, of all sources |
//! | [`snapshot`] | everything at one moment, as small indexes |
//! | [`view`] | the snapshot as one proxy may see it |
//! | [`generate`] | from a view to xDS resources |
//! | [`plan`] | who gets what, and when |
//! | [`push`] | the loop from changes to proxies, and its cache |
//! | [`serve`] | the xDS service: streams, identity, limits |
//! | [`webhook`] | Kubernetes' questions about pods and objects |
//! | [`status`] | conditions in the objects' status, written by the leader |
//! | [`admin`] | debug pages |
//! | [`app`], [`settings`], [`error`], [`metrics`] | the daemon |

pub mod admin;
pub mod analyze;
pub mod app;
pub mod convert;
pub mod error;
pub mod generate;
pub mod ingest;
pub mod inject;
pub mod jwks;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod push;
pub mod registry;
pub mod serve;
pub mod settings;
pub mod snapshot;
pub mod status;
pub mod store;
#[cfg(test)]
mod testing;
pub mod view;
pub mod webhook;
