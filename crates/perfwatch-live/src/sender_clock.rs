//! Clock of a sender, compared with the clock of the hub. The only place where times of snapshots are
//! corrected.

use std::collections::VecDeque;

/// Offset up to which a clock is not corrected, and jitter up to which a correction stays the same: a
/// request takes that long on a slow network.
const MAX_JITTER_MS: i64 = 2_000;
/// Lead of a snapshot over the hub's clock that is not corrected if the sender does not state its own time:
/// scripts round to minutes.
const MAX_UNSTATED_LEAD_MS: i64 = 60_000;
/// Lead that is a wrong clock or time zone. A longer one is no time at all and is rejected.
pub const MAX_CORRECTED_LEAD_MS: i64 = 26 * 3_600_000;
/// Number of deliveries whose delay must be equal before it counts as the usual one.
const MIN_EQUAL_LAGS: usize = 3;
/// Difference up to which delays are equal.
const MAX_LAG_JITTER_MS: i64 = 10_000;
/// Time that equal delays must span: an import delivers many old snapshots within seconds.
const MIN_LAG_PERIOD_MS: i64 = 60_000;

/// Clock of a sender.
#[derive(Debug, Clone, Default)]
pub struct SenderClock {
    /// Measured offset from the hub's clock in milliseconds; positive if the sender is ahead.
    skew_ms: Option<i64>,
    /// Offset that is subtracted from the times of snapshots.
    correction_ms: i64,
    /// Times of recent deliveries of a sender that does not state its time, and the ages of their newest
    /// snapshots.
    lags: VecDeque<(i64, i64)>,
}

impl SenderClock {
    /// Records the offset of a sender that stated its own time. A clock behind is corrected as one ahead.
    fn measure(&mut self, skew_ms: i64) {
        self.skew_ms = Some(skew_ms);
        if (skew_ms - self.correction_ms).abs() > MAX_JITTER_MS {
            self.correction_ms = if skew_ms.abs() > MAX_JITTER_MS { skew_ms } else { 0 };
        }
    }

    /// Corrects the times of a delivery to the clock of the hub. `skew_ms` is the offset of the sender if it
    /// stated its own time.
    ///
    /// A snapshot from the future shows a wrong clock also without that: of a script, or of an agent that
    /// took it before its clock was set.
    pub fn correct(&mut self, times_ms: &mut [&mut i64], skew_ms: Option<i64>, now_ms: i64) {
        if let Some(skew_ms) = skew_ms {
            self.measure(skew_ms);
            times_ms.iter_mut().for_each(|at_ms| **at_ms = at_ms.saturating_sub(self.correction_ms));
        }
        let newest_ms = times_ms.iter().map(|at_ms| **at_ms).max().unwrap_or(now_ms);
        let lead_ms = newest_ms.saturating_sub(now_ms);
        if (MAX_UNSTATED_LEAD_MS + 1..=MAX_CORRECTED_LEAD_MS).contains(&lead_ms) {
            let is_ahead = |at_ms: &&mut &mut i64| ***at_ms > now_ms + MAX_UNSTATED_LEAD_MS;
            times_ms.iter_mut().filter(is_ahead).for_each(|at_ms| **at_ms -= lead_ms);
        }
        if skew_ms.is_none() {
            let is_ahead = lead_ms > MAX_UNSTATED_LEAD_MS;
            self.skew_ms =
                is_ahead.then_some(lead_ms).or_else(|| (lead_ms.abs() <= MAX_UNSTATED_LEAD_MS).then_some(0));
        }
        if skew_ms.is_some() {
            self.lags.clear();
            return;
        }
        let newest_ms = times_ms.iter().map(|at_ms| **at_ms).max().unwrap_or(now_ms);
        self.lags.push_back((now_ms, now_ms.saturating_sub(newest_ms).max(0)));
        if self.lags.len() > MIN_EQUAL_LAGS {
            self.lags.pop_front();
        }
    }

    /// Records the offset of a host whose snapshots have the times of the hub.
    pub fn set_skew(&mut self, skew_ms: i64) {
        self.skew_ms = Some(skew_ms);
    }

