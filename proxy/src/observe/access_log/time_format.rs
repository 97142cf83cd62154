//! Points in time as text, always UTC: ISO 8601 with milliseconds, or a pattern of strftime's directives with Envoy's
//! fractions (`%3f`: milliseconds, `%f`: nanoseconds) and `%s` (seconds since 1970). Pure.

use std::{fmt::Write, time::SystemTime};

use time::OffsetDateTime;

use crate::config::log::TimeFormat;

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The time as text.
pub(super) fn render(time: SystemTime, format: &TimeFormat) -> String {
    let time = OffsetDateTime::from(time);
    let pattern = match format {
        TimeFormat::Iso => "%Y-%m-%dT%H:%M:%S.%3fZ",
        TimeFormat::Pattern(pattern) => pattern,
    };
    let mut out = String::with_capacity(32);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some(digit @ '1'..='9') if rest.as_str().starts_with('f') => {
                rest.next();
                fraction(&mut out, &time, digit as usize - '0' as usize);
            }
            Some('f') => fraction(&mut out, &time, 9),
            Some('%') | None => out.push('%'),
            Some(directive) => self::directive(&mut out, &time, directive),
        }
    }
    out
}

fn fraction(out: &mut String, time: &OffsetDateTime, digits: usize) {
    let nanos = format!("{:09}", time.nanosecond());
    out.push_str(&nanos[..digits.min(9)]);
}

fn directive(out: &mut String, time: &OffsetDateTime, directive: char) {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let half = if hour < 12 { "AM" } else { "PM" };
    let weekday = time.weekday().number_days_from_sunday();
    let (day_name, month_name) = (
        DAYS[usize::from(weekday) % 7],
        MONTHS[usize::from(month - 1) % 12],
    );
    // Writing to a String cannot fail.
    let _ = match directive {
        'Y' => write!(out, "{year}"),
        'C' => write!(out, "{:02}", year / 100),
        'y' => write!(out, "{:02}", year % 100),
        'm' => write!(out, "{month:02}"),
        'd' => write!(out, "{day:02}"),
        'e' => write!(out, "{day:2}"),
        'j' => write!(out, "{:03}", time.ordinal()),
        'H' => write!(out, "{hour:02}"),
        'I' => write!(out, "{twelve:02}"),
        'M' => write!(out, "{minute:02}"),
        'S' => write!(out, "{second:02}"),
        'p' => write!(out, "{half}"),
        's' => write!(out, "{}", time.unix_timestamp()),
        'F' => write!(out, "{year}-{month:02}-{day:02}"),
        'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
        'R' => write!(out, "{hour:02}:{minute:02}"),
        'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
        'a' => write!(out, "{}", &day_name[..3]),
        'A' => write!(out, "{day_name}"),
        'b' | 'h' => write!(out, "{}", &month_name[..3]),
        'B' => write!(out, "{month_name}"),
        'u' => write!(out, "{}", if weekday == 0 { 7 } else { weekday }),
        'w' => write!(out, "{weekday}"),
        'z' => write!(out, "+0000"),
        'Z' => write!(out, "UTC"),
        'n' => out.write_char('\n'),
        't' => write!(out, "\t"),
        other => write!(out, "%{other}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn patterns() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        for (pattern, expect) in [
            ("%Y/%m/%dT%H:%M:%S%z", "2023/11/14T22:13:20+0000"),
            ("%s.%3f %6f %f", "1700000000.123 123456 123456789"),
            ("%a %d %b %y %I:%M%p", "Tue 14 Nov 23 10:13PM"),
            ("100%% %Q", "100% %Q"),
            ("%F %T %j", "2023-11-14 22:13:20 318"),
        ] {
            assert_eq!(render(time, &TimeFormat::Pattern(pattern.into())), expect);
        }
        assert_eq!(render(time, &TimeFormat::Iso), "2023-11-14T22:13:20.123Z");
    }
}
