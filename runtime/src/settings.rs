//! Values of command-line flags that several daemons share. Pure.

use std::time::Duration;

/// Reads `24h`, `90s`, `1h30m`, `250ms`, as in Istio's and Kubernetes' settings.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 24h, 90s, 1h30m or 250ms");
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("24h", 86_400.0),
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("1.5s", 1.5),
            ("1d", 86_400.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in [
            "",
            "5",
            "h",
            "1x",
            "-1s",
            "1h30",
            "999999999999999999999h",
            "1..5s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
