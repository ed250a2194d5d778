//! Chooses the tier for each part of a range. A dirty window (rows arrived after its roll-up) is read
//! from the finer tier. Data that retention deleted from the finer tier is read from the coarser tier.

use crate::query::Tier;
use crate::rollup::bucket_start;
use std::collections::HashSet;

/// Retention and roll-up state of a host's history.
#[derive(Clone, Debug, Default)]
pub struct TierState {
    /// Raw rows before this time are deleted; the minutes contain them.
    pub raw_watermark_ms: i64,
    /// Minutes before this time are deleted; the hours contain them.
    pub minute_watermark_ms: i64,
    /// Starts of hours with raw rows that are not rolled up to minutes yet.
    pub dirty_hours: HashSet<i64>,
    /// Starts of days with minutes that are not rolled up to hours yet.
    pub dirty_days: HashSet<i64>,
}

/// Part of a range that is read from one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSegment {
    /// Tier to read this part from.
    pub tier: Tier,
    /// Start, in milliseconds since 1970.
    pub from_ms: i64,
    /// Exclusive end, in milliseconds since 1970.
    pub to_ms: i64,
}

const HOUR_MS: i64 = 3_600_000;

impl TierState {
    /// Tier for the data at a time: `requested` or the finest tier that has complete data.
    fn tier_at(&self, at_ms: i64, requested: Tier) -> Tier {
        let available = if at_ms < self.minute_watermark_ms {
            Tier::Hour
        } else if at_ms < self.raw_watermark_ms {
            Tier::Minute
        } else {
            Tier::Raw
        };
        let dirty_hour = self.dirty_hours.contains(&bucket_start(at_ms, HOUR_MS));
        let stale = match available.max(requested) {
            Tier::Raw => false,
            Tier::Minute => dirty_hour,
            Tier::Hour => {
                dirty_hour || self.dirty_days.contains(&bucket_start(at_ms, Tier::Minute.window_ms()))
            }
        };
        if !stale {
            return available.max(requested);
        }
        // A dirty hour is complete in the raw rows only; a dirty day is complete in the minutes too.
        if dirty_hour { available } else { available.max(Tier::Minute) }
    }

    /// Splits `from_ms..to_ms` into parts, in order of time. `requested` is the coarsest useful tier.
    pub fn plan(&self, requested: Tier, from_ms: i64, to_ms: i64) -> Vec<PlanSegment> {
        let mut edges = vec![from_ms];
        edges.extend([self.raw_watermark_ms, self.minute_watermark_ms]);
        for hour in &self.dirty_hours {
            edges.extend([*hour, hour.saturating_add(HOUR_MS)]);
        }
        for day in &self.dirty_days {
            edges.extend([*day, day.saturating_add(Tier::Minute.window_ms())]);
        }
        edges.retain(|edge| (from_ms..to_ms).contains(edge));
        edges.sort_unstable();
        edges.dedup();
        edges.push(to_ms);
        let mut plan: Vec<PlanSegment> = Vec::new();
        for pair in edges.windows(2) {
            let segment =
                PlanSegment { tier: self.tier_at(pair[0], requested), from_ms: pair[0], to_ms: pair[1] };
            match plan.last_mut() {
                Some(last) if last.tier == segment.tier => last.to_ms = segment.to_ms,
                _ => plan.push(segment),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_hours(state: &TierState, requested: Tier, from_h: i64, to_h: i64) -> Vec<(Tier, i64, i64)> {
        let plan = state.plan(requested, from_h * HOUR_MS, to_h * HOUR_MS);
        plan.iter().map(|s| (s.tier, s.from_ms / HOUR_MS, s.to_ms / HOUR_MS)).collect()
    }

    #[test]
    fn segments_use_the_available_tier() {
        let state = TierState {
            raw_watermark_ms: 24 * HOUR_MS,
            minute_watermark_ms: 10 * HOUR_MS,
            dirty_hours: HashSet::from([30 * HOUR_MS, 47 * HOUR_MS]),
            dirty_days: HashSet::from([24 * HOUR_MS]),
        };
        use Tier::{Hour, Minute, Raw};
        assert_eq!(plan_hours(&state, Raw, 0, 48), [(Hour, 0, 10), (Minute, 10, 24), (Raw, 24, 48)]);
        assert_eq!(
            plan_hours(&state, Minute, 12, 60),
            [(Minute, 12, 30), (Raw, 30, 31), (Minute, 31, 47), (Raw, 47, 48), (Minute, 48, 60)]
        );
        assert_eq!(
            plan_hours(&state, Hour, 0, 72),
            [(Hour, 0, 24), (Minute, 24, 30), (Raw, 30, 31), (Minute, 31, 47), (Raw, 47, 48), (Hour, 48, 72)]
        );
        assert_eq!(TierState::default().plan(Hour, 5, 5), []);
        assert_eq!(plan_hours(&TierState::default(), Hour, 1, 2), [(Hour, 1, 2)]);
    }

    #[test]
    fn dirty_hour_at_watermark_is_read_from_both_tiers() {
        let state = TierState {
            raw_watermark_ms: HOUR_MS + HOUR_MS / 2,
            dirty_hours: HashSet::from([HOUR_MS]),
            ..TierState::default()
        };
        let plan = state.plan(Tier::Hour, HOUR_MS, 3 * HOUR_MS);
        let segment = |tier, from_ms, to_ms| PlanSegment { tier, from_ms, to_ms };
        assert_eq!(
            plan,
            [
                segment(Tier::Minute, HOUR_MS, HOUR_MS + HOUR_MS / 2),
                segment(Tier::Raw, HOUR_MS + HOUR_MS / 2, 2 * HOUR_MS),
                segment(Tier::Hour, 2 * HOUR_MS, 3 * HOUR_MS)
            ]
        );
    }
}
