//! Sessions that a server may resume. A resumed handshake does not check the peer's certificate again, so sessions are
//! few, live shortly, and end when the roots change.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::server::StoresServerSessions;

use super::IdentityCell;

/// Sessions kept by one configuration; the oldest goes first.
pub const SESSIONS: usize = 1024;
/// How long a session can be resumed.
pub const SESSION_TIME: Duration = Duration::from_secs(300);

pub(super) struct Sessions {
    cell: IdentityCell,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    entries: HashMap<Vec<u8>, Entry>,
    /// Insertion order with the number of each insertion: a key that was taken and put again is two rows here, and
    /// only the row with the entry's number counts.
    order: VecDeque<(u64, Vec<u8>)>,
    next: u64,
}

struct Entry {
    number: u64,
    until: Instant,
    generation: u64,
    value: Vec<u8>,
}

impl Sessions {
    pub fn new(cell: IdentityCell) -> Self {
        Self {
            cell,
            store: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, entry: &Entry) -> bool {
        entry.generation == self.cell.generation() && Instant::now() < entry.until
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values: they are secrets.
        f.debug_struct("Sessions")
            .field("entries", &self.lock().entries.len())
            .finish()
    }
}

impl Store {
    fn put(&mut self, key: Vec<u8>, until: Instant, generation: u64, value: Vec<u8>) {
        let number = self.next;
        self.next += 1;
        self.entries.insert(
            key.clone(),
            Entry {
                number,
                until,
                generation,
                value,
            },
        );
        self.order.push_back((number, key));
        while self.order.len() > SESSIONS {
            let Some((number, key)) = self.order.pop_front() else {
                break;
            };
            if self.entries.get(&key).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&key);
            }
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let generation = self.cell.generation();
        self.lock()
            .put(key, Instant::now() + SESSION_TIME, generation, value);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock()
            .entries
            .get(key)
            .filter(|entry| self.fresh(entry))
            .map(|entry| entry.value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.lock().entries.remove(key)?;
        self.fresh(&entry).then_some(entry.value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_taken_once() {
        let sessions = Sessions::new(IdentityCell::new());
        for number in 0..(SESSIONS as u32 + 10) {
            sessions.put(number.to_be_bytes().to_vec(), vec![1]);
        }
        assert_eq!(sessions.lock().entries.len(), SESSIONS);
        assert_eq!(sessions.lock().order.len(), SESSIONS);
        assert_eq!(sessions.get(&0u32.to_be_bytes()), None);
        assert_eq!(sessions.get(&500u32.to_be_bytes()), Some(vec![1]));
        assert_eq!(sessions.take(&500u32.to_be_bytes()), Some(vec![1]));
        assert_eq!(sessions.take(&500u32.to_be_bytes()), None);
    }

    #[test]
    fn old_ones_are_not_resumed() {
        let sessions = Sessions::new(IdentityCell::new());
        sessions.lock().put(vec![1], Instant::now(), 0, vec![9]);
        sessions
            .lock()
            .put(vec![2], Instant::now() + SESSION_TIME, 1, vec![9]);
        assert_eq!(sessions.get(&[1]), None, "its time is over");
        assert_eq!(sessions.take(&[2]), None, "made under other roots");
    }
}
