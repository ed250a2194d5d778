//! Recent snapshots of this machine in memory, so that the view can go back without a hub.

use crate::frame::{HostFrame, Ribbon};
use crate::source::SeekTarget;
use perfwatch_model::Snapshot;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum number of snapshots in memory: 15 minutes at one second, about 10 kB each.
pub(crate) const MAX_PAST_LEN: usize = 900;

/// Newest 900 snapshots, in ascending order of time.
#[derive(Debug, Default)]
pub struct RecentPast {
    snapshots: VecDeque<Arc<Snapshot>>,
}

impl RecentPast {
    /// Adds a snapshot. The oldest is dropped at the maximum number. After a step of the clock into the past,
    /// later snapshots are dropped.
    pub fn push(&mut self, snapshot: Arc<Snapshot>) {
        while self.snapshots.back().is_some_and(|last| last.at_ms >= snapshot.at_ms) {
            self.snapshots.pop_back();
        }
        if self.snapshots.len() >= MAX_PAST_LEN {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back(snapshot);
    }

    /// Snapshot of a target. A step before the oldest snapshot returns the oldest, unless the step starts there.
    pub fn seek(&self, target: SeekTarget) -> Option<HostFrame> {
        let later = |at_ms: i64| self.snapshots.partition_point(|snapshot| snapshot.at_ms <= at_ms);
        let index = match target {
            SeekTarget::At(at_ms) => later(at_ms).checked_sub(1)?,
            SeekTarget::Step { from_ms, count } if count > 0 => {
                let steps = usize::try_from(count).unwrap_or(usize::MAX);
                later(from_ms).saturating_add(steps - 1)
            }
            SeekTarget::Step { from_ms, count } => {
                let earlier = self.snapshots.partition_point(|snapshot| snapshot.at_ms < from_ms);
                let steps = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
                if earlier == 0 {
                    return None;
                }
                earlier.saturating_sub(steps)
            }
        };
        self.snapshots.get(index).cloned().map(HostFrame::from_snapshot)
    }

    /// Ribbon of a range.
    pub fn ribbon(&self, from_ms: i64, to_ms: i64) -> Ribbon {
        let mut ribbon = Ribbon { from_ms, to_ms, ..Ribbon::default() };
        let within = |snapshot: &&Arc<Snapshot>| (from_ms..=to_ms).contains(&snapshot.at_ms);
        for snapshot in self.snapshots.iter().filter(within) {
            ribbon.times_ms.push(snapshot.at_ms);
            ribbon.cpu.push(snapshot.value("cpu.usage", ""));
            ribbon.memory.push(snapshot.value("memory.used_percent", ""));
        }
        ribbon
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::snapshot_at;

    fn past(times: &[i64]) -> RecentPast {
        let mut past = RecentPast::default();
        for at_ms in times {
            past.push(Arc::new(snapshot_at(*at_ms)));
        }
        past
    }

    #[test]
    fn recent_past_finds_snapshots_by_time_and_step() {
        let past = past(&[1_000, 2_000, 3_000, 9_000]);
        let step = |from_ms, count| SeekTarget::Step { from_ms, count };
        for (target, expected) in [
            (SeekTarget::At(999), None),
            (SeekTarget::At(1_000), Some(1_000)),
            (SeekTarget::At(8_999), Some(3_000)),
            (SeekTarget::At(i64::MAX), Some(9_000)),
            (step(3_000, -1), Some(2_000)),
            (step(3_000, -2), Some(1_000)),
            (step(3_000, -9), Some(1_000)),
            (step(1_000, -1), None),
            (step(3_000, 1), Some(9_000)),
            (step(2_500, 1), Some(3_000)),
            (step(1_000, 2), Some(3_000)),
            (step(9_000, 1), None),
            (step(1_000, i32::MAX), None),
            (step(9_000, i32::MIN), Some(1_000)),
        ] {
            assert_eq!(past.seek(target).map(|frame| frame.at_ms()), expected, "{target:?}");
        }
    }

    #[test]
    fn recent_past_is_bounded_and_ordered() {
        let mut recent = RecentPast::default();
        for second in 0..2 * MAX_PAST_LEN {
            recent.push(Arc::new(snapshot_at(second as i64 * 1_000)));
        }
        assert_eq!(recent.snapshots.len(), MAX_PAST_LEN);
        // The clock was set back.
        recent.push(Arc::new(snapshot_at(1_000_500)));
        assert_eq!(recent.seek(SeekTarget::At(i64::MAX)).unwrap().at_ms(), 1_000_500);
        assert!(recent.snapshots.iter().is_sorted_by(|a, b| a.at_ms < b.at_ms));
    }

    #[test]
    fn ribbon_contains_the_points_of_the_range() {
        let ribbon = past(&[1_000, 2_000, 3_000]).ribbon(1_500, 3_000);
        assert_eq!(ribbon.times_ms, [2_000, 3_000]);
        assert_eq!(ribbon.cpu, [Some(42.5), Some(42.5)]);
        assert_eq!(ribbon.memory.len(), 2);
    }
}
