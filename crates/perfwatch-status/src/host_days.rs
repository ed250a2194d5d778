//! Availability of a host in memory: stored days, and the current day.

use crate::availability::{Availability, DAY_MS, day_of};
use perfwatch_store::status_pages::AvailabilityDay;
use std::collections::BTreeMap;

/// Number of days that a page shows, the current day included.
pub(crate) const MAX_DAYS: i64 = 90;
/// Time after the end of a day in which its last rows arrive.
const SETTLE_DELAY_MS: i64 = 60_000;

/// Availability of a host.
#[derive(Debug, Default)]
pub(crate) struct HostDays {
    /// Stored days by number.
    pub(crate) stored: BTreeMap<i64, AvailabilityDay>,
    pub(crate) live: Option<LiveDay>,
    /// First row in the days of a page.
    pub(crate) first_row_ms: Option<i64>,
}

/// Current day of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveDay {
    pub(crate) day: i64,
    /// Last row that was read; later rows are read from here.
    pub(crate) last_row_ms: Option<i64>,
    /// Until the last row.
    pub(crate) counted: Availability,
    /// Until the last refresh.
    pub(crate) total: Availability,
}

/// First of the days of a page.
pub(crate) fn first_day(now_ms: i64) -> i64 {
    day_of(now_ms) - MAX_DAYS + 1
}

impl HostDays {
    /// Days until `today`, oldest first; `None` for days that are not computed yet.
    pub(crate) fn list(&self, today: i64) -> Vec<Option<Availability>> {
        let live = self.live.filter(|live| live.day == today).map(|live| live.total);
        let stored = |day: i64| self.stored.get(&day).map(Availability::from);
        (today - MAX_DAYS + 1..=today).map(|day| if day == today { live } else { stored(day) }).collect()
    }

    /// Days that are over and not computed yet, or that may have changed since: the host has sent something since
    /// the day. Newest first.
    pub(crate) fn missing(&self, newest_ms: Option<i64>, now_ms: i64) -> Vec<i64> {
        let today = day_of(now_ms);
        let is_missing = |day: &i64| match self.stored.get(day) {
            _ if now_ms < (day + 1) * DAY_MS + SETTLE_DELAY_MS => false,
            Some(stored) => !stored.settled && newest_ms >= Some((day + 1) * DAY_MS),
            None => true,
        };
        (today - MAX_DAYS + 1..today).rev().filter(is_missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_missing_until_they_are_settled() {
        let now_ms = 200 * DAY_MS + SETTLE_DELAY_MS;
        let stored = |day, settled| (day, Availability::default().to_day(day, settled));
        let mut days = HostDays::default();
        days.stored.extend((112..198).map(|day| stored(day, true)));
        days.stored.extend([stored(198, false)]);
        // The host is silent: nothing can have changed.
        assert_eq!(days.missing(Some(199 * DAY_MS - 1), now_ms), [199, 111]);
        assert_eq!(days.missing(Some(199 * DAY_MS), now_ms), [199, 198, 111]);
        // Rows of yesterday may still arrive.
        assert_eq!(days.missing(None, now_ms - 1), [111]);
        days.live = Some(LiveDay {
            day: 200,
            last_row_ms: None,
            counted: Availability::default(),
            total: Availability { up_ms: 5, ..Availability::default() },
        });
        let list = days.list(200);
        assert_eq!((list.len(), list[0], list[88]), (90, None, None));
        assert_eq!(list[89].map(|day| day.up_ms), Some(5));
        assert_eq!(days.list(201)[89], None);
    }
}
