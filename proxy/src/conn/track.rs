//! The open connections of all workers, for the admin page. A worker notes a connection when its chain is chosen and
//! takes the note away at its end; the page copies the notes. Nothing is done per request. Bound: [`LISTED`] notes per
//! worker; connections beyond are only counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{config::chain::Terminal, observe::record::Downstream};

/// Connections of one worker that are listed.
pub const LISTED: usize = 8192;

/// One open connection.
#[derive(Clone, Debug)]
pub struct Note {
    pub worker: usize,
    pub facts: Arc<Downstream>,
    pub listener: Arc<str>,
    pub chain: Arc<str>,
    /// `http`, `tcp`, …
    pub kind: &'static str,
    pub since: Instant,
}

/// What ends the chain, in a word.
pub fn kind(terminal: &Terminal) -> &'static str {
    match terminal {
        Terminal::Http(_) => "http",
        Terminal::Tcp(_) => "tcp",
        Terminal::Echo => "echo",
        Terminal::Direct(_) => "direct_response",
    }
}

#[derive(Default)]
struct Listed {
    notes: BTreeMap<u64, Note>,
    unlisted: usize,
}

/// One worker's notes. Only the worker writes; the lock is there for the page.
#[derive(Clone, Default)]
pub struct Mine(Arc<Mutex<Listed>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held leaves a list that is still a list.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mine {
    /// Lists the connection while what comes back lives.
    pub fn open(&self, note: Note) -> Open {
        let id = note.facts.connection_id;
        let mut listed = lock(&self.0);
        let id = if listed.notes.len() < LISTED {
            listed.notes.insert(id, note);
            Some(id)
        } else {
            listed.unlisted += 1;
            None
        };
        drop(listed);
        Open {
            mine: self.clone(),
            id,
        }
    }
}

/// A connection that is open.
pub struct Open {
    mine: Mine,
    id: Option<u64>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut listed = lock(&self.mine.0);
        match self.id {
            Some(id) => drop(listed.notes.remove(&id)),
            None => listed.unlisted -= 1,
        }
    }
}

/// The notes of all workers.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Vec<Mine>>>);

impl Connections {
    /// A list for one worker.
    pub fn worker(&self) -> Mine {
        let mine = Mine::default();
        lock(&self.0).push(mine.clone());
        mine
    }

    /// The oldest `most` connections by their ids, and how many there are beside them.
    pub fn list(&self, most: usize) -> (Vec<Note>, usize) {
        let workers = lock(&self.0).clone();
        let (mut notes, mut more) = (Vec::new(), 0);
        for worker in workers {
            let listed = lock(&worker.0);
            notes.extend(listed.notes.values().take(most).cloned());
            more += listed.unlisted + listed.notes.len().saturating_sub(most);
        }
        notes.sort_by_key(|note| (note.since, note.facts.connection_id));
        more += notes.len().saturating_sub(most);
        notes.truncate(most);
        (notes, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(id: u64) -> Note {
        let address = ([127, 0, 0, 1], 80).into();
        Note {
            worker: 0,
            facts: Arc::new(Downstream {
                connection_id: id,
                remote: address,
                direct_remote: address,
                local: address,
                server_name: None,
                tls: None,
            }),
            listener: "in".into(),
            chain: "all".into(),
            kind: "http",
            since: Instant::now(),
        }
    }

    #[test]
    fn open_ones_are_listed_up_to_the_bound() {
        let connections = Connections::default();
        let (one, two) = (connections.worker(), connections.worker());
        let first = one.open(note(1));
        let _second = two.open(note(1 << 48));
        assert_eq!(connections.list(10).0.len(), 2);
        let (notes, more) = connections.list(1);
        assert_eq!((notes[0].facts.connection_id, more), (1, 1));
        drop(first);
        assert_eq!(connections.list(10).0.len(), 1);
        let many: Vec<_> = (0..LISTED as u64 + 5).map(|id| one.open(note(id + 10))).collect();
        let (notes, more) = connections.list(usize::MAX);
        assert_eq!((notes.len(), more), (LISTED + 1, 5));
        drop(many);
        assert_eq!(
            (connections.list(usize::MAX).0.len(), connections.list(0).1),
            (1, 1)
        );
    }
}
