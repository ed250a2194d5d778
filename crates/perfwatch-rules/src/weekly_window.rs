//! Weekly time windows of quiet hours and maintenance.

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

/// Daily time range on some days of the week, in a time zone.
///
/// A time that the clock skips is replaced by the next time that exists, so a window is never lost. If
/// the clock shows a time twice, the window starts at the first and ends at the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WeeklyWindow {
    /// Days on which the window starts, `mon` to `sun`; every day if empty.
    #[serde(default)]
    pub days: Vec<String>,
    /// Start of the window, such as `22:00`.
    pub from: String,
    /// End of the window, such as `07:00`; on the next day if it is not after the start.
    pub to: String,
    /// IANA time zone, such as `Europe/Berlin`; UTC if empty.
    #[serde(default)]
    pub timezone: String,
}

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

fn parse_time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let is_valid = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !is_valid(hour) || !is_valid(minute) {
        return None;
    }
    // 24:00 is midnight at the end of the day.
    if (hour, minute) == ("24", "00") {
        return Some(Time::midnight());
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// First instant at which the clock shows `time`, or has skipped it.
fn first_instant(zone: &TimeZone, time: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    let is_skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
    let instant = ambiguous.compatible().ok()?;
    if !is_skipped {
        return Some(instant);
    }
    // The time is inside the gap, so `instant` is at or after the transition; `preceding` excludes its
    // argument.
    zone.preceding(instant.checked_add(1.nanosecond()).ok()?).next().map(|gap| gap.timestamp())
}

/// Start and end of the window between two times of the clock.
fn window_range(zone: &TimeZone, from: DateTime, to: DateTime) -> Option<(Timestamp, Timestamp)> {
    let start = first_instant(zone, from)?;
    let end = zone.to_ambiguous_timestamp(to).later().ok()?;
    // The skipped hour contains the whole window: the window takes place after it.
    let end = if end > start { end } else { start.checked_add(from.duration_until(to)).ok()? };
    Some((start, end))
}

impl WeeklyWindow {
    fn time_zone(&self) -> Result<TimeZone, String> {
        match self.timezone.as_str() {
            "" | "UTC" => Ok(TimeZone::UTC),
            name => TimeZone::get(name).map_err(|_| {
                format!("unknown time zone {name:?}; expected an IANA name such as Europe/Berlin")
            }),
        }
    }

    /// Validates days, times and time zone. Returns the error message, or `None` if all are valid.
    pub fn validate(&self) -> Option<String> {
        if let Some(day) = self.days.iter().find(|day| !WEEKDAYS.iter().any(|(name, _)| name == day)) {
            return Some(format!("unknown weekday {day:?}; expected mon, tue, wed, thu, fri, sat or sun"));
        }
        if let Some(text) = [&self.from, &self.to].into_iter().find(|text| parse_time_of_day(text).is_none())
        {
            return Some(format!("invalid time {text:?}; expected HH:MM"));
        }
        self.time_zone().err()
    }

    /// End of the window that contains `now_ms`; `None` outside of the window. Both times are in
    /// milliseconds since 1970.
    pub fn active_until(&self, now_ms: i64) -> Option<i64> {
        let (from, to) = (parse_time_of_day(&self.from)?, parse_time_of_day(&self.to)?);
        let now = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(self.time_zone().ok()?);
        // The window started today, or yesterday and contains midnight.
        [0, 1].into_iter().find_map(|days_ago| {
            let start_date = now.date().checked_sub(days_ago.days()).ok()?;
            let is_selected = |weekday: Weekday| {
                WEEKDAYS.iter().any(|(name, day)| *day == weekday && self.days.iter().any(|d| d == name))
            };
            if !self.days.is_empty() && !is_selected(start_date.weekday()) {
                return None;
            }
            let end_date = if to > from { start_date } else { start_date.checked_add(1.day()).ok()? };
            let (from, to) = (start_date.to_datetime(from), end_date.to_datetime(to));
            let (start, end) = window_range(now.time_zone(), from, to)?;
            (start <= now.timestamp() && now.timestamp() < end).then(|| end.as_millisecond())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekly(days: &[&str], from: &str, to: &str, timezone: &str) -> WeeklyWindow {
        let days = days.iter().map(|day| (*day).to_owned()).collect();
        WeeklyWindow { days, from: from.to_owned(), to: to.to_owned(), timezone: timezone.to_owned() }
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn weekly_window_handles_midnight_and_dst() {
        let night = weekly(&[], "22:00", "07:00", "");
        let friday = weekly(&["fri"], "22:00", "07:00", "Europe/Berlin");
        let summer = weekly(&["sun"], "01:00", "05:00", "Europe/Berlin");
        for (weekly, now, until) in [
            (&night, "2026-11-21T21:59:59Z", None),
            (&night, "2026-11-21T22:00:00Z", Some("2026-11-22T07:00:00Z")),
            (&night, "2026-11-22T06:59:59Z", Some("2026-11-22T07:00:00Z")),
            (&night, "2026-11-22T07:00:00Z", None),
            // Berlin is an hour ahead of UTC; the window of Friday ends on Saturday morning.
            (&friday, "2026-11-20T21:30:00Z", Some("2026-11-21T06:00:00Z")),
            (&friday, "2026-11-21T05:30:00Z", Some("2026-11-21T06:00:00Z")),
            (&friday, "2026-11-21T21:30:00Z", None),
            // On 2026-03-29 the hour from 02:00 to 03:00 is skipped.
            (&summer, "2026-03-29T00:30:00Z", Some("2026-03-29T03:00:00Z")),
        ] {
            assert_eq!(weekly.active_until(ms(now)), until.map(ms), "{now}");
        }
    }

    #[test]
    fn window_in_a_clock_change_is_never_empty() {
        const BERLIN: &str = "Europe/Berlin";
        const NEW_YORK: &str = "America/New_York";
        const LORD_HOWE: &str = "Australia/Lord_Howe";
        for (zone, from, to, start, end) in [
            // Spring: 02:00 to 03:00 is skipped in Berlin and New York.
            (BERLIN, "02:30", "03:30", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"),
            (BERLIN, "02:00", "03:00", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"),
            (BERLIN, "02:15", "02:45", "2026-03-29T01:00:00Z", "2026-03-29T01:45:00Z"),
            (BERLIN, "01:30", "02:30", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"),
            (BERLIN, "23:00", "02:30", "2026-03-28T22:00:00Z", "2026-03-29T01:30:00Z"),
            (NEW_YORK, "02:30", "03:30", "2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"),
            (NEW_YORK, "02:00", "03:00", "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"),
            // Lord Howe skips half an hour, from 02:00 to 02:30.
            (LORD_HOWE, "02:15", "02:45", "2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z"),
            (LORD_HOWE, "02:00", "02:30", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"),
            // Autumn: 02:00 to 03:00 occurs twice, on Lord Howe 01:30 to 02:00.
            (BERLIN, "02:30", "03:30", "2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"),
            (BERLIN, "02:15", "02:45", "2026-10-25T00:15:00Z", "2026-10-25T01:45:00Z"),
            (BERLIN, "01:30", "02:30", "2026-10-24T23:30:00Z", "2026-10-25T01:30:00Z"),
            (NEW_YORK, "01:30", "02:30", "2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z"),
            (NEW_YORK, "01:15", "01:45", "2026-11-01T05:15:00Z", "2026-11-01T06:45:00Z"),
            (LORD_HOWE, "01:40", "01:50", "2026-04-04T14:40:00Z", "2026-04-04T15:20:00Z"),
        ] {
            let weekly = weekly(&[], from, to, zone);
            let (start_ms, end_ms) = (ms(start), ms(end));
            for (at_ms, expected) in [
                (start_ms - 1, None),
                (start_ms, Some(end_ms)),
                (start_ms.midpoint(end_ms), Some(end_ms)),
                (end_ms - 1, Some(end_ms)),
                (end_ms, None),
            ] {
                assert_eq!(weekly.active_until(at_ms), expected, "{zone} {from}-{to} {}", at_ms - start_ms);
            }
        }
    }

    #[test]
    fn invalid_times_are_reported() {
        assert_eq!(weekly(&["mon"], "8:00", "24:00", "Europe/Berlin").validate(), None);
        for invalid in [
            weekly(&["monday"], "08:00", "09:00", ""),
            weekly(&[], "25:00", "09:00", ""),
            weekly(&[], "08:00", "nine", ""),
            weekly(&[], "08:00", "09:00", "Mars/Olympus"),
        ] {
            assert!(invalid.validate().is_some(), "{invalid:?}");
        }
    }
}
