//! Encoded resources by the input that they are made from. The key is the whole input, so two proxies share a resource
//! exactly if it was made from equal values. What nobody uses any more is swept out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_proto::xds::{Encoded, Resources, Version};

use super::lock;
use crate::generate::Input;

/// Sweeping looks at everything, so it waits until this much was made since the last time.
const SWEEP_AFTER: usize = 1000;

#[derive(Debug)]
pub struct Cache {
    salt: u64,
    entries: Mutex<HashMap<Arc<Input>, Arc<Encoded>>>,
    made: AtomicU64,
    found: AtomicU64,
    swept_at: Mutex<usize>,
}

impl Cache {
    pub fn new(salt: u64) -> Self {
        Self {
            salt,
            entries: Mutex::default(),
            made: AtomicU64::new(0),
            found: AtomicU64::new(0),
            swept_at: Mutex::new(0),
        }
    }

    /// The resources of these inputs; of inputs with one name, the first.
    pub fn resources(&self, inputs: Vec<Input>) -> Resources {
        let mut resources = Resources::new();
        for input in inputs {
            let resource = self.get(input);
            resources.entry(resource.name.clone()).or_insert(resource);
        }
        resources
    }

    fn get(&self, input: Input) -> Arc<Encoded> {
        if let Some(known) = lock(&self.entries).get(&input) {
            self.found.fetch_add(1, Ordering::Relaxed);
            return known.clone();
        }
        // Made outside of the lock: two makers of one resource do no harm.
        let encoded = Arc::new(Encoded {
            name: input.name().into(),
            version: Version::of(self.salt, &input),
            kind: input.kind(),
            body: input.encode(),
        });
        self.made.fetch_add(1, Ordering::Relaxed);
        lock(&self.entries)
            .entry(Arc::new(input))
            .or_insert(encoded)
            .clone()
    }

    /// Forgets what nobody holds.
    pub fn sweep(&self) {
        let mut entries = lock(&self.entries);
        let mut swept_at = lock(&self.swept_at);
        if entries.len() > *swept_at + SWEEP_AFTER {
            entries.retain(|_, encoded| Arc::strong_count(encoded) > 1);
            *swept_at = entries.len();
        }
    }

    /// How many resources were made, and how often one was already there.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.made.load(Ordering::Relaxed),
            self.found.load(Ordering::Relaxed),
        )
    }

    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
