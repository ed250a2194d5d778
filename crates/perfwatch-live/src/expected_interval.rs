//! Expected time between the snapshots of a host. Gaps, silence, charts and alerts use it.
//!
//! Agents declare their interval. Scripts do not: their interval is learned from the times of their
//! snapshots, and is unknown until a few of them arrived.

use std::collections::VecDeque;

/// Number of distances between snapshots from which an interval is learned.
const MIN_DISTANCES: usize = 3;
/// Number of recent distances that are used.
const MAX_DISTANCES: usize = 8;
/// Factor of the median up to which a distance belongs to the interval. A longer one is an outage.
const MAX_JITTER_FACTOR: i64 = 2;
/// Maximum learned interval: one day.
const MAX_INTERVAL_MS: i64 = 86_400_000;

/// Distances between recent events, and the interval that they show.
#[derive(Debug, Clone, Default)]
struct Distances(VecDeque<i64>);

impl Distances {
    fn push(&mut self, distance_ms: i64) {
        if !(1..=MAX_INTERVAL_MS).contains(&distance_ms) {
            return;
        }
        self.0.push_back(distance_ms);
        if self.0.len() > MAX_DISTANCES {
            self.0.pop_front();
        }
    }

    /// Longest distance that is not an outage; `None` until enough distances are known.
    fn interval_ms(&self) -> Option<u32> {
        if self.0.len() < MIN_DISTANCES {
            return None;
        }
        let mut sorted: Vec<i64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let regular = sorted.iter().rev().find(|&&distance| distance <= median * MAX_JITTER_FACTOR);
        regular.and_then(|&distance| u32::try_from(distance).ok())
    }
}

/// ExpectedInterval of a host.
#[derive(Debug, Clone, Default)]
pub struct ExpectedInterval {
    /// Interval that the newest snapshot declared; 0 for none.
    declared_ms: u32,
    /// Interval known from before a restart of the hub; 0 if unknown.
    stored_ms: u32,
    /// Distances of the times of snapshots.
    rows: Distances,
    /// Distances of the arrivals at the hub. A script may deliver the rows of an hour together.
    arrivals: Distances,
    last_row_ms: Option<i64>,
    last_arrival_ms: Option<i64>,
}

impl ExpectedInterval {
    /// ExpectedInterval of a host whose interval was stored; 0 if it is unknown.
    pub fn from_stored(stored_ms: u32) -> Self {
        Self { stored_ms, ..Self::default() }
    }

    /// Records an accepted snapshot: its time, the time of its arrival, and the interval it declares or 0.
    pub fn record(&mut self, at_ms: i64, arrived_ms: i64, declared_ms: u32) {
        if self.last_row_ms.is_none_or(|last_ms| at_ms >= last_ms) {
            self.declared_ms = declared_ms;
            if let Some(last_ms) = self.last_row_ms.replace(at_ms) {
                self.rows.push(at_ms.saturating_sub(last_ms));
            }
        }
        if let Some(last_ms) = self.last_arrival_ms.replace(arrived_ms) {
            self.arrivals.push(arrived_ms.saturating_sub(last_ms));
        }
    }

    /// Expected time between the times of two snapshots in milliseconds; 0 if unknown.
    pub fn interval_ms(&self) -> u32 {
        match self.declared_ms {
            0 => self.rows.interval_ms().unwrap_or(self.stored_ms),
            declared_ms => declared_ms,
        }
    }

    /// Expected time between two arrivals in milliseconds; 0 if unknown. For a sender that declares its
    /// interval, delayed deliveries do not count.
    pub fn arrival_interval_ms(&self) -> u32 {
        match self.declared_ms {
            0 => self.arrivals.interval_ms().unwrap_or(self.stored_ms).max(self.interval_ms()),
            declared_ms => declared_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;

    /// ExpectedInterval after snapshots at these minutes, each delivered at once.
    fn expected_interval(minutes: &[i64]) -> ExpectedInterval {
        let mut expected_interval = ExpectedInterval::default();
        minutes.iter().for_each(|minute| expected_interval.record(minute * MINUTE, minute * MINUTE, 0));
        expected_interval
    }

    #[test]
    fn interval_of_scripts_is_learned() {
        for (minutes, expected) in [
            (&[0][..], 0),
            // A test by hand before the first scheduled run.
            (&[0, 1], 0),
            (&[0, 1, 6], 0),
            (&[0, 5, 10, 15], 5),
            (&[0, 1, 6, 11, 16], 5),
            // An outage of an hour is not the interval.
            (&[0, 5, 10, 15, 75, 80], 5),
            // Another schedule.
            (&[0, 1, 2, 3, 4, 34, 64, 94, 124, 154], 30),
            (&[0, 4, 10, 14, 20], 6),
        ] {
            let expected_interval = expected_interval(minutes);
            assert_eq!(i64::from(expected_interval.interval_ms()), expected * MINUTE, "{minutes:?}");
            assert_eq!(i64::from(expected_interval.arrival_interval_ms()), expected * MINUTE, "{minutes:?}");
        }
    }

    #[test]
    fn declared_and_stored_intervals_are_used() {
        let mut expected_interval = ExpectedInterval::from_stored(300_000);
        assert_eq!(expected_interval.interval_ms(), 300_000);
        expected_interval.record(0, 0, 0);
        assert_eq!(expected_interval.arrival_interval_ms(), 300_000);
        expected_interval.record(MINUTE, MINUTE, 2_000);
        assert_eq!(
            (expected_interval.interval_ms(), expected_interval.arrival_interval_ms()),
            (2_000, 2_000)
        );
        // A late row does not change the interval.
        expected_interval.record(0, MINUTE, 9_000);
        assert_eq!(expected_interval.interval_ms(), 2_000);
    }

    #[test]
    fn deliveries_may_be_rarer_than_rows() {
        let mut expected_interval = ExpectedInterval::default();
        for hour in 0..4 {
            (0..60).for_each(|minute| {
                expected_interval.record((hour * 60 + minute) * MINUTE, (hour + 1) * 60 * MINUTE, 0);
            });
        }
        assert_eq!(i64::from(expected_interval.interval_ms()), MINUTE);
        assert_eq!(i64::from(expected_interval.arrival_interval_ms()), 60 * MINUTE);
    }

    proptest! {
        #[test]
        fn regular_sender_is_within_two_intervals(
            interval_ms in 1_000_i64..1_800_000, jitter in prop::collection::vec(-20_i64..20, 4..40),
        ) {
            let mut expected_interval = ExpectedInterval::default();
            for (number, percent) in jitter.iter().enumerate() {
                let at_ms = i64::try_from(number).unwrap() * interval_ms + interval_ms * percent / 100;
                expected_interval.record(at_ms, at_ms, 0);
            }
            // The next snapshot comes at most 40 % late.
            prop_assert!(i64::from(expected_interval.arrival_interval_ms()) * 2 > interval_ms * 14 / 10);
            prop_assert!(i64::from(expected_interval.interval_ms()) <= interval_ms * 14 / 10);
        }
    }
}
