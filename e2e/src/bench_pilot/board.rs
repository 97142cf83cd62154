//! The change that is under way, and when each proxy answered for it. A proxy recognises a change by what is
//! in the resource, not by the fact that something came; since most proxies get the very same resource, the
//! text is searched once for each version.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_proto::xds::Type;
use tokio::sync::Notify;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One change.
#[derive(Debug)]
pub struct Change {
    kind: Type,
    /// Stands in the new version of the resource, and in no earlier one.
    marker: Vec<u8>,
    begun: Instant,
    concerned: usize,
    /// Whether a version holds the marker.
    versions: Mutex<HashMap<String, bool>>,
    times: Mutex<Vec<Duration>>,
    all: Notify,
}

impl Change {
    /// Whether this resource is one that the change made.
    pub fn is_in(&self, kind: Type, version: &str, body: &[u8]) -> bool {
        if kind != self.kind {
            return false;
        }
        let mut versions = lock(&self.versions);
        if let Some(known) = versions.get(version) {
            return *known;
        }
        let found = memchr::memmem::find(body, &self.marker).is_some();
        versions.insert(version.to_owned(), found);
        found
    }

    /// A proxy has answered for it.
    pub fn answered(&self) {
        let mut times = lock(&self.times);
        times.push(self.begun.elapsed());
        if times.len() >= self.concerned {
            self.all.notify_one();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn count(&self) -> usize {
        lock(&self.times).len()
    }

    /// The times of all that it concerns; `None`: some have not answered in time.
    pub async fn wait(&self, patience: Duration) -> Option<Vec<Duration>> {
        if self.concerned > 0 {
            tokio::time::timeout(patience, self.all.notified()).await.ok()?;
        }
        Some(lock(&self.times).clone())
    }
}

/// Where proxies look.
#[derive(Debug, Default)]
pub struct Board {
    change: Mutex<Option<Arc<Change>>>,
}

impl Board {
    pub fn begin(&self, kind: Type, marker: Vec<u8>, concerned: usize) -> Arc<Change> {
        let change = Arc::new(Change {
            kind,
            marker,
            begun: Instant::now(),
            concerned,
            versions: Mutex::default(),
            times: Mutex::default(),
            all: Notify::new(),
        });
        *lock(&self.change) = Some(change.clone());
        change
    }

    pub fn end(&self) {
        *lock(&self.change) = None;
    }

    pub fn current(&self) -> Option<Arc<Change>> {
        lock(&self.change).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_known_by_its_text_and_ends_with_the_last_answer() {
        let board = Board::default();
        assert!(board.current().is_none());
        let change = board.begin(Type::Endpoint, b"10.9.9.9".to_vec(), 2);
        assert!(!change.is_in(Type::Endpoint, "1", b"-10.9.9.8-"));
        assert!(!change.is_in(Type::Route, "2", b"-10.9.9.9-"), "of another type");
        assert!(change.is_in(Type::Endpoint, "3", b"-10.9.9.9-"));
        assert!(change.is_in(Type::Endpoint, "3", b""), "the version is known");
        change.answered();
        assert!(change.wait(Duration::from_millis(5)).await.is_none());
        change.answered();
        let times = change.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(times.len(), 2);
        board.end();
        assert!(board.current().is_none());
    }
}
