//! What a rule looks at: a figure over a stretch of one series. Kept in buckets, so that a day
//! costs no more than a minute.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Which figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// Figures of the values that fell into one bucket.
#[derive(Debug, Clone, Copy)]
struct WindowBucket {
    start_ms: i64,
    first_ms: i64,
    count: u32,
    sum: f64,
    min: f64,
    max: f64,
}

/// Buckets of one window; its edge is sharp to one of them.
const WINDOW_BUCKETS: i64 = 32;
/// Values of one window that a percentile is taken of: of more, some are passed over evenly.
const MAX_PERCENTILE_VALUES: i64 = 600;

/// Values of one series, as far as a figure needs them.
#[derive(Debug, Clone)]
pub struct SlidingWindow {
    lookback_ms: i64,
    width_ms: i64,
    latest: Option<(i64, f64)>,
    buckets: VecDeque<WindowBucket>,
    values: Option<SortedValues>,
}

/// Values in the order of their time, and in that of their size.
#[derive(Debug, Clone, Default)]
struct SortedValues {
    by_time: VecDeque<(i64, f64)>,
    by_size: Vec<f64>,
}

impl SortedValues {
    fn position(&self, value: f64) -> usize {
        self.by_size.partition_point(|other| other.total_cmp(&value).is_lt())
    }

    fn push(&mut self, at_ms: i64, value: f64) {
        self.by_size.insert(self.position(value), value);
        self.by_time.push_back((at_ms, value));
    }

    fn evict_before(&mut self, oldest_ms: i64) {
        while let Some((_, value)) = self.by_time.pop_front_if(|(at_ms, _)| *at_ms <= oldest_ms) {
            self.by_size.remove(self.position(value));
        }
    }
}

impl SlidingWindow {
    /// Nothing seen yet: of a window of this length, reaching so far back.
    pub fn new(aggregate: Aggregate, window_ms: i64, reach_ms: i64) -> Self {
        Self {
            lookback_ms: reach_ms.max(window_ms),
            // Those that reach back for long are no finer than they must be.
            width_ms: (window_ms / WINDOW_BUCKETS).max(reach_ms / (8 * WINDOW_BUCKETS)).max(1),
            latest: None,
            buckets: VecDeque::new(),
            values: (aggregate == Aggregate::P95).then(SortedValues::default),
        }
    }

    /// Takes in a value; earlier ones than the last are of the past, and not heard.
    pub fn push(&mut self, at_ms: i64, value: f64) {
        if value.is_nan() || self.latest.is_some_and(|(last, _)| last >= at_ms) {
            return;
        }
        self.latest = Some((at_ms, value));
        if self.lookback_ms == 0 {
            return;
        }
        let oldest = at_ms.saturating_sub(self.lookback_ms);
        if let Some(values) = &mut self.values {
            let apart = self.lookback_ms / MAX_PERCENTILE_VALUES;
            if values.by_time.back().is_none_or(|(last, _)| at_ms - last > apart) {
                values.push(at_ms, value);
            }
            values.evict_before(oldest);
        }
        let start_ms = at_ms - at_ms.rem_euclid(self.width_ms);
        match self.buckets.back_mut().filter(|bucket| bucket.start_ms == start_ms) {
            Some(bucket) => {
                bucket.count += 1;
                bucket.sum += value;
                bucket.min = bucket.min.min(value);
                bucket.max = bucket.max.max(value);
            }
            None => self.buckets.push_back(WindowBucket {
                start_ms,
                first_ms: at_ms,
                count: 1,
                sum: value,
                min: value,
                max: value,
            }),
        }
        while self.buckets.front().is_some_and(|bucket| bucket.start_ms + self.width_ms <= oldest) {
            self.buckets.pop_front();
        }
    }

    /// The latest value and its time.
    pub fn latest(&self) -> Option<(i64, f64)> {
        self.latest
    }

