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

/// Values of a bucket, reduced to what the aggregate of the window needs.
#[derive(Debug, Clone, Copy)]
struct WindowBucket {
    start_ms: i64,
    /// Smallest or largest value, or the sum of all values.
    value: f64,
    count: u32,
    /// Time of the first value after the start of the bucket, in milliseconds.
    first_offset_ms: u32,
}

impl WindowBucket {
    fn first_ms(&self) -> i64 {
        self.start_ms + i64::from(self.first_offset_ms)
    }
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
    latest: Option<(i64, f64)>,
    /// Apart, because most rules compare the latest value only.
    past: Option<Box<Past>>,
}

/// Values of a window that has a length.
#[derive(Debug, Clone)]
struct Past {
    aggregate: Aggregate,
    window_ms: i64,
    lookback_ms: i64,
    width_ms: i64,
    buckets: VecDeque<WindowBucket>,
    /// Values of a percentile.
    values: SortedValues,
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

impl Past {
    /// Adds a value. Returns whether it begins a bucket.
    fn push(&mut self, at_ms: i64, value: f64) -> bool {
        let oldest = at_ms.saturating_sub(self.lookback_ms);
        if self.aggregate == Aggregate::P95 {
            let min_distance_ms = self.lookback_ms / MAX_PERCENTILE_VALUES;
            if self.values.by_time.back().is_none_or(|(last, _)| at_ms - last > min_distance_ms) {
                self.values.push(at_ms, value);
            }
            self.values.evict_before(oldest);
        }
        let offset_ms = at_ms.rem_euclid(self.width_ms);
        let start_ms = at_ms - offset_ms;
        let newest = self.buckets.back_mut().filter(|bucket| bucket.start_ms == start_ms);
        let is_new = newest.is_none();
        match newest {
            Some(bucket) => {
                bucket.count += 1;
                bucket.value = match self.aggregate {
                    Aggregate::Min => bucket.value.min(value),
                    Aggregate::Max => bucket.value.max(value),
                    _ => bucket.value + value,
                };
            }
            None => {
                if self.buckets.len() == self.buckets.capacity() {
                    self.buckets.reserve_exact(ADDED_CAPACITY);
                }
                let first_offset_ms = u32::try_from(offset_ms).unwrap_or(u32::MAX);
                self.buckets.push_back(WindowBucket { start_ms, value, count: 1, first_offset_ms });
            }
        }
        while self.buckets.front().is_some_and(|bucket| bucket.start_ms + self.width_ms <= oldest) {
            self.buckets.pop_front();
        }
        is_new
    }

    /// Aggregate of the window that ends at `to_ms`.
    fn aggregate(&self, to_ms: i64) -> Option<f64> {
        let from_ms = to_ms.saturating_sub(self.window_ms);
        let within = || {
            let overlaps = move |bucket: &&WindowBucket| {
                bucket.start_ms + self.width_ms > from_ms && bucket.start_ms <= to_ms
            };
            self.buckets.iter().filter(overlaps)
        };
        // Tolerance of a sixteenth: about the accuracy of the buckets.
        if to_ms - within().next()?.first_ms() < self.window_ms - self.window_ms / 16 {
            return None;
        }
        let values = || within().map(|bucket| bucket.value);
        match self.aggregate {
            Aggregate::P95 => {
                // Nearest-rank method.
                let rank = (self.values.by_size.len() * 95).div_ceil(100).checked_sub(1)?;
                self.values.by_size.get(rank).copied()
            }
            Aggregate::Min => values().reduce(f64::min),
            Aggregate::Max => values().reduce(f64::max),
            Aggregate::Mean | Aggregate::Last => {
                let count: u32 = within().map(|bucket| bucket.count).sum();
                Some(values().sum::<f64>() / f64::from(count))
            }
        }
    }
}

impl SlidingWindow {
    /// Creates an empty window of an aggregate. `lookback_ms` covers the window and the offset to an earlier window.
    pub fn new(aggregate: Aggregate, window_ms: i64, lookback_ms: i64) -> Self {
        let lookback_ms = lookback_ms.max(window_ms);
        let past = (aggregate != Aggregate::Last && lookback_ms > 0).then(|| {
            Box::new(Past {
                aggregate,
                window_ms,
                lookback_ms,
                // A long lookback makes buckets wider, so that their number stays bounded.
                width_ms: (window_ms / MAX_WINDOW_BUCKETS).max(lookback_ms / (8 * MAX_WINDOW_BUCKETS)).max(1),
                buckets: VecDeque::new(),
                values: SortedValues::default(),
            })
        });
        Self { latest: None, past }
    }

