//! Label sets that nothing was counted for in a long time leave the pages and make room for others. A peer that comes back
//! begins at zero, as after a restart, which every consumer of counters understands.
//!
//! Workers hold cells and count into them without asking anybody, so a set leaves in two steps. A sweep that finds it idle
//! for long enough *retires* its cells: whoever then wants to count asks the registry again, and that brings the set
//! back. If nobody has by the next sweep, the set is removed. Between the two steps lie seconds, so no count of a worker
//! that had looked just before is lost.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use mesh_runtime::drain::Drain;

use super::{Shards, Stats, own};

/// Time between two sweeps, at least.
const LEAST: Duration = Duration::from_secs(1);
/// At most.
const MOST: Duration = Duration::from_secs(60);

/// Cells that were taken out of use.
#[derive(Debug, Default)]
pub struct Retired(AtomicBool);

impl Retired {
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn set(&self, retired: bool) {
        self.0.store(retired, Relaxed);
    }
}

/// Cells that may be retired.
pub trait Aging: Default {
    /// Grows with every use.
    fn uses(&self) -> u64;
    fn retired(&self) -> &Retired;
}

/// One label set: the cells of all workers, and when they were last seen to change.
pub struct Set<T> {
    shards: Shards<T>,
    uses: u64,
    /// When `uses` was first seen at this value.
    since: Option<Instant>,
    retired: bool,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            uses: 0,
            since: None,
            retired: false,
        }
    }
}

impl<T: Aging> Set<T> {
    /// The cells of one worker, in use from now on.
    pub(super) fn own(&mut self, shard: u32) -> Arc<T> {
        let cells = own(&mut self.shards, shard);
        self.revive();
        cells
    }

    pub(super) fn shards(&self) -> &Shards<T> {
        &self.shards
    }

    fn revive(&mut self) {
        if std::mem::take(&mut self.retired) {
            self.since = None;
            for (_, cells) in &self.shards {
                cells.retired().set(false);
            }
        }
    }

    /// Looks at it once; `false`: it goes.
    fn keep(&mut self, idle: Duration, now: Instant) -> bool {
        let uses = self.shards.iter().map(|(_, cells)| cells.uses()).sum();
        if self.since.is_none() || uses != self.uses {
            (self.uses, self.since) = (uses, Some(now));
            self.revive();
            self.since = Some(now);
            return true;
        }
        if self.retired {
            return false;
        }
        if self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) >= idle)
        {
            self.retired = true;
            for (_, cells) in &self.shards {
                cells.retired().set(true);
            }
        }
        true
    }
}

fn sweep<K: Eq + Hash, T: Aging>(table: &mut HashMap<K, Set<T>>, idle: Duration, now: Instant) -> usize {
    let before = table.len();
    table.retain(|_, set| set.keep(idle, now));
    before - table.len()
}

impl Stats {
    /// Looks through the label sets once: those that are idle for `idle` are retired, those that were retired at the last
    /// look and are still unused are removed.
    pub fn expire(&self, idle: Duration, now: Instant) {
        let mut registry = self.lock();
        let gone = sweep(&mut registry.requests, idle, now) + sweep(&mut registry.connections, idle, now);
        drop(registry);
        self.control().label_sets_expired.add_shared(gone as u64);
    }
}

/// Sweeps until the process drains. Zero: never.
pub async fn run(stats: Stats, idle: Duration, drain: Drain) {
    if idle.is_zero() {
        return;
    }
    let pause = (idle / 4).clamp(LEAST, MOST);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => stats.expire(idle, Instant::now()),
            () = drain.drained() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        super::labels::Outcome,
        request::tests::{edge_key, totals},
        *,
    };
    use super::*;
    use crate::config::flag::Flags;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn idle_sets_leave_and_come_back() {
        let stats = Stats::with_bound(2);
        let (one, two) = (stats.shard(), stats.shard());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let count = |edge: &Edge| edge.observe(Outcome::default(), Duration::ZERO, 0, 0);
        let (a, b) = (one.edge(edge_key("a")), two.edge(edge_key("b")));
        count(&a);
        count(&b);
        b.tcp(Flags::none()).opened.inc();
        stats.expire(IDLE, at(0));
        count(&a);
        stats.expire(IDLE, at(30));
        stats.expire(IDLE, at(60));
        // Retired, but still to be seen; a use brings it back.
        count(&b);
        stats.expire(IDLE, at(61));
        assert_eq!(totals(&stats), [("a".to_owned(), 2), ("b".to_owned(), 2)]);
        stats.expire(IDLE, at(95));
        stats.expire(IDLE, at(96));
        assert_eq!(totals(&stats), [("b".to_owned(), 2)]);
        assert_eq!(stats.control().label_sets_expired.get(), 2, "and the TCP set");
        // There is room for another one now, and the old one begins again at zero.
        count(&one.edge(edge_key("c")));
        assert_eq!(totals(&stats), [("b".to_owned(), 2), ("c".to_owned(), 1)]);
        stats.expire(IDLE, at(97));
        for seconds in [200, 201] {
            stats.expire(IDLE, at(seconds));
        }
        assert_eq!(totals(&stats), []);
        count(&a);
        count(&a);
        assert_eq!(totals(&stats), [("a".to_owned(), 2)]);
        b.tcp(Flags::none()).closed.inc();
        let text = prometheus(&stats.collect());
        assert!(text.contains("istio_tcp_connections_closed_total"), "{text}");
    }

    #[test]
    fn what_is_in_use_stays() {
        let stats = Stats::new();
        let shard = stats.shard();
        let edge = shard.edge(edge_key("a"));
        let start = Instant::now();
        for second in 0..500 {
            edge.observe(Outcome::default(), Duration::ZERO, 0, 0);
            stats.expire(Duration::from_secs(1), start + Duration::from_secs(second));
        }
        assert_eq!(totals(&stats), [("a".to_owned(), 500)]);
    }
}
