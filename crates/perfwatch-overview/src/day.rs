//! Last 24 hours of every host in memory, in buckets of 15 minutes.

use crate::host_values::{HostValues, MountUsage};
use perfwatch_rules::condition::Comparison;
use perfwatch_rules::forecast;
use std::sync::Arc;

/// Width of a bucket in milliseconds.
pub(crate) const BUCKET_MS: i64 = 900_000;
/// Buckets that are kept: those of a day.
pub(crate) const MAX_BUCKETS: usize = 96;
/// Forecasts beyond this time are not reported, in milliseconds.
const MAX_FORECAST_MS: f64 = 30.0 * 86_400_000.0;
/// Metrics of [`BucketMeans::means`], in its order.
pub(crate) const DAY_METRICS: [&str; 4] =
    ["cpu.usage", "memory.used_percent", "network.total.rx_bytes", "network.total.tx_bytes"];

/// Number of the bucket that contains a time.
pub(crate) fn bucket_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(BUCKET_MS)
}

fn slot_of(bucket: i64) -> usize {
    usize::try_from(bucket.rem_euclid(MAX_BUCKETS as i64)).unwrap_or_default()
}

/// Number of a bucket in the small form in which each slot of each host has it.
type SlotBucket = i32;

fn slot_bucket(bucket: i64) -> SlotBucket {
    SlotBucket::try_from(bucket).unwrap_or(-1)
}

/// Means of a bucket. Sums are single precision: a day of a fleet of thousands stays small.
#[derive(Debug, Clone, Copy, Default)]
struct BucketMeans {
    /// Number of the bucket; a lower number than expected is outdated.
    bucket: SlotBucket,
    sums: [f32; DAY_METRICS.len()],
    counts: [u16; DAY_METRICS.len()],
}

/// Course of a filesystem.
#[derive(Debug)]
struct MountDay {
    mount: Arc<str>,
    /// Bucket and used percent.
    slots: Box<[(SlotBucket, f32); MAX_BUCKETS]>,
}

/// Filesystem that becomes full if its trend continues.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    pub(crate) mount: Arc<str>,
    pub(crate) percent: f64,
    pub(crate) full_at_ms: i64,
}

/// Last 24 hours of a host.
#[derive(Debug)]
pub(crate) struct HostDay {
    buckets: Box<[BucketMeans; MAX_BUCKETS]>,
    mounts: Vec<MountDay>,
    /// Time of the newest sample.
    last_at_ms: i64,
    pub(crate) filling: Vec<Filling>,
}

impl Default for HostDay {
    fn default() -> Self {
        Self {
            buckets: Box::new([BucketMeans { bucket: -1, ..BucketMeans::default() }; MAX_BUCKETS]),
            mounts: Vec::new(),
            last_at_ms: 0,
            filling: Vec::new(),
        }
    }
}

impl HostDay {
    /// Adds the values of a snapshot, unless a snapshot of that time was added before.
    #[expect(clippy::cast_possible_truncation, reason = "single precision suffices for a small chart")]
    pub(crate) fn add(&mut self, values: &HostValues) {
        if values.at_ms <= self.last_at_ms {
            return;
        }
        self.last_at_ms = values.at_ms;
        let bucket = bucket_of(values.at_ms);
        for (metric, value) in [values.cpu, values.memory, values.rx, values.tx].into_iter().enumerate() {
            if let Some(value) = value {
                self.add_sample(bucket, metric, value as f32, 1);
            }
        }
        self.mounts.retain(|day| values.mounts.iter().any(|usage| usage.mount == day.mount));
        for usage in &values.mounts {
            self.set_mount(&usage.mount, bucket, usage.percent as f32);
        }
    }

    /// Adds the sum of `count` samples of a metric of [`DAY_METRICS`].
    pub(crate) fn add_sample(&mut self, bucket: i64, metric: usize, sum: f32, count: u16) {
        let means = &mut self.buckets[slot_of(bucket)];
        let bucket = slot_bucket(bucket);
        if means.bucket < bucket {
            *means = BucketMeans { bucket, ..BucketMeans::default() };
        }
        if means.bucket == bucket {
            means.sums[metric] += sum;
            means.counts[metric] = means.counts[metric].saturating_add(count);
        }
    }

    /// Sets the used percent of a mount in a bucket.
    pub(crate) fn set_mount(&mut self, mount: &Arc<str>, bucket: i64, percent: f32) {
        let known = self.mounts.iter().position(|day| day.mount == *mount).unwrap_or_else(|| {
            self.mounts.push(MountDay { mount: mount.clone(), slots: Box::new([(-1, 0.0); MAX_BUCKETS]) });
            self.mounts.len() - 1
        });
        let slot = &mut self.mounts[known].slots[slot_of(bucket)];
        if slot.0 <= slot_bucket(bucket) {
            *slot = (slot_bucket(bucket), percent);
        }
    }

