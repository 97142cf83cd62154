//! How many requests began lately: counts in slices of the time that counts, so that it costs the same however many
//! there are.

use std::time::{Duration, Instant};

/// So many slices have the time that counts; the oldest one goes at once.
const SLICES: usize = 16;

/// A sum over the last so much time.
#[derive(Clone, Debug)]
pub struct Recent {
    slice: Duration,
    counts: [u32; SLICES],
    sum: u32,
    /// The slice that is filled, and when it began.
    at: usize,
    since: Instant,
}

impl Recent {
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self {
            slice: (interval / SLICES as u32).max(Duration::from_micros(1)),
            counts: [0; SLICES],
            sum: 0,
            at: 0,
            since: now,
        }
    }

    /// One more.
    pub fn add(&mut self, now: Instant) {
        self.forget(now);
        self.counts[self.at] = self.counts[self.at].saturating_add(1);
        self.sum = self.sum.saturating_add(1);
    }

    /// How many there were.
    pub fn count(&mut self, now: Instant) -> u32 {
        self.forget(now);
        self.sum
    }

    fn forget(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < self.slice {
            return;
        }
        if passed >= self.slice * SLICES as u32 {
            (self.counts, self.sum, self.since) = ([0; SLICES], 0, now);
            return;
        }
        while now.saturating_duration_since(self.since) >= self.slice {
            self.since += self.slice;
            self.at = (self.at + 1) % SLICES;
            self.sum = self.sum.saturating_sub(std::mem::take(&mut self.counts[self.at]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_does_not_count() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut recent = Recent::new(Duration::from_millis(1600), start);
        for millis in 0..10 {
            recent.add(at(millis * 100));
        }
        assert_eq!(recent.count(at(950)), 10);
        assert_eq!(recent.count(at(1599)), 10);
        assert_eq!(recent.count(at(1600)), 9);
        assert_eq!(recent.count(at(2050)), 5);
        assert_eq!(recent.count(at(1_000_000)), 0);
        recent.add(at(1_000_000));
        assert_eq!(recent.count(at(1_000_001)), 1);
    }
}
