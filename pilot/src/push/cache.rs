//! Encoded resources by the input that they are made from: two proxies share a resource exactly if it was
//! made from equal values. Inputs are many times larger than what is made from them, so they are not kept:
//! the key is a digest of 128 bits under keys of this process, which nobody outside can aim at. What nobody
//! uses any more is swept out.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use mesh_proto::xds::{Encoded, Resources, Version};

use super::lock;
use crate::generate::Input;

/// Sweeping looks at everything, so it waits until this much was made since the last time: bytes, or
/// resources.
const SWEEP_BYTES: usize = 4 << 20;
const SWEEP_COUNT: usize = 1000;

type Key = (u64, u64);

#[derive(Debug)]
pub struct Cache {
    salt: u64,
    hashers: (RandomState, RandomState),
    entries: Mutex<HashMap<Key, Arc<Encoded>>>,
    made: AtomicU64,
    found: AtomicU64,
    /// Made since the last sweep.
    bytes: AtomicUsize,
    count: AtomicUsize,
}

impl Cache {
    pub fn new(salt: u64) -> Self {
        Self {
            salt,
            hashers: (RandomState::new(), RandomState::new()),
            entries: Mutex::default(),
            made: AtomicU64::new(0),
            found: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
        }
    }

    /// The resources of these inputs; of inputs with one name, the first.
    pub fn resources(&self, inputs: Vec<Input>) -> Resources {
        // Of one name the last would stay.
        inputs.into_iter().rev().map(|input| self.get(&input)).collect()
    }

    fn get(&self, input: &Input) -> Arc<Encoded> {
        let key = (self.hashers.0.hash_one(input), self.hashers.1.hash_one(input));
        if let Some(known) = lock(&self.entries).get(&key) {
            self.found.fetch_add(1, Ordering::Relaxed);
            return known.clone();
        }
        // Made outside of the lock: two makers of one resource do no harm.
        let encoded = Arc::new(Encoded {
            name: input.name().into(),
            version: Version::of(self.salt, input),
            kind: input.kind(),
            body: input.encode(),
        });
        self.made.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(encoded.body.len(), Ordering::Relaxed);
        lock(&self.entries).entry(key).or_insert(encoded).clone()
    }

    /// Forgets what nobody holds.
    pub fn sweep(&self) {
        let (bytes, count) = (&self.bytes, &self.count);
        if bytes.load(Ordering::Relaxed) >= SWEEP_BYTES || count.load(Ordering::Relaxed) >= SWEEP_COUNT {
            bytes.store(0, Ordering::Relaxed);
            count.store(0, Ordering::Relaxed);
            lock(&self.entries).retain(|_, encoded| Arc::strong_count(encoded) > 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::cluster;

    fn input(seconds: u64) -> Input {
        Input::Cluster(cluster::Input::Passthrough {
            connect_timeout: std::time::Duration::from_secs(seconds),
        })
    }

    #[test]
    fn equal_inputs_are_made_once() {
        let cache = Cache::new(0);
        let (a, b) = (cache.get(&input(1)), cache.get(&input(1)));
        assert!(Arc::ptr_eq(&a, &b));
        assert_ne!(cache.get(&input(2)).version, a.version);
        assert_eq!(cache.counts(), (2, 1));
        let both = cache.resources(vec![input(2), input(1)]);
        assert_eq!(both.len(), 1);
        assert!(
            both.iter().all(|own| own.version != a.version),
            "the first of one name"
        );
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let cache = Cache::new(0);
        let held = cache.get(&input(0));
        for seconds in 0..=SWEEP_COUNT as u64 {
            cache.get(&input(seconds));
        }
        cache.sweep();
        assert_eq!(cache.len(), 1);
        assert!(Arc::ptr_eq(&held, &cache.get(&input(0))));
    }
}
