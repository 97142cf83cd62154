//! How long to wait before the next try: doubles from `initial` to `max`, half of it random, so that many clients of
//! one broken server come back spread out. Pure: randomness is passed in, nothing sleeps here.

use std::time::Duration;

/// The state of one retried thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    current: Duration,
}

impl Backoff {
    /// `initial` and `max` bound the un-jittered wait; `max` below `initial` counts as `initial`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max: max.max(initial),
            current: initial,
        }
    }

    /// The wait before the next try, between half of and the whole current step. `random` lies in `0.0..1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let step = self.current;
        self.current = step.saturating_mul(2).min(self.max);
        let random = if random.is_finite() {
            random.clamp(0.0, 1.0)
        } else {
            0.5
        };
        step.mul_f64(0.5 + random / 2.0)
    }

    /// After a success: the next failure waits `initial` again.
    pub fn reset(&mut self) {
        self.current = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let waits: Vec<u128> = (0..5).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 50);
    }

    #[test]
    fn odd_input_stays_in_bounds() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(1));
        for random in [-1.0, 0.0, 7.0, f64::NAN, f64::INFINITY] {
            let wait = backoff.next(random);
            assert!((1.0..=2.0).contains(&wait.as_secs_f64()), "{random}: {wait:?}");
        }
    }
}
