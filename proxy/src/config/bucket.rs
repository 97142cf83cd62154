//! A token bucket that many threads take from without a lock: the one piece of configuration that has a state. It lives
//! with the limit it belongs to, so that all workers share it, and a new version of the limit starts full, as in Envoy.
//!
//! Tokens grow evenly, not in bursts at the end of an interval. The whole state is one number, the moment at which the
//! bucket would have been empty; taking a token moves it on by what one token costs. Time is passed in.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::filter::TokenBucket;

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    settings: TokenBucket,
    /// Nanoseconds in which one token grows; at least 1.
    cost: u64,
    /// Nanoseconds in which the whole bucket grows.
    whole: u64,
    /// The first time somebody asked: from here nanoseconds are counted.
    start: OnceLock<Instant>,
    /// Nanoseconds after `start`, plus `whole`, at which the bucket would have been empty.
    empty: AtomicU64,
}

/// What was left after a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// A token was taken.
    pub taken: bool,
    pub tokens: u32,
    /// Until there is a token (again).
    pub next_in: Duration,
    /// Until the bucket is full again.
    pub full_in: Duration,
}

impl Bucket {
    pub fn new(settings: TokenBucket) -> Self {
        let nanos = settings.interval.as_nanos() / u128::from(settings.per_fill.max(1));
        let cost = u64::try_from(nanos).unwrap_or(u64::MAX).clamp(1, u64::MAX >> 2);
        Self {
            settings,
            cost,
            // Beyond a century it makes no difference, and sums of two cannot overflow.
            whole: cost.saturating_mul(settings.max.into()).min(u64::MAX >> 2),
            start: OnceLock::new(),
            empty: AtomicU64::new(0),
        }
    }

    pub fn settings(&self) -> TokenBucket {
        self.settings
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Instant) -> Left {
        let start = *self.start.get_or_init(|| now);
        let elapsed = u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX >> 2);
        let clock = elapsed.min(u64::MAX >> 2) + self.whole;
        let mut seen = self.empty.load(Relaxed);
        loop {
            // It never holds more than its size: what grew beyond is gone.
            let empty = seen.max(clock - self.whole);
            let grown = clock.saturating_sub(empty);
            if grown < self.cost {
                return self.left(false, grown);
            }
            match self
                .empty
                .compare_exchange_weak(seen, empty + self.cost, Relaxed, Relaxed)
            {
                Ok(_) => return self.left(true, grown - self.cost),
                Err(other) => seen = other,
            }
        }
    }

    fn left(&self, taken: bool, grown: u64) -> Left {
        Left {
            taken,
            tokens: u32::try_from(grown / self.cost).unwrap_or(u32::MAX),
            next_in: Duration::from_nanos(self.cost.saturating_sub(grown)),
            full_in: Duration::from_nanos(self.whole.saturating_sub(grown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(max: u32, per_fill: u32, interval: Duration) -> Bucket {
        Bucket::new(TokenBucket {
            max,
            per_fill,
            interval,
        })
    }

    #[test]
    fn begins_full_and_grows_evenly() {
        let bucket = bucket(4, 2, Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let taken = |millis| bucket.take(at(millis)).taken;
        assert_eq!(
            bucket.take(at(0)),
            Left {
                taken: true,
                tokens: 3,
                next_in: Duration::ZERO,
                full_in: Duration::from_millis(500)
            }
        );
        assert!((1..4).all(|_| taken(0)) && !taken(0) && !taken(499));
        assert_eq!(bucket.take(at(400)).next_in, Duration::from_millis(100));
        assert!(taken(500) && !taken(501));
        // However long nobody asks, there are never more than four.
        assert_eq!((0..10).filter(|_| taken(3_600_000)).count(), 4);
        // A clock that another thread read a moment earlier takes nothing that is not there.
        assert!(!taken(3_599_999));
    }

    #[test]
    fn threads_share_it() {
        let bucket = bucket(1000, 1, Duration::from_secs(3600));
        let now = Instant::now();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(now).taken).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    #[test]
    fn odd_sizes_do_not_overflow() {
        let slow = bucket(u32::MAX, 1, Duration::from_secs(u64::MAX >> 8));
        assert!(slow.take(Instant::now()).taken);
        let fast = bucket(u32::MAX, u32::MAX, Duration::from_nanos(1));
        let now = Instant::now();
        assert!(fast.take(now).taken && fast.take(now + Duration::from_secs(1 << 40)).taken);
    }
}
