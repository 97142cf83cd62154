//! How long changes are gathered before they go out. A change that comes alone goes out at once; when pushes follow each
//! other, each waits as long as the last one took, so pushing never takes more than half of the time, and many changes
//! become one. Time is passed in.

use std::time::Duration;

/// The longest wait, whatever the last push took.
pub const MAX: Duration = Duration::from_secs(2);
/// A push that was shorter than this leaves nothing to wait for.
const FREE: Duration = Duration::from_millis(5);

/// The state between pushes. Times are since some fixed moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debounce {
    /// When the last push ended, and how long it took.
    last: Option<(Duration, Duration)>,
}

impl Debounce {
    /// How long to wait before the next push.
    pub fn wait(&self, now: Duration) -> Duration {
        let Some((ended, took)) = self.last else {
            return Duration::ZERO;
        };
        if took < FREE {
            return Duration::ZERO;
        }
        (ended + took.min(MAX)).saturating_sub(now)
    }

    pub fn pushed(&mut self, started: Duration, ended: Duration) {
        self.last = Some((ended, ended.saturating_sub(started)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn nothing_when_idle_and_more_under_load() {
        let mut debounce = Debounce::default();
        assert_eq!(debounce.wait(ms(0)), ms(0), "the first change");
        debounce.pushed(ms(0), ms(2));
        assert_eq!(debounce.wait(ms(2)), ms(0), "small pushes are free");
        debounce.pushed(ms(10), ms(60));
        assert_eq!(debounce.wait(ms(60)), ms(50), "as long as the last one took");
        assert_eq!(debounce.wait(ms(200)), ms(0), "idle again");
        debounce.pushed(ms(1_000), ms(11_000));
        assert_eq!(debounce.wait(ms(11_000)), MAX);
    }
}
