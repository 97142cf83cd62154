//! One edge of the graph: all that was reported of one pair of workloads, since it was first seen and lately.

use std::time::Duration;

use super::{Merge, counter::Counts, histogram::Histogram, window::Window};
use crate::{record::Record, rule};

/// Upper bounds of the exported histogram, in milliseconds.
pub const BOUNDS_MS: [f64; 16] = [
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    f64::INFINITY,
];

/// What happened in one slot of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slot {
    pub counts: Counts,
    pub latency: Histogram,
}

impl Merge for Slot {
    fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.latency.merge(&other.latency);
    }
}

/// Everything since the edge was first seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    pub counts: Counts,
    /// Latencies by [`BOUNDS_MS`], each alone.
    pub buckets: [u64; BOUNDS_MS.len()],
    pub latency_ms: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Edge {
    pub total: Total,
    pub window: Window<Slot>,
    pub last_seen: Duration,
}

impl Edge {
    pub fn record(&mut self, record: &Record, now: Duration) {
        self.last_seen = now;
        count(&mut self.total.counts, record);
        let slot = self.window.current(now);
        count(&mut slot.counts, record);
        if let Some(latency) = record.latency {
            slot.latency.record(latency);
            let ms = latency.as_secs_f64() * 1000.0;
            let bucket = BOUNDS_MS
                .iter()
                .position(|bound| ms <= *bound)
                .unwrap_or(BOUNDS_MS.len() - 1);
            self.total.buckets[bucket] += 1;
            self.total.latency_ms += ms;
        }
    }
}

fn count(counts: &mut Counts, record: &Record) {
    counts.requests += 1;
    counts.errors += u64::from(rule::is_error(record.key.protocol, &record.outcome));
    counts.mtls += u64::from(record.mtls);
    counts.sent = counts.sent.saturating_add(record.sent);
    counts.received = counts.received.saturating_add(record.received);
    counts.code(record.outcome.grpc_status.unwrap_or(record.outcome.status), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EdgeKey, Outcome};

    #[test]
    fn counts_in_total_and_lately() {
        let mut edge = Edge::default();
        let record = |status, ms| Record {
            key: EdgeKey::other(),
            outcome: Outcome {
                status,
                ..Outcome::default()
            },
            latency: Some(Duration::from_millis(ms)),
            mtls: true,
            sent: 10,
            received: 100,
        };
        edge.record(&record(200, 1), Duration::from_secs(10));
        edge.record(&record(500, 400), Duration::from_secs(10));
        edge.record(&record(200, 60_000), Duration::from_secs(400));
        let total = &edge.total;
        assert_eq!(
            (total.counts.requests, total.counts.errors, total.counts.mtls),
            (3, 1, 3)
        );
        assert_eq!((total.counts.sent, total.counts.received), (30, 300));
        assert_eq!(total.counts.codes, [(200, 2), (500, 1)].into());
        assert_eq!((total.buckets[1], total.buckets[9], total.buckets[15]), (1, 1, 1));
        let (lately, _) = edge.window.sum(Duration::from_secs(401), Duration::from_secs(60));
        assert_eq!((lately.counts.requests, lately.latency.count()), (1, 1));
    }
}
