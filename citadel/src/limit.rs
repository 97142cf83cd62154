//! How often one caller may ask: a token bucket for each key, filled by time that is passed in. Pure.
//! Bounds: [`MAX_KEYS`] buckets; full ones are forgotten first, they hold no memory of anything.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Callers remembered at once.
pub const MAX_KEYS: usize = 16_384;

/// The rate of every bucket.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: f64,
    pub per_second: f64,
}

/// One bucket for each caller.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
        }
    }

    /// Takes one token of this key, or says how long until there is one.
    pub fn take(&mut self, key: &str, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        if !self.buckets.contains_key(key) {
            if self.buckets.len() >= MAX_KEYS {
                self.buckets
                    .retain(|_, bucket| bucket.filled(rate, now) < rate.burst);
            }
            if self.buckets.len() >= MAX_KEYS {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = self.buckets.entry(key.to_owned()).or_insert(Bucket {
            tokens: rate.burst,
            at: now,
        });
        let tokens = bucket.filled(rate, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / rate.per_second));
        }
        *bucket = Bucket {
            tokens: tokens - 1.0,
            at: now,
        };
        Ok(())
    }
}

impl Bucket {
    fn filled(&self, rate: Rate, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second).min(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate_for_each_key() {
        let (mut limiter, start) = (
            Limiter::new(Rate {
                burst: 2.0,
                per_second: 0.5,
            }),
            Instant::now(),
        );
        assert_eq!(limiter.take("a", start), Ok(()));
        assert_eq!(limiter.take("a", start), Ok(()));
        assert_eq!(limiter.take("a", start), Err(Duration::from_secs(2)));
        assert_eq!(limiter.take("b", start), Ok(()));
        assert_eq!(limiter.take("a", start + Duration::from_secs(2)), Ok(()));
        assert!(limiter.take("a", start + Duration::from_secs(3)).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut limiter, start) = (
            Limiter::new(Rate {
                burst: 1.0,
                per_second: 1.0,
            }),
            Instant::now(),
        );
        for key in 0..MAX_KEYS {
            assert!(limiter.take(&key.to_string(), start).is_ok());
        }
        assert!(limiter.take("one more", start).is_err());
        assert!(limiter.take("one more", start + Duration::from_secs(2)).is_ok());
        assert!(limiter.buckets.len() < 10);
    }
}
