//! Builds the proxy out of its parts, runs it, and lets it end in order.
//!
//! Threads: one control thread (this one) with xDS, certificates, admin pages, DNS, logs and reports; and the workers,
//! each with its own runtime. They share the store (configuration, swapped whole), the identity cell and the registry of
//! counters; nothing else.

pub mod memory;
pub mod mesh;
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
/// A leaving process stays at least this long, for requests that are on their way to it.
const LEAST: Duration = Duration::from_millis(500);

/// The worker threads.
pub struct Workers {
    in_flight: Arc<Vec<AtomicUsize>>,
}

impl Workers {
    /// Starts `count` workers.
    pub fn start(count: usize, parts: &Parts) -> io::Result<Self> {
        let in_flight: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
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

    fn in_flight(&self) -> usize {
        self.in_flight
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Waits until nothing is in flight, but not longer than `cap`.
    pub async fn leave(&self, cap: Duration) {
        let start = Instant::now();
        let mut quiet_since = None;
        while start.elapsed() < cap {
            tokio::time::sleep(LOOK).await;
            if self.in_flight() > 0 {
                quiet_since = None;
                continue;
            }
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= LEAST.min(cap) {
                return;
            }
        }
        tracing::warn!(
            in_flight = self.in_flight(),
            seconds = cap.as_secs(),
            "leaving before everything has ended"
        );
    }
}

/// The life of a worker's thread.
async fn work(number: usize, parts: &Parts, in_flight: &[AtomicUsize]) {
    let worker = Worker::new(number, parts);
    tokio::task::spawn_local(worker.clone().housekeeping());
    tokio::task::spawn_local(worker.timers.clone().run());
    tokio::task::spawn_local(accept::follow(worker.clone()));
    worker.clone().watch_drain().await;
    report(&worker, &in_flight[number]).await;
}

/// Tells the control thread how much is in flight, until the process ends.
async fn report(worker: &Rc<Worker>, in_flight: &AtomicUsize) {
    loop {
        in_flight.store(worker.active.get(), Ordering::Relaxed);
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
