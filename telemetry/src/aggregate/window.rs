//! A sliding window: slots of [`SLOT`] each, only those with traffic kept, the last [`SLOTS`] of them. Time is passed in, as
//! the time since the process began.

use std::{collections::VecDeque, time::Duration};

use super::Merge;

/// The length of one slot.
pub const SLOT: Duration = Duration::from_secs(5);
/// Slots kept: five minutes and the one that is being filled.
pub const SLOTS: u64 = 61;

#[derive(Clone, Debug)]
pub struct Window<T> {
    /// Oldest first.
    slots: VecDeque<(u64, T)>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
        }
    }
}

fn number(now: Duration) -> u64 {
    now.as_secs() / SLOT.as_secs()
}

impl<T: Default + Merge> Window<T> {
    /// The slot that is being filled now.
    pub fn current(&mut self, now: Duration) -> &mut T {
        let current = number(now);
        // A clock that went back a little counts into the newest slot there is.
        let behind = self.slots.back().is_some_and(|(newest, _)| *newest >= current);
        if !behind {
            self.slots.push_back((current, T::default()));
        }
        while self
            .slots
            .front()
            .is_some_and(|(oldest, _)| oldest + SLOTS <= current)
        {
            self.slots.pop_front();
        }
        let newest = self.slots.len() - 1;
        &mut self.slots[newest].1
    }

    /// The sum of the last `window`, and how many seconds it spans: whole slots and what has passed of the current one.
    pub fn sum(&self, now: Duration, window: Duration) -> (T, f64) {
        let slots = (window.as_secs().div_ceil(SLOT.as_secs())).clamp(1, SLOTS);
        let current = number(now);
        let first = (current + 1).saturating_sub(slots);
        let mut sum = T::default();
        for (_, slot) in self.slots.iter().filter(|(number, _)| *number >= first) {
            sum.merge(slot);
        }
        let start = Duration::from_secs(first * SLOT.as_secs());
        (sum, now.saturating_sub(start).as_secs_f64().max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Count(u64);

    impl Merge for Count {
        fn merge(&mut self, other: &Self) {
            self.0 += other.0;
        }
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn slides() {
        let mut window = Window::<Count>::default();
        for second in 0..1000 {
            window.current(seconds(f64::from(second))).0 += 10;
            assert!(window.slots.len() <= SLOTS as usize);
        }
        let now = seconds(999.9);
        for (length, expect) in [(60, 600.0), (300, 3000.0)] {
            let (sum, span) = window.sum(now, Duration::from_secs(length));
            assert_eq!(sum.0 as f64, expect);
            assert!(
                (sum.0 as f64 / span - 10.0).abs() < 0.1,
                "{length}: {} in {span} s",
                sum.0
            );
        }
        let (sum, _) = window.sum(seconds(1200.0), Duration::from_secs(60));
        assert_eq!(sum.0, 0, "old traffic is forgotten");
    }

    #[test]
    fn the_current_slot_counts_as_far_as_it_has_come() {
        let mut window = Window::<Count>::default();
        window.current(seconds(100.0)).0 += 20;
        let (sum, span) = window.sum(seconds(102.0), Duration::from_secs(5));
        assert_eq!((sum.0, span), (20, 2.0));
        let (_, span) = window.sum(seconds(100.0), Duration::from_secs(5));
        assert_eq!(span, 1.0, "no rate is over less than a second");
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut window = Window::<Count>::default();
        window.current(seconds(100.0)).0 += 1;
        window.current(seconds(90.0)).0 += 1;
        assert_eq!(window.sum(seconds(101.0), Duration::from_secs(60)).0.0, 2);
    }
}
