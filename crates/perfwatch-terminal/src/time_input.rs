//! Times as users type them in a terminal, in the time zone of the terminal.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use perfwatch_model::time_expression;

/// Accepted forms, for error messages.
pub const EXPECTED: &str = "-1h, 14:30, yesterday 14:30, 2026-11-21 14:30 or now";

/// Minimum number of digits of milliseconds since 1970: the year 2001.
const MIN_TIMESTAMP_LEN: usize = 12;

/// Parses `-15m`, `14:30`, `14:30:05`, `today 14:30`, `yesterday 14:30`, `2026-11-21 14:30`, RFC 3339, `now`, or
/// milliseconds since 1970. A time of day without a date is the most recent. Returns milliseconds since 1970.
pub fn parse(text: &str, now_ms: i64, zone: &TimeZone) -> Option<i64> {
    let text = text.trim();
    // A short number is an incomplete time of day, not milliseconds since 1970.
    if text.len() < MIN_TIMESTAMP_LEN && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Some(at_ms) = time_expression::parse(text, now_ms) {
        return Some(at_ms);
    }
    let now = to_zoned(now_ms, zone)?;
    let civil_ms = |datetime: DateTime| Some(zone.to_zoned(datetime).ok()?.timestamp().as_millisecond());
    let day_ms = |date: Date, time: &str| civil_ms(date.to_datetime(parse_time_of_day(time)?));
    if let Some(time) = text.strip_prefix("yesterday ") {
        return day_ms(now.date().yesterday().ok()?, time);
    }
    if let Some(time) = text.strip_prefix("today ") {
        return day_ms(now.date(), time);
    }
    if let Some(time) = parse_time_of_day(text) {
        let today_ms = civil_ms(now.date().to_datetime(time))?;
        return if today_ms <= now_ms {
            Some(today_ms)
        } else {
            civil_ms(now.date().yesterday().ok()?.to_datetime(time))
        };
    }
    civil_ms(text.parse().ok()?)
}

/// Parses `14:30` or `14:30:05`.
fn parse_time_of_day(text: &str) -> Option<Time> {
    let text = text.trim();
    // Other forms of ISO 8601, such as `14` and `1430`, would be surprising.
    let is_clock =
        text.len() >= 4 && text.chars().all(|c| c.is_ascii_digit() || c == ':') && text.contains(':');
    let padded = if text.find(':') == Some(1) { format!("0{text}") } else { text.to_owned() };
    is_clock.then(|| padded.parse().ok()).flatten()
}

/// Formats a time: `14:30:05` on the day of `now_ms`, else `2026-11-21 14:30:05`.
pub fn format_time(at_ms: i64, now_ms: i64, zone: &TimeZone) -> String {
    let (Some(at), Some(now)) = (to_zoned(at_ms, zone), to_zoned(now_ms, zone)) else {
        return at_ms.to_string();
    };
    let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
}

fn to_zoned(at_ms: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_millisecond(at_ms).ok()?.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        // Two hours east of UTC, without the time zone database of the machine.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// 2026-07-15 10:20:30 in Berlin.
    const NOW_MS: i64 = 1_784_103_630_000;

    #[test]
    fn typed_times_are_parsed() {
        let utc = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        for (text, expected) in [
            ("now", NOW_MS),
            ("-1h", NOW_MS - 3_600_000),
            (" -90s ", NOW_MS - 90_000),
            ("10:20", utc("2026-07-15T08:20:00Z")),
            ("9:05", utc("2026-07-15T07:05:00Z")),
            ("14:30", utc("2026-07-14T12:30:00Z")),
            ("14:30:05", utc("2026-07-14T12:30:05Z")),
            ("today 09:00", utc("2026-07-15T07:00:00Z")),
            ("yesterday 14:30", utc("2026-07-14T12:30:00Z")),
            ("yesterday  9:30", utc("2026-07-14T07:30:00Z")),
            ("2026-01-02 03:04", utc("2026-01-02T02:04:00Z")),
            ("2026-07-01", utc("2026-06-30T22:00:00Z")),
            ("2026-07-15T06:00:00Z", utc("2026-07-15T06:00:00Z")),
            ("1784103000000", 1_784_103_000_000),
        ] {
            assert_eq!(parse(text, NOW_MS, &berlin()), Some(expected), "{text}");
        }
        for text in
            ["", "yesterday", "tomorrow 10:00", "25:00", "14:60", "14", ":30", "-1", "2026-13-01", "1h"]
        {
            assert_eq!(parse(text, NOW_MS, &berlin()), None, "{text}");
        }
    }

    #[test]
    fn times_of_another_day_have_a_date() {
        assert_eq!(format_time(NOW_MS - 60_000, NOW_MS, &berlin()), "10:19:30");
        assert_eq!(format_time(NOW_MS - 86_400_000, NOW_MS, &berlin()), "2026-07-14 10:20:30");
        assert_eq!(format_time(i64::MAX, NOW_MS, &berlin()), i64::MAX.to_string());
    }
}
