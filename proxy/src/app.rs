//! Builds the proxy out of its parts, runs it, and lets it end in order.
//!
//! Threads: one control thread (this one) with xDS, certificates, admin pages, DNS, logs and reports; and the workers,
//! each with its own runtime. They share the store (configuration, swapped whole), the identity cell and the registry of
//! counters; nothing else.

pub mod memory;
pub mod mesh;
pub mod restart;
pub mod standalone;

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::task::LocalSet;

use crate::{
    listen::accept,
    worker::{Parts, Worker},
};

/// How often a leaving process looks whether everything in flight has ended.
const LOOK: Duration = Duration::from_millis(20);
/// So long nothing must have been in flight: whoever asked last may ask again at once.
const QUIET: Duration = Duration::from_millis(500);
/// What an answer that is still coming gets beyond the drain time. Kubernetes ends a pod after 30 s, if the pod does not say
/// otherwise, and the drain time is 5.
const ANSWER: Duration = Duration::from_secs(20);

/// The worker threads.
pub struct Workers {
    in_flight: Arc<Vec<InFlight>>,
}

/// What a worker that leaves says it has.
#[derive(Debug, Default)]
struct InFlight {
    all: AtomicUsize,
    /// Of these, what has no end of its own.
    endless: AtomicUsize,
    connections: AtomicUsize,
}

impl Workers {
    /// Starts `count` workers.
    pub fn start(count: usize, parts: &Parts) -> io::Result<Self> {
        let in_flight: Arc<Vec<InFlight>> = Arc::new((0..count).map(|_| InFlight::default()).collect());
        for number in 0..count {
            let (parts, in_flight) = (parts.clone(), in_flight.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let local = LocalSet::new();
                    local.block_on(&runtime, work(number, &parts, &in_flight));
                })?;
        }
        Ok(Self { in_flight })
    }

    /// Requests, and everything.
    fn in_flight(&self) -> (usize, usize) {
        let mut sums = (0, 0);
        for worker in self.in_flight.iter() {
            let all = worker.all.load(Ordering::Relaxed);
            sums.0 += all.saturating_sub(worker.endless.load(Ordering::Relaxed));
            sums.1 += all;
        }
        sums
    }

    /// Waits until the last connection has gone, after nothing new is accepted.
    pub async fn emptied(&self) {
        // Those that were accepted last are counted after the next look.
        tokio::time::sleep(QUIET).await;
        let open = || -> usize {
            let counts = self.in_flight.iter();
            counts
                .map(|worker| worker.connections.load(Ordering::Relaxed))
                .sum()
        };
        while open() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nothing has been in flight for a moment: at least so long, for requests that are on their way, and not longer
    /// than `cap`; but requests that are then being answered get [`ANSWER`] more.
    pub async fn leave(&self, least: Duration, cap: Duration) {
        let start = Instant::now();
        let mut quiet_since = start;
        loop {
            tokio::time::sleep(LOOK.min(cap)).await;
            let (requests, all) = self.in_flight();
            let limit = if requests > 0 { cap + ANSWER } else { cap };
            if start.elapsed() >= limit {
                if all > 0 {
                    let seconds = start.elapsed().as_secs();
                    tracing::warn!(requests, all, seconds, "leaving before everything has ended");
                }
                return;
            }
            if all > 0 {
                quiet_since = Instant::now();
            } else if start.elapsed() >= least && quiet_since.elapsed() >= QUIET {
                return;
            }
        }
    }
}

/// The life of a worker's thread.
async fn work(number: usize, parts: &Parts, in_flight: &[InFlight]) {
    let worker = Worker::new(number, parts);
    tokio::task::spawn_local(worker.clone().housekeeping());
    tokio::task::spawn_local(worker.timers.clone().run());
    tokio::task::spawn_local(accept::follow(worker.clone()));
    worker.clone().watch_drain().await;
    report(&worker, &in_flight[number]).await;
}

/// Tells the control thread how much is in flight, until the process ends.
async fn report(worker: &Rc<Worker>, in_flight: &InFlight) {
    loop {
        in_flight.all.store(worker.active.get(), Ordering::Relaxed);
        in_flight.endless.store(worker.endless.get(), Ordering::Relaxed);
        in_flight
            .connections
            .store(worker.connections.get(), Ordering::Relaxed);
        tokio::time::sleep(LOOK / 2).await;
    }
}

/// Lets the process open as many files as the system allows it: each connection is one on either side.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        eprintln!("mesh-proxy: cannot raise the limit of open files: {error}");
    }
}

/// As many workers as were asked for; 0 or nothing: one for each processor.
pub fn worker_count(asked: Option<usize>) -> usize {
    match asked {
        Some(count @ 1..) => count,
        _ => thread::available_parallelism().map_or(1, usize::from),
    }
}
