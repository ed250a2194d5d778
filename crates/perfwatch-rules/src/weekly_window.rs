//! Weekly time windows of quiet hours and maintenance.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use serde::{Deserialize, Serialize};

/// Daily time range on some days of the week, in a time zone.
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
            let zone = now.time_zone();
            let [from, to]: [Zoned; 2] = [
                start_date.to_datetime(from).to_zoned(zone.clone()).ok()?,
                end_date.to_datetime(to).to_zoned(zone.clone()).ok()?,
            ];
            (from <= now && now < to).then(|| to.timestamp().as_millisecond())
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