    /// Returns whether a metric has samples in a bucket.
    pub(crate) fn contains_bucket(&self, bucket: i64) -> bool {
        let means = &self.buckets[slot_of(bucket)];
        means.bucket == slot_bucket(bucket) && means.counts[0] > 0
    }

    /// Returns whether the course of these filesystems is kept.
    pub(crate) fn contains_mounts(&self, mounts: &[MountUsage]) -> bool {
        mounts.iter().all(|usage| self.mounts.iter().any(|day| day.mount == usage.mount))
    }

    /// Mean of a metric of [`DAY_METRICS`] in a bucket.
    pub(crate) fn mean(&self, bucket: i64, metric: usize) -> Option<f64> {
        let means = &self.buckets[slot_of(bucket)];
        let count = means.counts[metric];
        (means.bucket == slot_bucket(bucket) && count > 0)
            .then(|| f64::from(means.sums[metric]) / f64::from(count))
    }

    /// Forecasts when the filesystems become full.
    #[expect(clippy::cast_possible_truncation, reason = "the time is below 30 days")]
    pub(crate) fn forecast(&mut self, now_ms: i64) {
        let current = bucket_of(now_ms);
        let forecast_mount = |day: &MountDay| {
            let mut points: Vec<(i64, f64)> = day
                .slots
                .iter()
                .map(|(bucket, percent)| (i64::from(*bucket), f64::from(*percent)))
                .filter(|(bucket, _)| *bucket > current - MAX_BUCKETS as i64 && *bucket <= current)
                .map(|(bucket, percent)| (bucket * BUCKET_MS, percent))
                .collect();
            points.sort_by_key(|(at_ms, _)| *at_ms);
            let &(last_ms, percent) = points.last()?;
            let rest_ms = forecast::time_to_target_ms(&points, 100.0, Comparison::Above)?;
            (rest_ms <= MAX_FORECAST_MS).then(|| Filling {
                mount: day.mount.clone(),
                percent,
                full_at_ms: (last_ms + rest_ms as i64).max(now_ms),
            })
        };
        self.filling = self.mounts.iter().filter_map(forecast_mount).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_764_288_000_000;

    fn values(at_ms: i64, cpu: f64, percent: f64) -> HostValues {
        let mounts = vec![MountUsage { mount: "/data".into(), percent }];
        HostValues { at_ms, cpu: Some(cpu), mounts, ..HostValues::default() }
    }

    #[test]
    fn day_contains_means_of_buckets() {
        let mut day = HostDay::default();
        for (offset_ms, cpu) in [(0, 10.0), (15_000, 30.0), (15_000, 90.0), (BUCKET_MS, 50.0)] {
            day.add(&values(START_MS + offset_ms, cpu, 40.0));
        }
        let first = bucket_of(START_MS);
        assert_eq!(day.mean(first, 0), Some(20.0), "the repeated snapshot counts once");
        assert_eq!(day.mean(first + 1, 0), Some(50.0));
        assert_eq!(day.mean(first + 2, 0), None);
        assert_eq!(day.mean(first, 1), None, "no memory was sent");
    }

    #[test]
    fn old_buckets_are_replaced_after_a_day() {
        let mut day = HostDay::default();
        let first = bucket_of(START_MS);
        day.add(&values(START_MS, 10.0, 40.0));
        day.add(&values(START_MS + MAX_BUCKETS as i64 * BUCKET_MS, 70.0, 40.0));
        assert_eq!(day.mean(first, 0), None);
        assert_eq!(day.mean(first + MAX_BUCKETS as i64, 0), Some(70.0));
        day.add_sample(first, 0, 10.0, 1);
        assert_eq!(
            day.mean(first + MAX_BUCKETS as i64, 0),
            Some(70.0),
            "a late sample does not replace newer ones"
        );
    }

    #[test]
    fn growing_filesystem_is_forecast_and_constant_one_is_not() {
        let (mut day, mut constant) = (HostDay::default(), HostDay::default());
        for step in 0..40 {
            let at_ms = START_MS + step * BUCKET_MS;
            day.add(&values(at_ms, 1.0, 50.0 + step as f64));
            constant.add(&values(at_ms, 1.0, 91.0));
        }
        let now_ms = START_MS + 39 * BUCKET_MS;
        day.forecast(now_ms);
        constant.forecast(now_ms);
        let [filling] = &day.filling[..] else { panic!("{:?}", day.filling) };
        let rest = (filling.full_at_ms - now_ms) as f64 / BUCKET_MS as f64;
        assert!((rest - 11.0).abs() < 0.2, "{rest}");
        assert!(constant.filling.is_empty());
    }
}
