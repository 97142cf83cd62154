//! The listening sockets of the process as a whole, for a process that takes over from it (`app::restart`): those that came from
//! the process before, until a worker takes them, and a second handle to each that is open. What waits in a socket's queue to
//! be accepted stays there while it changes hands, so no connection is lost in between.
//!
//! A worker accepts from its own sockets. Those of a process with another number of workers are dealt out in turn; none is left,
//! since the kernel goes on queueing connections in it.
//!
//! Bound: one handle for each open socket, and none where no process may take over.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Which worker's, and of which listener.
type Key = (usize, Arc<str>);

pub struct Sockets {
    /// Another process may ask for them.
    shared: bool,
    workers: usize,
    /// With their number among those of the same address.
    inherited: Mutex<Vec<(SocketAddr, usize, OwnedFd)>>,
    open: Mutex<HashMap<Key, Vec<(SocketAddr, OwnedFd)>>>,
    handed: watch::Sender<bool>,
}

impl Default for Sockets {
    /// Those of a process that nobody takes over.
    fn default() -> Self {
        Self::new(1, false, Vec::new())
    }
}

impl Sockets {
    pub fn new(workers: usize, shared: bool, inherited: Vec<(SocketAddr, OwnedFd)>) -> Self {
        let mut count: HashMap<SocketAddr, usize> = HashMap::new();
        let numbered = inherited.into_iter().map(|(address, socket)| {
            let next = count.entry(address).or_default();
            *next += 1;
            (address, *next - 1, socket)
        });
        let inherited = numbered.collect();
        Self {
            shared,
            workers: workers.max(1),
            inherited: Mutex::new(inherited),
            open: Mutex::default(),
            handed: watch::Sender::new(false),
        }
    }

    /// The inherited sockets of this address that are this worker's to serve.
    pub fn take(&self, address: SocketAddr, worker: usize) -> Vec<TcpListener> {
        let mut inherited = lock(&self.inherited);
        if inherited.is_empty() {
            return Vec::new();
        }
        let mut mine = Vec::new();
        for (known, number, socket) in std::mem::take(&mut *inherited) {
            let takes = known == address && number % self.workers == worker;
            if takes {
                mine.push(TcpListener::from(socket));
            } else {
                inherited.push((known, number, socket));
            }
        }
        mine
    }

    /// Keeps a second handle to a socket that a worker has opened.
    pub fn keep(&self, worker: usize, name: &Arc<str>, address: SocketAddr, socket: impl AsFd) {
        if self.shared
            && let Ok(handle) = socket.as_fd().try_clone_to_owned()
        {
            let mut open = lock(&self.open);
            open.entry((worker, name.clone()))
                .or_default()
                .push((address, handle));
        }
    }

    /// A worker has closed its sockets of this listener.
    pub fn forget(&self, worker: usize, name: &Arc<str>) {
        if self.shared {
            lock(&self.open).remove(&(worker, name.clone()));
        }
    }

    /// Further handles to all open sockets.
    pub fn handles(&self) -> Vec<(SocketAddr, OwnedFd)> {
        lock(&self.open)
            .values()
            .flatten()
            .filter_map(|(address, socket)| Some((*address, socket.try_clone().ok()?)))
            .collect()
    }

    /// Everything is open that the configuration asks for: what is still left of the inheritance is nobody's.
    pub fn settle(&self) -> usize {
        std::mem::take(&mut *lock(&self.inherited)).len()
    }

    /// Another process accepts from now on; this one closes its handles.
    pub fn hand_over(&self) {
        lock(&self.open).clear();
        self.handed.send_replace(true);
    }

    /// Turns true when another process accepts.
    pub fn handed(&self) -> watch::Receiver<bool> {
        self.handed.subscribe()
    }
}

// A panic while the lock is held leaves a list that is still a list.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> (SocketAddr, Vec<(SocketAddr, OwnedFd)>) {
        let address: SocketAddr = "127.0.0.1:81".parse().unwrap();
        let socket = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        (address, (0..count).map(|_| (address, socket())).collect())
    }

    #[test]
    fn every_inherited_socket_finds_a_worker() {
        for (before, workers) in [(1, 1), (2, 2), (4, 2), (3, 2), (1, 4), (7, 3)] {
            let (address, sockets) = some(before);
            let sockets = Sockets::new(workers, true, sockets);
            let other = "127.0.0.1:82".parse().unwrap();
            assert!(sockets.take(other, 0).is_empty());
            let taken: Vec<usize> = (0..workers)
                .map(|worker| sockets.take(address, worker).len())
                .collect();
            assert_eq!(taken.iter().sum::<usize>(), before, "{taken:?}");
            assert_eq!(sockets.settle(), 0);
        }
    }

    #[test]
    fn handles_follow_what_is_open() {
        let (address, _) = some(0);
        let sockets = Sockets::new(1, true, Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name: Arc<str> = "in".into();
        sockets.keep(0, &name, address, &listener);
        assert_eq!(sockets.handles().len(), 1);
        sockets.forget(0, &name);
        assert!(sockets.handles().is_empty());
        let alone = Sockets::default();
        alone.keep(0, &name, address, &listener);
        assert!(alone.handles().is_empty(), "nobody takes over: nothing is kept");
    }
}
