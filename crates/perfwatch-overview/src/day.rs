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
/// Metrics of [`BucketMeans`], in the order of its values.
pub(crate) const DAY_METRICS: [&str; 4] =
    ["cpu.usage", "memory.used_percent", "network.total.rx_bytes", "network.total.tx_bytes"];

/// Number of the bucket that contains a time.
pub(crate) fn bucket_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(BUCKET_MS)
}

fn slot_of(bucket: i64) -> usize {
    usize::try_from(bucket.rem_euclid(MAX_BUCKETS as i64)).unwrap_or_default()
}

/// Means of a bucket; NaN without samples. Single precision: a day of a fleet of thousands stays small.
type BucketMeans = [f32; DAY_METRICS.len()];

const NO_MEANS: BucketMeans = [f32::NAN; DAY_METRICS.len()];

/// Sums and counts of the newest bucket with samples. Older buckets have only means.
#[derive(Debug, Default)]
struct SampledBucket {
    bucket: i64,
    sums: [f64; DAY_METRICS.len()],
    counts: [u32; DAY_METRICS.len()],
}

/// Course of a filesystem.
#[derive(Debug)]
struct MountDay {
    mount: Arc<str>,
    /// Used percent by the slot of the bucket; NaN if it is unknown.
    percents: Box<[f32; MAX_BUCKETS]>,
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
    /// Newest bucket. The slots contain the buckets of the day that ends with it.
    newest: i64,
    sampled: SampledBucket,
    means: Box<[BucketMeans; MAX_BUCKETS]>,
    mounts: Vec<MountDay>,
    /// Time of the newest sample.
    last_at_ms: i64,
    pub(crate) filling: Vec<Filling>,
}

