//! Values of a host in the last hour, for the lines of its page. The background task reads them from the history once,
//! then samples the newest values, so that no request reads history.

use perfwatch_overview::summary::SummaryValues;
use perfwatch_overview::summary_course::CourseSteps;
use std::collections::VecDeque;

/// Time between two samples.
const STEP_MS: i64 = 120_000;
/// Number of samples: an hour.
const MAX_SAMPLES: i64 = 30;

/// Samples of a host, oldest first, each with the number of its step.
#[derive(Debug, Default)]
pub(crate) struct RecentValues(VecDeque<(i64, SummaryValues)>);

impl RecentValues {
    /// Steps of the last hour, the current step included.
    pub(crate) fn steps(now_ms: i64) -> CourseSteps {
        let first = now_ms.div_euclid(STEP_MS) - MAX_SAMPLES + 1;
        let len = usize::try_from(MAX_SAMPLES).unwrap_or_default();
        CourseSteps { start_ms: first * STEP_MS, step_ms: STEP_MS, len }
    }

    /// Values of these steps from the history.
    pub(crate) fn from_course(steps: CourseSteps, course: Vec<Option<SummaryValues>>) -> Self {
        let numbered = (steps.start_ms.div_euclid(STEP_MS)..).zip(course);
        Self(numbered.filter_map(|(step, values)| Some((step, values?))).collect())
    }

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

    #[test]
    fn samples_continue_the_course_of_the_history() {
        let values = |cpu: i32| SummaryValues { cpu: Some(cpu.into()), ..SummaryValues::default() };
        let now_ms = 1_000 * STEP_MS + 5;
        let steps = RecentValues::steps(now_ms);
        assert_eq!((steps.start_ms, steps.len), (971 * STEP_MS, 30));
        let mut course = vec![None; 30];
        (course[0], course[28], course[29]) = (Some(values(1)), Some(values(2)), Some(values(3)));
        let mut recent = RecentValues::from_course(steps, course);
        recent.add(now_ms, values(4));
        let cpu = |recent: &RecentValues, now_ms: i64| -> Vec<Option<f64>> {
            recent.list(now_ms).iter().map(|values| values.and_then(|values| values.cpu)).collect()
        };
        let list = cpu(&recent, now_ms);
        assert_eq!((list[0], list[1]), (Some(1.0), None));
        assert_eq!(list[28..], [Some(2.0), Some(3.0)]);
        recent.add(now_ms + STEP_MS, values(5));
        assert_eq!(cpu(&recent, now_ms + STEP_MS)[27..], [Some(2.0), Some(3.0), Some(5.0)]);
    }
}
