//! What a rule looks at: the latest value of a series, or a figure over a window of it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Which figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// The latest value.
    #[default]
    Last,
    /// Average.
    Mean,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// 95 of 100 values are no larger.
    P95,
}

/// Values of one series, as long as a window needs them.
#[derive(Debug, Clone, Default)]
pub struct Window {
    values: VecDeque<(i64, f32)>,
}

/// Values of one window at most: a day of ticks at 30 s. Of more, each second one goes.
const MOST: usize = 2_880;

impl Window {
    /// Takes in a value; earlier ones than the last are of the past, and not heard.
    pub fn push(&mut self, at_ms: i64, value: f64, window_ms: i64) {
        if self.values.back().is_some_and(|(last, _)| *last >= at_ms) {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough to compare by")]
        self.values.push_back((at_ms, value as f32));
        while self.values.front().is_some_and(|(first, _)| *first <= at_ms - window_ms.max(1)) {
            self.values.pop_front();
        }
        if self.values.len() > MOST {
            let mut second = false;
            self.values.retain(|_| {
                second = !second;
                second
            });
        }
    }

    /// The figure; none where there is no value, or the window is not half full yet.
    pub fn figure(&self, aggregate: Aggregate, window_ms: i64) -> Option<f64> {
        let ((first_ms, _), (last_ms, last)) = (self.values.front()?, self.values.back()?);
        if aggregate == Aggregate::Last {
            return Some(f64::from(*last));
        }
        if last_ms - first_ms < window_ms / 2 {
            return None;
        }
        let values = self.values.iter().map(|(_, value)| f64::from(*value));
        match aggregate {
            Aggregate::Last => Some(f64::from(*last)),
            #[expect(clippy::cast_precision_loss, reason = "a count of some thousand")]
            Aggregate::Mean => Some(values.sum::<f64>() / self.values.len() as f64),
            Aggregate::Min => values.reduce(f64::min),
            Aggregate::Max => values.reduce(f64::max),
            Aggregate::P95 => {
                let mut sorted: Vec<f64> = values.collect();
                // Nearest rank.
                let rank = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
                Some(*sorted.select_nth_unstable_by(rank, f64::total_cmp).1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_window() {
        let mut window = Window::default();
        for at in 0..200_i64 {
            window.push(at * 1_000, at as f64, 100_000);
        }
        for (aggregate, want) in [
            (Aggregate::Last, 199.0),
            (Aggregate::Min, 100.0),
            (Aggregate::Max, 199.0),
            (Aggregate::Mean, 149.5),
            (Aggregate::P95, 194.0),
        ] {
            assert_eq!(window.figure(aggregate, 100_000), Some(want), "{aggregate:?}");
        }
        window.push(50_000, 1e9, 100_000);
        assert_eq!(window.figure(Aggregate::Max, 100_000), Some(199.0), "the past is not heard");
    }

    #[test]
    fn too_little_says_nothing_and_too_much_is_thinned() {
        let mut window = Window::default();
        assert_eq!(window.figure(Aggregate::Last, 0), None);
        window.push(1_000, 5.0, 60_000);
        assert_eq!(window.figure(Aggregate::Mean, 60_000), None);
        assert_eq!(window.figure(Aggregate::Last, 0), Some(5.0));
        let mut window = Window::default();
        for at in 0..20_000_i64 {
            window.push(at * 1_000, 7.0, i64::MAX / 2);
        }
        assert!(window.values.len() <= MOST);
        assert_eq!(window.figure(Aggregate::Mean, 1_000), Some(7.0));
    }
}
