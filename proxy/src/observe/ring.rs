//! The bounded place between a worker and the control thread: the worker pushes finished records, the control thread
//! takes them all at once, a few times a second. Full means dropped and counted, never waiting. The lock is held for a
//! push or a swap of two vectors, and only those two threads know it; the reader is woken once per batch, not per record.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// One worker's ring.
pub struct Ring<T> {
    items: Mutex<Vec<T>>,
    capacity: usize,
    dropped: AtomicU64,
    wake: Arc<Notify>,
}

impl<T> Ring<T> {
    /// `wake` is shared by all rings of one reader.
    pub fn new(capacity: usize, wake: Arc<Notify>) -> Self {
        Self {
            items: Mutex::default(),
            capacity,
            dropped: AtomicU64::new(0),
            wake,
        }
    }

    /// Never waits: past the bound the item is dropped and counted.
    pub fn push(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.capacity {
            drop(items);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        items.push(item);
        let first = items.len() == 1;
        drop(items);
        if first {
            self.wake.notify_one();
        }
    }

    /// Everything since the last call, and how many were dropped since then.
    pub fn take(&self) -> (Vec<T>, u64) {
        let items = std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner));
        (items, self.dropped.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_means_dropped_and_counted() {
        let wake = Arc::new(Notify::new());
        let ring = Ring::new(2, Arc::clone(&wake));
        for n in 0..5 {
            ring.push(n);
        }
        wake.notified().await;
        assert_eq!(ring.take(), (vec![0, 1], 3));
        assert_eq!(ring.take(), (vec![], 0));
    }
}
