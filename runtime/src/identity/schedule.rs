//! When to call the authority again. Pure.

use std::time::Duration;

/// The first wait after a failure.
pub const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait after failures, with a certificate that is valid for long.
pub const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// The longest wait after failures, without a certificate: the process is waiting for it.
const LONGEST_WITHOUT: Duration = Duration::from_secs(3);
/// Never ask more often than this.
const SHORTEST: Duration = Duration::from_millis(50);

/// After a success: half of what remains, a tenth more or less, so that proxies started together part.
pub fn renewal(remaining: Duration, random: f64) -> Duration {
    remaining
        .mul_f64(0.45 + 0.1 * random.clamp(0.0, 1.0))
        .max(SHORTEST)
}

/// After a failure: the backoff's wait, but several tries must fit into what remains.
pub fn retry(wait: Duration, remaining: Option<Duration>) -> Duration {
    let longest = match remaining {
        Some(remaining) if !remaining.is_zero() => (remaining / 8).min(LONGEST_RETRY),
        _ => LONGEST_WITHOUT,
    };
    wait.min(longest).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn renews_around_half_life() {
        assert_eq!(renewal(DAY, 0.5), DAY / 2);
        assert!(renewal(DAY, 0.0) > DAY.mul_f64(0.44) && renewal(DAY, 1.0) < DAY.mul_f64(0.56));
        assert_eq!(renewal(Duration::ZERO, 0.5), SHORTEST);
    }

    #[test]
    fn retries_often_enough() {
        let minute = Duration::from_secs(60);
        for (wait, remaining, expect) in [
            (minute, Some(DAY), minute),
            (minute, Some(Duration::from_secs(40)), Duration::from_secs(5)),
            (minute, Some(Duration::from_millis(80)), SHORTEST),
            (minute, None, LONGEST_WITHOUT),
            (minute, Some(Duration::ZERO), LONGEST_WITHOUT),
            (FIRST_RETRY, None, FIRST_RETRY),
        ] {
            assert_eq!(retry(wait, remaining), expect, "{wait:?} {remaining:?}");
        }
    }
}
