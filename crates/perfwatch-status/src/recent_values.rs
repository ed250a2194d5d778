//! Values of a host in the last hour, for the lines of its page. They are sampled from the newest values, so that no
//! request reads history; a hub that started a moment ago has few of them.

use perfwatch_overview::summary::SummaryValues;
use std::collections::VecDeque;

/// Time between two samples.
const STEP_MS: i64 = 120_000;
/// Number of samples: an hour.
const MAX_SAMPLES: i64 = 30;

/// Samples of a host, oldest first, each with the number of its step.
#[derive(Debug, Default)]
pub(crate) struct RecentValues(VecDeque<(i64, SummaryValues)>);

impl RecentValues {
    /// Adds values; a step keeps its first values.
    pub(crate) fn add(&mut self, now_ms: i64, values: SummaryValues) {
        let step = now_ms.div_euclid(STEP_MS);
        if self.0.back().is_none_or(|(last, _)| *last < step) {
            self.0.push_back((step, values));
        }
        while self.0.front().is_some_and(|(first, _)| *first <= step - MAX_SAMPLES) {
            self.0.pop_front();
        }
    }

    /// Values of each step of the last hour, oldest first; `None` for steps without a sample.
    pub(crate) fn list(&self, now_ms: i64) -> Vec<Option<SummaryValues>> {
        let last = now_ms.div_euclid(STEP_MS);
        let of_step = |step: i64| {
            let index = self.0.binary_search_by_key(&step, |(step, _)| *step).ok()?;
            Some(self.0[index].1)
        };
        (last - MAX_SAMPLES + 1..=last).map(of_step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_last_hour_are_listed_with_gaps() {
        let values = |cpu: i32| SummaryValues { cpu: Some(cpu.into()), ..SummaryValues::default() };
        let mut recent = RecentValues::default();
        let hour = MAX_SAMPLES * STEP_MS;
        for (at_ms, cpu) in [(0, 1), (STEP_MS - 1, 2), (hour - 1, 3), (hour, 4), (hour + 3 * STEP_MS, 5)] {
            recent.add(at_ms, values(cpu));
        }
        let cpu = |now_ms: i64| -> Vec<Option<f64>> {
            recent.list(now_ms).iter().map(|values| values.and_then(|values| values.cpu)).collect()
        };
        let list = cpu(hour + 3 * STEP_MS);
        assert_eq!(list.len(), 30);
        assert_eq!(list[25..], [Some(3.0), Some(4.0), None, None, Some(5.0)]);
        assert!(list[..25].iter().all(Option::is_none), "{list:?}");
        assert_eq!(cpu(3 * hour), vec![None; 30]);
    }
}
