//! A log-linear histogram of durations: exact up to 32 µs, then 16 buckets to each doubling, so a quantile is off by at
//! most 3.2 %. Two of them merge into what one would have counted. Sparse: an edge's latencies are a few dozen buckets.

use std::time::Duration;

use super::Merge;

/// Values below are their own bucket.
const LINEAR: u64 = 32;
/// Buckets to a doubling, as a power of two.
const SUB_BITS: u32 = 4;
/// The greatest exponent: 2^36 µs are 19 hours.
const TOP: u32 = 35;

/// How often each duration was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Sorted by bucket.
    buckets: Vec<(u16, u64)>,
    count: u64,
    sum_us: u64,
    max_us: u64,
}

fn bucket(us: u64) -> u16 {
    if us < LINEAR {
        return us as u16;
    }
    let exponent = (63 - us.leading_zeros()).min(TOP);
    let sub = if exponent == TOP && us >= 1 << (TOP + 1) {
        (1 << SUB_BITS) - 1
    } else {
        (us >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1)
    };
    (LINEAR + u64::from(exponent - 5) * (1 << SUB_BITS) + sub) as u16
}

/// The middle of a bucket, in µs.
fn middle(bucket: u16) -> f64 {
    let bucket = u64::from(bucket);
    if bucket < LINEAR {
        return bucket as f64;
    }
    let (exponent, sub) = (
        (bucket - LINEAR) >> SUB_BITS,
        (bucket - LINEAR) & ((1 << SUB_BITS) - 1),
    );
    let width = (1u64 << (exponent + 5)) as f64 / f64::from(1 << SUB_BITS);
    width * ((1 << SUB_BITS) as f64 + sub as f64 + 0.5)
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.add(bucket(us), 1);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    fn add(&mut self, bucket: u16, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(index) => self.buckets[index].1 += count,
            Err(index) => self.buckets.insert(index, (bucket, count)),
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// The duration below which this part of all lies, in milliseconds; nothing when nothing was seen.
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let rank = ((part.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return Some(middle(*bucket).min(self.max_us as f64) / 1000.0);
            }
        }
        None
    }
}

impl Merge for Histogram {
    fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for (bucket, count) in &other.buckets {
                self.add(*bucket, *count);
            }
        }
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values
            .into_iter()
            .for_each(|us| histogram.record(Duration::from_micros(us)));
        histogram
    }

    #[test]
    fn buckets_grow_with_the_value_and_hold_their_middle() {
        let mut last = 0;
        for us in (0..200_000)
            .chain((18..64).map(|shift| 1u64 << shift))
            .chain([u64::MAX])
        {
            let index = bucket(us);
            assert!(index >= last, "{us}");
            last = index;
            if us < 1 << 36 {
                let off = (middle(index) - us as f64).abs();
                assert!(
                    off <= us as f64 * 0.032,
                    "{us} is in a bucket around {}",
                    middle(index)
                );
            }
        }
    }

    #[test]
    fn quantiles() {
        let histogram = of(1..=10_000);
        for (part, expect) in [(0.5, 5.0), (0.9, 9.0), (0.99, 9.9), (1.0, 10.0)] {
            let found = histogram.quantile_ms(part).unwrap();
            assert!((found - expect).abs() <= expect * 0.033, "p{part}: {found}");
        }
        assert_eq!(of([]).quantile_ms(0.5), None);
        assert_eq!(of([7]).quantile_ms(0.99), Some(0.007));
        assert!(of([1, u64::MAX]).quantile_ms(1.0).is_some());
    }

    #[test]
    fn merging_is_counting_together() {
        let mut left = of((0..5000).step_by(3));
        let right = of((0..9000).step_by(7));
        left.merge(&right);
        assert_eq!(left, of((0..5000).step_by(3).chain((0..9000).step_by(7))));
        let mut empty = Histogram::default();
        empty.merge(&right);
        assert_eq!(empty, right);
    }
}