    /// The figure of what ended `ago_ms` before the latest value; none where there is no value, or
    /// the window is not full.
    pub fn aggregate(&self, aggregate: Aggregate, window_ms: i64, ago_ms: i64) -> Option<f64> {
        let (last_ms, last) = self.latest?;
        if aggregate == Aggregate::Last {
            return Some(last);
        }
        let to_ms = last_ms.saturating_sub(ago_ms);
        let from_ms = to_ms.saturating_sub(window_ms);
        let within = || {
            let touches = move |bucket: &&WindowBucket| {
                bucket.start_ms + self.width_ms > from_ms && bucket.start_ms <= to_ms
            };
            self.buckets.iter().filter(touches)
        };
        // As sharp as its buckets are.
        if to_ms - within().next()?.first_ms < window_ms - window_ms / 16 {
            return None;
        }
        match (aggregate, &self.values) {
            (Aggregate::P95, Some(values)) => {
                // Nearest rank.
                let rank = (values.by_size.len() * 95).div_ceil(100).checked_sub(1)?;
                values.by_size.get(rank).copied()
            }
            (Aggregate::Min, _) => within().map(|bucket| bucket.min).reduce(f64::min),
            (Aggregate::Max, _) => within().map(|bucket| bucket.max).reduce(f64::max),
            _ => {
                let (sum, count) =
                    within().fold((0.0, 0), |(sum, count), bucket| (sum + bucket.sum, count + bucket.count));
                Some(sum / f64::from(count))
            }
        }
    }

    /// The averages of the buckets, in their order: the points of a line.
    pub fn bucket_means(&self) -> impl Iterator<Item = (i64, f64)> {
        self.buckets.iter().map(|bucket| (bucket.start_ms, bucket.sum / f64::from(bucket.count)))
    }

    /// Start of the newest bucket.
    pub fn newest_ms(&self) -> Option<i64> {
        self.buckets.back().map(|bucket| bucket.start_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_aggregates() {
        let mut window = SlidingWindow::new(Aggregate::P95, 100_000, 100_000);
        for at in 0..200_i64 {
            window.push(at * 1_000, at as f64);
        }
        // Buckets of 3.125 s: the edge is that sharp.
        for (aggregate, want, off) in [
            (Aggregate::Last, 199.0, 0.0),
            (Aggregate::Min, 99.0, 3.2),
            (Aggregate::Max, 199.0, 0.0),
            (Aggregate::Mean, 149.0, 1.6),
            (Aggregate::P95, 194.0, 0.0),
        ] {
            let figure = window.aggregate(aggregate, 100_000, 0).unwrap();
            assert!((figure - want).abs() <= off, "{aggregate:?} {figure}");
        }
        window.push(50_000, 1e9);
        assert_eq!(window.aggregate(Aggregate::Max, 100_000, 0), Some(199.0), "the past is not heard");
    }

    #[test]
    fn offset_is_limited_by_lookback() {
        let mut window = SlidingWindow::new(Aggregate::Mean, 60_000, 60_000 + 3_600_000);
        for at in 0..4_000_i64 {
            window.push(at * 1_000, if at < 600 { 10.0 } else { 30.0 });
        }
        assert_eq!(window.aggregate(Aggregate::Mean, 60_000, 0), Some(30.0));
        assert_eq!(window.aggregate(Aggregate::Mean, 60_000, 3_500_000), Some(10.0));
        assert!(window.buckets.len() < 300, "{}", window.buckets.len());
    }

    #[test]
    fn partial_window_has_no_value_and_memory_is_bounded() {
        let mut window = SlidingWindow::new(Aggregate::Mean, 60_000, 60_000);
        assert_eq!(window.aggregate(Aggregate::Last, 0, 0), None);
        window.push(1_000, 5.0);
        assert_eq!(window.aggregate(Aggregate::Mean, 60_000, 0), None);
        assert_eq!(window.aggregate(Aggregate::Last, 0, 0), Some(5.0));
        let mut latest = SlidingWindow::new(Aggregate::Last, 0, 0);
        latest.push(1, 2.0);
        assert!(latest.buckets.is_empty() && latest.latest() == Some((1, 2.0)));
        let mut day = SlidingWindow::new(Aggregate::P95, 86_400_000, 86_400_000);
        for at in 0..50_000_i64 {
            day.push(at * 2_000, 7.0);
        }
        assert!(day.buckets.len() <= 34 && day.values.as_ref().unwrap().by_size.len() <= 600);
        assert_eq!(day.aggregate(Aggregate::P95, 86_400_000, 0), Some(7.0));
    }
}
