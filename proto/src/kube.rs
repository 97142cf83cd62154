//! The resource API: the kinds of objects that users write, untyped ([`Manifest`]) and typed.
//!
//! Objects come from files, from a Kubernetes API server or from a webhook's request; they leave as typed values for
//! `validate` and for pilot's `convert`. All served versions of a kind have one type. Fields are named as in the API
//! (<https://istio.io/latest/docs/reference/config/networking/>), every field of it is known by name, and one that is not
//! part of it is an error with its path (a mistyped field that is silently dropped is how policies fail to protect).

use std::fmt;

use serde::{Deserialize, Serialize};

pub mod crd;
pub mod decode;
pub mod extension;
mod kinds;
mod manifest;
pub mod networking;
pub mod reference;
pub mod schema;
pub mod security;
pub mod support;
pub mod telemetry;
pub mod yaml;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use kinds::Kind;
pub use manifest::Manifest;

/// A typed object of one of the mesh's own kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<T> {
    pub metadata: ObjectMeta,
    pub spec: T,
}

impl<T> Object<T> {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// A kind of the mesh's own API.
pub trait Resource: serde::de::DeserializeOwned + Default {
    const KIND: Kind;
}

/// Namespace and name, as a reference to an object of a known kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
