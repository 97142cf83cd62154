//! Gateways, and the credentials that they may use.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Credential, Gateway, Labels, World};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateways {
    /// Oldest first.
    all: Vec<Arc<Gateway>>,
}

impl Gateways {
    pub fn new(world: &World) -> Self {
        let mut all: Vec<Arc<Gateway>> = world.gateways.values().cloned().collect();
        all.sort_by(|a, b| a.origin.precedence().cmp(&b.origin.precedence()));
        Self { all }
    }

    /// Those that a gateway's proxy with these labels serves.
    pub fn selecting<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Arc<Gateway>> {
        self.all.iter().filter(|gateway| gateway.selector.matches(labels))
    }
}

/// By namespace: a gateway sees only those of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    by_namespace: BTreeMap<String, Vec<Arc<Credential>>>,
}

impl Credentials {
    pub fn new(world: &World) -> Self {
        let mut index = Self::default();
        for (key, credential) in world.credentials.iter() {
            index
                .by_namespace
                .entry(key.namespace.clone())
                .or_default()
                .push(credential.clone());
        }
        index
    }

    pub fn of_namespace(&self, namespace: &str) -> &[Arc<Credential>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}
