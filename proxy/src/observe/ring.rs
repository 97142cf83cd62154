//! The bounded place between a worker and the control thread: the worker pushes finished records, the control thread
//! takes them all at once, a few times a second. Full means dropped, which the worker is told, never waiting. The lock is
//! held for a push or a swap of two vectors, and only those two threads know it; the reader is woken once per batch, not
//! per record.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// One worker's ring.
pub struct Ring<T> {
    items: Mutex<Vec<T>>,
    capacity: usize,
    wake: Arc<Notify>,
}

impl<T> Ring<T> {
    /// `wake` is shared by all rings of one reader.
    pub fn new(capacity: usize, wake: Arc<Notify>) -> Self {
        Self {
            items: Mutex::default(),
            capacity,
            wake,
        }
    }

    /// Never waits: past the bound the item is dropped, and the answer is `false`.
    #[must_use]
    pub fn push(&self, item: T) -> bool {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.capacity {
            return false;
        }
        items.push(item);
        let first = items.len() == 1;
        drop(items);
        if first {
            self.wake.notify_one();
        }
        true
    }

    /// Everything since the last call.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_means_dropped() {
        let wake = Arc::new(Notify::new());
        let ring = Ring::new(2, Arc::clone(&wake));
        assert_eq!((0..5).map(|n| ring.push(n)).filter(|taken| !taken).count(), 3);
        wake.notified().await;
        assert_eq!(ring.take(), [0, 1]);
        assert!(ring.push(5));
        assert_eq!(ring.take(), [5]);
    }
}
