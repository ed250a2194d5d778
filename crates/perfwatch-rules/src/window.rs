//! Sliding aggregate over one series, in 32 buckets: a window of a day costs no more memory than a
//! window of a minute.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Aggregate function over a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Aggregate {
    /// Latest value of the series.
    #[default]
    Last,
    /// Arithmetic mean of all values.
    Mean,
    /// Smallest value in the window.
    Min,
    /// Largest value in the window.
    Max,
    /// 95th percentile by the nearest-rank method.
    P95,
}

/// Statistics of the values in a bucket.
#[derive(Debug, Clone, Copy)]
struct WindowBucket {
    start_ms: i64,
    first_ms: i64,
    count: u32,
    sum: f64,
    min: f64,
    max: f64,
}

/// Maximum number of full buckets per window. The start of a window is accurate to the width of a
/// bucket.
const MAX_WINDOW_BUCKETS: i64 = 32;
/// Buckets for which a window grows at once: doubling would leave half of the space unused.
const ADDED_CAPACITY: usize = 8;
/// Maximum number of values for a percentile. More values are thinned out evenly over time.
const MAX_PERCENTILE_VALUES: i64 = 600;

/// Values of a series, reduced to the data that its aggregate needs.
#[derive(Debug, Clone)]
pub struct SlidingWindow {
    lookback_ms: i64,
    width_ms: i64,
    latest: Option<(i64, f64)>,
    buckets: VecDeque<WindowBucket>,
    /// Apart, because few windows have them.
    values: Option<Box<SortedValues>>,
}

/// Values sorted by time, and by size.
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
    /// Creates an empty window. `lookback_ms` covers the window and the offset to an earlier window.
    pub fn new(aggregate: Aggregate, window_ms: i64, lookback_ms: i64) -> Self {
        Self {
            lookback_ms: lookback_ms.max(window_ms),
            // A long lookback makes buckets wider, so that their number stays bounded.
            width_ms: (window_ms / MAX_WINDOW_BUCKETS).max(lookback_ms / (8 * MAX_WINDOW_BUCKETS)).max(1),
            latest: None,
            buckets: VecDeque::new(),
            values: (aggregate == Aggregate::P95).then(Box::default),
        }
    }

    /// Adds a value. Values that are not newer than the latest value and NaN are ignored.
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
            let min_distance_ms = self.lookback_ms / MAX_PERCENTILE_VALUES;
            if values.by_time.back().is_none_or(|(last, _)| at_ms - last > min_distance_ms) {
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
            None => {
                if self.buckets.len() == self.buckets.capacity() {
                    self.buckets.reserve_exact(ADDED_CAPACITY);
                }
                self.buckets.push_back(WindowBucket {
                    start_ms,
                    first_ms: at_ms,
                    count: 1,
                    sum: value,
                    min: value,
                    max: value,
                });
            }
        }
        while self.buckets.front().is_some_and(|bucket| bucket.start_ms + self.width_ms <= oldest) {
            self.buckets.pop_front();
        }
    }

    /// Time and value of the latest observation.
    pub fn latest(&self) -> Option<(i64, f64)> {
        self.latest
    }

    /// Aggregate of the window that ends `offset_ms` before the latest value. `None` without values or
    /// if the values do not cover the window.
    pub fn aggregate(&self, aggregate: Aggregate, window_ms: i64, offset_ms: i64) -> Option<f64> {
        let (last_ms, last) = self.latest?;
        if aggregate == Aggregate::Last {
            return Some(last);
        }
        let to_ms = last_ms.saturating_sub(offset_ms);
        let from_ms = to_ms.saturating_sub(window_ms);
        let within = || {
            let overlaps = move |bucket: &&WindowBucket| {
                bucket.start_ms + self.width_ms > from_ms && bucket.start_ms <= to_ms
            };
            self.buckets.iter().filter(overlaps)
        };
        // Tolerance of a sixteenth: about the accuracy of the buckets.
        if to_ms - within().next()?.first_ms < window_ms - window_ms / 16 {
            return None;
        }
        match (aggregate, &self.values) {
            (Aggregate::P95, Some(values)) => {
                // Nearest-rank method.
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

    /// Start and mean of each bucket, in the order of time.
    pub fn bucket_means(&self) -> impl Iterator<Item = (i64, f64)> {
        self.buckets.iter().map(|bucket| (bucket.start_ms, bucket.sum / f64::from(bucket.count)))
    }

    /// Start of the newest bucket, in milliseconds since 1970.
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
        for second in 0..200_i64 {
            window.push(second * 1_000, second as f64);
        }
        // The buckets are 3.125 s wide.
        for (aggregate, expected, tolerance) in [
            (Aggregate::Last, 199.0, 0.0),
            (Aggregate::Min, 99.0, 3.2),
            (Aggregate::Max, 199.0, 0.0),
            (Aggregate::Mean, 149.0, 1.6),
            (Aggregate::P95, 194.0, 0.0),
        ] {
            let value = window.aggregate(aggregate, 100_000, 0).unwrap();
            assert!((value - expected).abs() <= tolerance, "{aggregate:?} {value}");
        }
        window.push(50_000, 1e9);
        assert_eq!(window.aggregate(Aggregate::Max, 100_000, 0), Some(199.0), "late values are ignored");
    }

    #[test]
    fn offset_is_limited_by_lookback() {
        let mut window = SlidingWindow::new(Aggregate::Mean, 60_000, 60_000 + 3_600_000);
        for second in 0..4_000_i64 {
            window.push(second * 1_000, if second < 600 { 10.0 } else { 30.0 });
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
        for index in 0..50_000_i64 {
            day.push(index * 2_000, 7.0);
        }
        assert!(day.buckets.len() <= 34 && day.values.as_ref().unwrap().by_size.len() <= 600);
        assert_eq!(day.aggregate(Aggregate::P95, 86_400_000, 0), Some(7.0));
    }
}
