//! The cells that hold numbers: counters, gauges and histograms, each written by exactly one thread and read by the
//! scrape. A write is a relaxed load and a relaxed store, no locked instruction: that is only right with a single
//! writer, which [`Local`] (not `Send`) makes the compiler check. Numbers that several threads write use
//! [`Counter::add_shared`].

use std::{
    marker::PhantomData,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A worker's handle to cells that only this worker writes. Not `Send`, so it cannot leave its thread.
pub struct Local<T>(Arc<T>, PhantomData<*const ()>);

impl<T> Local<T> {
    pub(super) fn new(cells: Arc<T>) -> Self {
        Self(cells, PhantomData)
    }
}

impl<T> Clone for Local<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<T> Deref for Local<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    /// By the one thread that owns the cell.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// By any thread.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. The scrape adds the shards' values, so one shard's may be negative.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn inc(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub fn dec(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of all histograms, as Envoy has them by default: milliseconds for times, bytes for sizes.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
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
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A histogram over [`BOUNDS`]. Values come in thousandths of the unit (microseconds for milliseconds).
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound, and one for what is above the last.
    buckets: [Counter; BOUNDS.len() + 1],
    sum: Counter,
}

impl Histogram {
    pub fn observe_thousandths(&self, value: u64) {
        let index = BOUNDS
            .iter()
            .take_while(|bound| value as f64 > **bound * 1000.0)
            .count();
        self.buckets[index].inc();
        self.sum.add(value);
    }

    /// A time, shown in milliseconds.
    pub fn observe_time(&self, time: std::time::Duration) {
        self.observe_thousandths(u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 1_000_000));
    }

    /// A size in bytes.
    pub fn observe_bytes(&self, bytes: u64) {
        self.observe_thousandths(bytes.saturating_mul(1000));
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// Adds this histogram to a merged one.
    pub fn merge_into(&self, total: &mut Distribution) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.sum_thousandths = total.sum_thousandths.wrapping_add(self.sum.get());
    }
}

/// What a scrape sees of a histogram: all shards added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    pub buckets: [u64; BOUNDS.len() + 1],
    pub sum_thousandths: u64,
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum_thousandths as f64 / 1000.0
    }

    /// The value below which a share `q` of the observations lie, interpolated inside its bucket; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut below = 0.0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            let here = *bucket as f64;
            if here > 0.0 && below + here >= rank {
                let low = if index == 0 { 0.0 } else { BOUNDS[index - 1] };
                let high = BOUNDS.get(index).copied().unwrap_or(low);
                return Some(low + (high - low) * ((rank - below) / here).clamp(0.0, 1.0));
            }
            below += here;
        }
        Some(BOUNDS[BOUNDS.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 1000, 3_600_000_000, 3_600_000_001] {
            histogram.observe_thousandths(micros);
        }
        let mut total = Distribution::default();
        histogram.merge_into(&mut total);
        histogram.merge_into(&mut total);
        assert_eq!(
            (
                total.buckets[0],
                total.buckets[1],
                total.buckets[18],
                total.buckets[19]
            ),
            (4, 4, 2, 2)
        );
        assert_eq!(total.count(), 12);
    }

    #[test]
    fn quantiles_interpolate() {
        let mut total = Distribution::default();
        assert_eq!(total.quantile(0.5), None);
        total.buckets[3] = 100; // 5..10
        assert_eq!(total.quantile(0.5), Some(7.5));
    }
}
