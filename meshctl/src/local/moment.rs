//! Times as Kubernetes writes them (RFC 3339, whole seconds, UTC), and ages as kubectl prints them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// This moment.
pub fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// This moment with all its digits: never the same twice.
pub fn now_precise() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

pub fn format(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Seconds from the written moment to `now`; nothing when it is no moment.
pub fn seconds_since(written: &str, now: OffsetDateTime) -> Option<i64> {
    OffsetDateTime::parse(written, &Rfc3339)
        .ok()
        .map(|at| (now - at).whole_seconds().max(0))
}

/// `5s`, `3m12s`, `2h5m`, `3d4h`, `40d`
pub fn age(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, expect) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (3599, "59m"),
            (11_100, "3h5m"),
            (90_000, "25h"),
            (273_600, "3d4h"),
            (3_456_000, "40d"),
        ] {
            assert_eq!(age(seconds), expect);
        }
    }

    #[test]
    fn moments_round_trip() {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(format(at), "2023-11-14T22:13:20Z");
        assert_eq!(
            seconds_since(&format(at), at + time::Duration::seconds(5)),
            Some(5)
        );
        assert_eq!(seconds_since("yesterday", at), None);
    }
}
