//! Sources of objects. Each is a stream of batches of [`Change`]s; what an object means is decided elsewhere.
//!
//! A source promises: an `Apply` only when the object's content changed; a `Delete` only for what it applied; `Synced`
//! once, when everything that was there at the start has been told.

use std::sync::Arc;

use mesh_proto::{
    finding::Finding,
    kube::{Kind, Manifest, ObjectKey},
};

use crate::model::authn::KeySource;

pub mod file;
pub mod kube;

/// What happened to one object, or to the source.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is there, or has changed.
    Apply(Box<Manifest>),
    Delete {
        kind: Kind,
        key: ObjectKey,
    },
    /// What is wrong with a part of the source (a file, by its path) that is no object. Replaces what was said before;
    /// an empty list takes it back.
    Findings {
        part: String,
        findings: Vec<Finding>,
    },
    /// Public keys of a token issuer were fetched. None: nobody asks for them any more.
    Keys {
        source: KeySource,
        keys: Option<Arc<str>>,
    },
    /// Everything that was there at the start has been told.
    Synced,
}