impl Default for HostDay {
    fn default() -> Self {
        Self {
            newest: 0,
            sampled: SampledBucket::default(),
            means: Box::new([NO_MEANS; MAX_BUCKETS]),
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
                self.add_samples(bucket, metric, value, 1);
            }
        }
        self.mounts.retain(|day| values.mounts.iter().any(|usage| usage.mount == day.mount));
        for usage in &values.mounts {
            self.set_mount(&usage.mount, bucket, usage.percent as f32);
        }
    }

    /// Removes everything if the newest bucket is in the future: the clock of the hub was set back.
    pub(crate) fn clear_future(&mut self, now_ms: i64) {
        // The times of snapshots may be ahead by a minute.
        if self.newest > bucket_of(now_ms) + 1 {
            *self = Self::default();
        }
    }

    /// Slot of a bucket, which becomes the newest bucket if it is later; `None` if it is older than a day.
    fn slot(&mut self, bucket: i64) -> Option<usize> {
        let first_new = (self.newest + 1).max(bucket - MAX_BUCKETS as i64 + 1);
        for slot in (first_new..=bucket).map(slot_of) {
            self.means[slot] = NO_MEANS;
            self.mounts.iter_mut().for_each(|day| day.percents[slot] = f32::NAN);
        }
        self.newest = self.newest.max(bucket);
        self.slot_within(bucket)
    }

    /// Slot of a bucket of the day.
    fn slot_within(&self, bucket: i64) -> Option<usize> {
        (bucket <= self.newest && bucket > self.newest - MAX_BUCKETS as i64).then(|| slot_of(bucket))
    }

    /// Adds the sum of `count` samples of a metric of [`DAY_METRICS`]. For older buckets than the newest bucket with
    /// samples, these are all samples of the bucket: they replace its mean.
    #[expect(clippy::cast_possible_truncation, reason = "single precision suffices for a small chart")]
    pub(crate) fn add_samples(&mut self, bucket: i64, metric: usize, sum: f64, count: u32) {
        let Some(slot) = self.slot(bucket) else { return };
        if bucket > self.sampled.bucket {
            self.sampled = SampledBucket { bucket, ..SampledBucket::default() };
        }
        let (mut sum, mut count) = (sum, count);
        if bucket == self.sampled.bucket {
            sum += self.sampled.sums[metric];
            count += self.sampled.counts[metric];
            self.sampled.sums[metric] = sum;
            self.sampled.counts[metric] = count;
        }
        self.means[slot][metric] = (sum / f64::from(count)) as f32;
    }

    /// Sets the used percent of a mount in a bucket.
    pub(crate) fn set_mount(&mut self, mount: &Arc<str>, bucket: i64, percent: f32) {
        let Some(slot) = self.slot(bucket) else { return };
        let index = self.mounts.iter().position(|day| day.mount == *mount).unwrap_or_else(|| {
            self.mounts.push(MountDay { mount: mount.clone(), percents: Box::new([f32::NAN; MAX_BUCKETS]) });
            self.mounts.len() - 1
        });
        self.mounts[index].percents[slot] = percent;
    }

    /// Returns whether a metric has samples in a bucket.
    pub(crate) fn contains_bucket(&self, bucket: i64) -> bool {
        self.mean(bucket, 0).is_some()
    }

    /// Returns whether the course of these filesystems is kept.
    pub(crate) fn contains_mounts(&self, mounts: &[MountUsage]) -> bool {
        mounts.iter().all(|usage| self.mounts.iter().any(|day| day.mount == usage.mount))
    }

    /// Mean of a metric of [`DAY_METRICS`] in a bucket.
    pub(crate) fn mean(&self, bucket: i64, metric: usize) -> Option<f64> {
        let mean = self.means[self.slot_within(bucket)?][metric];
        (!mean.is_nan()).then(|| f64::from(mean))
    }

    /// Forecasts when the filesystems become full.
    #[expect(clippy::cast_possible_truncation, reason = "the time is below 30 days")]
    pub(crate) fn forecast(&mut self, now_ms: i64) {
        let current = bucket_of(now_ms);
        let buckets = current - MAX_BUCKETS as i64 + 1..=current;
        let slots: Vec<(i64, usize)> =
            buckets.filter_map(|bucket| Some((bucket * BUCKET_MS, self.slot_within(bucket)?))).collect();
        let forecast_mount = |day: &MountDay| {
            let points = slots.iter().map(|(at_ms, slot)| (*at_ms, f64::from(day.percents[*slot])));
            let points: Vec<(i64, f64)> = points.filter(|(_, percent)| !percent.is_nan()).collect();
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
        // A snapshot that arrives late continues a bucket of the history.
        let mut day = HostDay::default();
        day.add_samples(first, 0, 30.0, 3);
        day.add(&values(START_MS + 15_000, 50.0, 40.0));
        assert_eq!(day.mean(first, 0), Some(20.0));
    }

    #[test]
    fn old_buckets_are_replaced_after_a_day() {
        let mut day = HostDay::default();
        let first = bucket_of(START_MS);
        day.add(&values(START_MS, 10.0, 40.0));
        day.add(&values(START_MS + MAX_BUCKETS as i64 * BUCKET_MS, 70.0, 40.0));
        assert_eq!(day.mean(first, 0), None);
        assert_eq!(day.mean(first + MAX_BUCKETS as i64, 0), Some(70.0));
        day.add_samples(first, 0, 10.0, 1);
        assert_eq!(
            day.mean(first + MAX_BUCKETS as i64, 0),
            Some(70.0),
            "a late sample does not replace newer ones"
        );
        // A gap is empty, also in the slots of the buckets before it.
        day.add_samples(first + 2, 0, 90.0, 3);
        assert_eq!(day.mean(first + 2, 0), Some(30.0));
        day.set_mount(&"/data".into(), first + 2, 41.0);
        let later = first + 2 + 2 * MAX_BUCKETS as i64;
        day.add(&values(later * BUCKET_MS, 80.0, 45.0));
        assert_eq!((day.mean(first + 2, 0), day.mean(later - MAX_BUCKETS as i64, 0)), (None, None));
        assert_eq!((later - MAX_BUCKETS as i64..=later).filter_map(|bucket| day.mean(bucket, 0)).count(), 1);
        assert_eq!(day.mounts[0].percents.iter().filter(|percent| !percent.is_nan()).count(), 1);
        // The clock of the hub was ahead, and is set back.
        day.clear_future(later * BUCKET_MS - BUCKET_MS);
        assert_eq!(day.mean(later, 0), Some(80.0), "the next bucket may have begun");
        day.clear_future(START_MS);
        day.add(&values(START_MS, 20.0, 40.0));
        assert_eq!((day.mean(first, 0), day.mean(later, 0)), (Some(20.0), None));
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
