//! Small values as users write them: durations (`5s`, `1m30s`, `0.5s`) and percentages.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A percentage in parts per million, as exact as Envoy takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    pub const ALL: Self = Self(1_000_000);

    /// `None` unless 0 ≤ percent ≤ 100.
    pub fn new(percent: f64) -> Option<Self> {
        // The cast cannot lose anything: the range is checked and rounding is meant.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (0.0..=100.0)
            .contains(&percent)
            .then(|| Self((percent * 10_000.0).round() as u32))
    }

    pub fn per_million(self) -> u32 {
        self.0
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value)
            .ok_or_else(|| de::Error::custom(format!("{value} is not a percentage from 0 to 100")))
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "maximum": 100})
    }
}

/// A duration as Go and Kubernetes write it: numbers with units `h`, `m`, `s`, `ms`, `us`, `ns`, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// What is wrong with a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write numbers with units, such as 5s, 250ms or 1m30s")]
pub struct SpanError(String);

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SpanError(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        let (mut rest, mut nanos) = (text, 0u128);
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let number_end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(error)?;
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale: u128 = match unit {
                "h" => 3_600_000_000_000,
                "m" => 60_000_000_000,
                "s" => 1_000_000_000,
                "ms" => 1_000_000,
                "us" | "µs" => 1_000,
                "ns" => 1,
                _ => return Err(error()),
            };
            nanos = nanos
                .checked_add(decimal(number, scale).ok_or_else(error)?)
                .ok_or_else(error)?;
            rest = tail;
        }
        // Protobuf's limit on durations, about 10,000 years.
        if nanos > 315_576_000_000 * 1_000_000_000 {
            return Err(error());
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| error())?;
        let subsecond = u32::try_from(nanos % 1_000_000_000).map_err(|_| error())?;
        Ok(Self(Duration::new(seconds, subsecond)))
    }
}

/// `1.5` times a scale, in whole units.
fn decimal(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > 18
        || fraction.len() > 18
        || fraction.contains('.')
    {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = u32::try_from(fraction.len()).ok()?;
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    whole
        .checked_mul(scale)?
        .checked_add(fraction * scale / 10u128.pow(digits))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.subsec_nanos();
        if nanos == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else if self.0.as_secs() == 0 && nanos.is_multiple_of(1_000_000) {
            write!(f, "{}ms", nanos / 1_000_000)
        } else {
            let fraction = format!("{nanos:09}");
            write!(f, "{}.{}s", self.0.as_secs(), fraction.trim_end_matches('0'))
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 64,
            "pattern": r"^(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|m|s|ms|us|µs|ns))+)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |text: &str, millis: u64, printed: &str| {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                (span.0, span.to_string().as_str()),
                (Duration::from_millis(millis), printed),
                "{text}"
            );
        };
        check("5s", 5_000, "5s");
        check("250ms", 250, "250ms");
        check("1.5s", 1_500, "1.5s");
        check("1m30s", 90_000, "90s");
        check("1h", 3_600_000, "3600s");
        check("0s", 0, "0s");
        check("0", 0, "0s");
        check(".5s", 500, "500ms");
        for bad in [
            "",
            "5",
            "s",
            "5x",
            "-5s",
            "5 s",
            "1..5s",
            "5s5",
            "99999999999999999h",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn percent_keeps_four_digits() {
        assert_eq!(Percent::new(0.0001).map(Percent::per_million), Some(1));
        assert_eq!(Percent::new(100.0), Some(Percent::ALL));
        assert_eq!(Percent::new(100.1), None);
        assert_eq!(Percent::new(f64::NAN), None);
    }
}
