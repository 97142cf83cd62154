//! How many streams there may be, and how fast new ones are taken: after a restart all proxies come at once, and each
//! needs everything. They are taken one after another at a steady rate; a proxy keeps working while it waits.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::push::lock;

/// How long a new stream may wait for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Limits {
    places: Arc<Semaphore>,
    start: Instant,
    turns: Mutex<Turns>,
}

/// A stream's place; free again when dropped.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// Why a stream was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "this pilot has as many streams as it takes (--max-streams); connect again later, or to another one"
    )]
    Full,
    #[error("too many proxies connect at once (--admission-rate); connect again later")]
    TooFast,
}

impl Refused {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooFast => "rate",
        }
    }
}

impl Limits {
    /// `per_second` new streams, of which as many may come at once.
    pub fn new(streams: usize, per_second: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(streams.min(Semaphore::MAX_PERMITS))),
            start: Instant::now(),
            turns: Mutex::new(Turns::new(per_second)),
        }
    }

    /// Waits for a turn.
    pub async fn admit(&self) -> Result<Place, Refused> {
        let permit = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refused::Full)?;
        let wait = lock(&self.turns).take(self.start.elapsed())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(Place(permit))
    }
}

/// A bucket of turns, without a clock: times are since some fixed moment.
#[derive(Clone, Copy, Debug)]
struct Turns {
    /// Between one turn and the next, once the burst is used up.
    interval: Duration,
    burst: u32,
    /// When the bucket would be full again.
    full_at: Duration,
}

impl Turns {
    fn new(per_second: u32) -> Self {
        let burst = per_second.max(1);
        Self {
            interval: Duration::from_secs(1) / burst,
            burst,
            full_at: Duration::ZERO,
        }
    }

    /// How long to wait for the next turn, which is taken by this.
    fn take(&mut self, now: Duration) -> Result<Duration, Refused> {
        let full_at = self.full_at.max(now) + self.interval;
        // A turn is there one whole filling before the bucket is full.
        let wait = full_at.saturating_sub(now + self.interval * self.burst);
        if wait > PATIENCE {
            return Err(Refused::TooFast);
        }
        self.full_at = full_at;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_steady_rate_then_no_more() {
        let mut turns = Turns::new(10);
        let now = Duration::from_secs(100);
        let mut take = || turns.take(now).map(|wait| wait.as_millis());
        for _ in 0..10 {
            assert_eq!(take(), Ok(0));
        }
        assert_eq!((take(), take()), (Ok(100), Ok(200)));
        let refused = (0..1000).find_map(|_| take().err());
        assert_eq!(refused, Some(Refused::TooFast));
        assert_eq!(
            turns.take(now + Duration::from_secs(60)),
            Ok(Duration::ZERO),
            "later there is room again"
        );
    }

    #[tokio::test]
    async fn no_more_than_there_are_places() {
        let limits = Limits::new(1, 100);
        let place = limits.admit().await.unwrap();
        assert_eq!(limits.admit().await.unwrap_err(), Refused::Full);
        drop(place);
        assert!(limits.admit().await.is_ok());
    }
}
