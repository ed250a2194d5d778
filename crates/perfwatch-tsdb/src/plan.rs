//! Which tier answers which stretch of a range. A window that took in rows since it was rolled
//! up is read from the finer tier; what the finer tier let go is read from the coarser one.

use crate::query::Tier;
use crate::rollup::bucket_start;
use std::collections::HashSet;

/// What must be known of a host's history to read it.
#[derive(Clone, Debug, Default)]
pub struct TierState {
    /// Raw rows before this are gone, and counted in the minutes.
    pub raw_watermark_ms: i64,
    /// Minutes before this are gone, and counted in the hours.
    pub minute_watermark_ms: i64,
    /// Hours with rows that the minutes do not have yet.
    pub dirty_hours: HashSet<i64>,
    /// Days with minutes that the hours do not have yet.
    pub dirty_days: HashSet<i64>,
}

/// A stretch that one tier answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSegment {
    /// Who answers.
    pub tier: Tier,
    /// From here.
    pub from_ms: i64,
    /// To before here.
    pub to_ms: i64,
}

const HOUR_MS: i64 = 3_600_000;

impl TierState {
    fn tier_at(&self, at_ms: i64, wanted: Tier) -> Tier {
        let there = if at_ms < self.minute_watermark_ms {
            Tier::Hour
        } else if at_ms < self.raw_watermark_ms {
            Tier::Minute
        } else {
            Tier::Raw
        };
        let dirty_hour = self.dirty_hours.contains(&bucket_start(at_ms, HOUR_MS));
        let stale = match there.max(wanted) {
            Tier::Raw => false,
            Tier::Minute => dirty_hour,
            Tier::Hour => {
                dirty_hour || self.dirty_days.contains(&bucket_start(at_ms, Tier::Minute.window_ms()))
            }
        };
        if !stale {
            return there.max(wanted);
        }
        // The finest that has it all: raw rows where they are not in the minutes yet.
        if dirty_hour { there } else { there.max(Tier::Minute) }
    }

    /// The stretches of `from_ms..to_ms`, in order, where `wanted` is fine enough.
    pub fn plan(&self, wanted: Tier, from_ms: i64, to_ms: i64) -> Vec<PlanSegment> {
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
            let stretch =
                PlanSegment { tier: self.tier_at(pair[0], wanted), from_ms: pair[0], to_ms: pair[1] };
            match plan.last_mut() {
                Some(last) if last.tier == stretch.tier => last.to_ms = stretch.to_ms,
                _ => plan.push(stretch),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(state: &TierState, wanted: Tier, from_h: i64, to_h: i64) -> Vec<(Tier, i64, i64)> {
        let plan = state.plan(wanted, from_h * HOUR_MS, to_h * HOUR_MS);
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
        assert_eq!(tiers(&state, Raw, 0, 48), [(Hour, 0, 10), (Minute, 10, 24), (Raw, 24, 48)]);
        assert_eq!(
            tiers(&state, Minute, 12, 60),
            [(Minute, 12, 30), (Raw, 30, 31), (Minute, 31, 47), (Raw, 47, 48), (Minute, 48, 60)]
        );
        assert_eq!(
            tiers(&state, Hour, 0, 72),
            [(Hour, 0, 24), (Minute, 24, 30), (Raw, 30, 31), (Minute, 31, 47), (Raw, 47, 48), (Hour, 48, 72)]
        );
        assert_eq!(TierState::default().plan(Hour, 5, 5), []);
        assert_eq!(tiers(&TierState::default(), Hour, 1, 2), [(Hour, 1, 2)]);
    }

    #[test]
    fn dirty_hour_at_the_watermark() {
        let state = TierState {
            raw_watermark_ms: HOUR_MS + HOUR_MS / 2,
            dirty_hours: HashSet::from([HOUR_MS]),
            ..TierState::default()
        };
        let plan = state.plan(Tier::Hour, HOUR_MS, 3 * HOUR_MS);
        let stretch = |tier, from_ms, to_ms| PlanSegment { tier, from_ms, to_ms };
        assert_eq!(
            plan,
            [
                stretch(Tier::Minute, HOUR_MS, HOUR_MS + HOUR_MS / 2),
                stretch(Tier::Raw, HOUR_MS + HOUR_MS / 2, 2 * HOUR_MS),
                stretch(Tier::Hour, 2 * HOUR_MS, 3 * HOUR_MS)
            ]
        );
    }
}