    /// Measured offset from the hub's clock in milliseconds, if known.
    pub fn skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }

    /// Usual age of the newest snapshot of a delivery in milliseconds. A script whose snapshots are always
    /// ten minutes old has a clock behind or a delay; its snapshots are not a backfill.
    pub fn lag_ms(&self) -> i64 {
        let ages = || self.lags.iter().map(|(_, age_ms)| *age_ms);
        let (Some(min), Some(max), Some(first), Some(last)) =
            (ages().min(), ages().max(), self.lags.front(), self.lags.back())
        else {
            return 0;
        };
        let is_usual = self.lags.len() == MIN_EQUAL_LAGS
            && max - min <= MAX_LAG_JITTER_MS
            && last.0 - first.0 >= MIN_LAG_PERIOD_MS;
        if is_usual { min } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;
    const MINUTE: i64 = 60_000;

    fn correct(clock: &mut SenderClock, offsets_ms: &[i64], skew_ms: Option<i64>) -> Vec<i64> {
        let mut times: Vec<i64> = offsets_ms.iter().map(|offset| NOW + offset).collect();
        clock.correct(&mut times.iter_mut().collect::<Vec<_>>(), skew_ms, NOW);
        times.iter().map(|at_ms| at_ms - NOW).collect()
    }

    #[test]
    fn clocks_ahead_and_behind_are_corrected_alike() {
        for skew in [130_000, -600_000, -3_600_000, 7_200_000, -56 * 365 * 86_400_000] {
            let mut clock = SenderClock::default();
            let delivered = correct(&mut clock, &[skew - 2_000, skew], Some(skew));
            assert_eq!(delivered, [-2_000, 0], "{skew}");
            // The measurement varies with the network, the correction does not.
            assert_eq!(correct(&mut clock, &[skew], Some(skew - 900)), [0], "{skew}");
            assert_eq!(clock.skew_ms(), Some(skew - 900));
            // The clock was set.
            assert_eq!(correct(&mut clock, &[-5], Some(-300)), [-5], "{skew}");
        }
    }

    #[test]
    fn small_offsets_are_not_corrected() {
        let mut clock = SenderClock::default();
        assert_eq!(correct(&mut clock, &[1_500], Some(1_500)), [1_500]);
        assert_eq!(correct(&mut clock, &[50_000], None), [50_000]);
    }

    #[test]
    fn snapshots_from_the_future_show_a_wrong_clock() {
        let mut clock = SenderClock::default();
        assert_eq!(correct(&mut clock, &[119 * MINUTE, 120 * MINUTE], None), [-MINUTE, 0]);
        assert_eq!(clock.skew_ms(), Some(120 * MINUTE));
        assert_eq!(correct(&mut clock, &[0], None), [0]);
        assert_eq!(clock.skew_ms(), Some(0));
        // Taken by an agent before its clock was set, sent afterwards.
        assert_eq!(correct(&mut clock, &[130_000, 132_000, 0], Some(0)), [-2_000, 0, 0]);
        // No time at all.
        assert_eq!(correct(&mut clock, &[900 * 86_400_000], None), [900 * 86_400_000]);
    }

    #[test]
    fn equal_delays_are_usual_and_a_backfill_is_not() {
        /// Usual lag after deliveries at these times with these delays.
        fn lag(deliveries: &[(i64, i64)], skew_ms: Option<i64>) -> i64 {
            let mut clock = SenderClock::default();
            for (after_ms, delay_ms) in deliveries {
                let now_ms = NOW + after_ms;
                clock.correct(&mut [&mut (now_ms - delay_ms)], skew_ms, now_ms);
            }
            clock.lag_ms()
        }
        let delayed = [(0, 7_200_000), (5 * MINUTE, 7_203_000), (10 * MINUTE, 7_198_000)];
        assert_eq!(lag(&delayed[..2], None), 0);
        assert_eq!(lag(&delayed, None), 7_198_000);
        assert_eq!(lag(&delayed, Some(0)), 0, "an agent that sends what it collected during an outage");
        // History that is imported: in large steps, or a row at a time.
        assert_eq!(lag(&[(0, 1_200 * MINUTE), (100, 700 * MINUTE), (200, 200 * MINUTE)], None), 0);
        assert_eq!(lag(&[(0, 900_000), (100, 898_000), (200, 896_000)], None), 0);
    }
}