    /// Adds a value. Values that are not newer than the latest value and NaN are ignored. Returns whether the value
    /// begins a bucket.
    pub fn push(&mut self, at_ms: i64, value: f64) -> bool {
        if value.is_nan() || self.latest.is_some_and(|(last, _)| last >= at_ms) {
            return false;
        }
        self.latest = Some((at_ms, value));
        self.past.as_mut().is_some_and(|past| past.push(at_ms, value))
    }

    /// Time and value of the latest observation.
    pub fn latest(&self) -> Option<(i64, f64)> {
        self.latest
    }

    /// Aggregate of the window that ends `offset_ms` before the latest value; the latest value if the window has no
    /// length. `None` without values or if the values do not cover the window.
    pub fn aggregate(&self, offset_ms: i64) -> Option<f64> {
        let (last_ms, last) = self.latest?;
        match &self.past {
            None => Some(last),
            Some(past) => past.aggregate(last_ms.saturating_sub(offset_ms)),
        }
    }

    /// Start and mean of each bucket of a mean, in the order of time.
    pub fn bucket_means(&self) -> impl Iterator<Item = (i64, f64)> {
        self.past
            .iter()
            .flat_map(|past| &past.buckets)
            .map(|bucket| (bucket.start_ms, bucket.value / f64::from(bucket.count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_aggregates() {
        // The buckets are 3.125 s wide.
        for (aggregate, expected, tolerance) in [
            (Aggregate::Last, 199.0, 0.0),
            (Aggregate::Min, 99.0, 3.2),
            (Aggregate::Max, 199.0, 0.0),
            (Aggregate::Mean, 149.0, 1.6),
            (Aggregate::P95, 194.0, 0.0),
        ] {
            let mut window = SlidingWindow::new(aggregate, 100_000, 100_000);
            for second in 0..200_i64 {
                window.push(second * 1_000, second as f64);
            }
            let value = window.aggregate(0).unwrap();
            assert!((value - expected).abs() <= tolerance, "{aggregate:?} {value}");
            window.push(50_000, 1e9);
            assert_eq!(window.aggregate(0), Some(value), "late values are ignored");
        }
    }

    #[test]
    fn offset_is_limited_by_lookback() {
        let mut window = SlidingWindow::new(Aggregate::Mean, 60_000, 60_000 + 3_600_000);
        for second in 0..4_000_i64 {
            window.push(second * 1_000, if second < 600 { 10.0 } else { 30.0 });
        }
        assert_eq!(window.aggregate(0), Some(30.0));
        assert_eq!(window.aggregate(3_500_000), Some(10.0));
        let bucket_count = window.bucket_means().count();
        assert!(bucket_count < 300, "{bucket_count}");
    }

    #[test]
    fn partial_window_has_no_value_and_memory_is_bounded() {
        let mut window = SlidingWindow::new(Aggregate::Mean, 60_000, 60_000);
        window.push(1_000, 5.0);
        assert_eq!(window.aggregate(0), None);
        let mut latest = SlidingWindow::new(Aggregate::Last, 0, 0);
        assert_eq!(latest.aggregate(0), None);
        latest.push(1, 2.0);
        assert!(latest.past.is_none() && latest.latest() == Some((1, 2.0)));
        assert_eq!(latest.aggregate(0), Some(2.0));
        let mut day = SlidingWindow::new(Aggregate::P95, 86_400_000, 86_400_000);
        for index in 0..50_000_i64 {
            day.push(index * 2_000, 7.0);
        }
        let past = day.past.as_ref().unwrap();
        assert!(past.buckets.len() <= 34 && past.values.by_size.len() <= 600);
        assert_eq!(day.aggregate(0), Some(7.0));
    }

    #[test]
    fn alert_on_the_latest_value_is_small() {
        assert!(size_of::<SlidingWindow>() <= 32);
        assert!(size_of::<WindowBucket>() <= 24);
    }
}
