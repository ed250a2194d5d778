//! Distribution of durations in buckets of equal ratio, from which quantiles of a period are computed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per doubling of the duration: a quantile is at most 19 % too high.
const OCTAVE_LEN: u32 = 4;
/// Upper end of the first bucket.
const MIN_BUCKET_NS: u64 = 62_500;
/// Number of buckets; the last one begins at about a minute.
pub(crate) const BUCKETS_LEN: usize = 80;

/// Bucket of a duration.
pub(crate) fn bucket_of(duration: Duration) -> usize {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let ratio = ns / MIN_BUCKET_NS;
    if ratio == 0 {
        return 0;
    }
    let octave = ratio.ilog2();
    // Position within the octave, in quarters.
    let quarter = (ns / (MIN_BUCKET_NS << octave.min(40)) * u64::from(OCTAVE_LEN))
        .saturating_add(
            ns % (MIN_BUCKET_NS << octave.min(40)) * u64::from(OCTAVE_LEN)
                / (MIN_BUCKET_NS << octave.min(40)),
        )
        .saturating_sub(u64::from(OCTAVE_LEN))
        .min(3);
    (1 + octave as usize * OCTAVE_LEN as usize + usize::try_from(quarter).unwrap_or(3)).min(BUCKETS_LEN - 1)
}

/// Upper end of a bucket, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a few significant digits")]
fn upper_ms(bucket: usize) -> f64 {
    let first_ms = MIN_BUCKET_NS as f64 / 1e6;
    if bucket == 0 {
        return first_ms;
    }
    let (octave, quarter) = ((bucket - 1) / OCTAVE_LEN as usize, (bucket - 1) % OCTAVE_LEN as usize);
    first_ms
        * 2_f64.powi(i32::try_from(octave).unwrap_or(0))
        * (1.0 + (quarter + 1) as f64 / f64::from(OCTAVE_LEN))
}

/// Quantile of counts by bucket, in milliseconds; `None` without counts.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank within the counts"
)]
pub(crate) fn quantile_ms(counts: &[u64; BUCKETS_LEN], quantile: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * quantile).ceil() as u64).max(1);
    let mut sum = 0;
    let bucket = counts.iter().position(|count| {
        sum += count;
        sum >= rank
    });
    bucket.filter(|_| total > 0).map(upper_ms)
}

/// Counts of durations since the start.
pub(crate) struct LatencyCounts([AtomicU64; BUCKETS_LEN]);

impl Default for LatencyCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl LatencyCounts {
    pub(crate) fn record(&self, duration: Duration) {
        self.0[bucket_of(duration)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> [u64; BUCKETS_LEN] {
        std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        for ms in [0.01_f64, 0.5, 1.0, 2.0, 3.3, 17.0, 250.0, 4_000.0, 30_000.0] {
            let counts = LatencyCounts::default();
            counts.record(Duration::from_secs_f64(ms / 1e3));
            let found = quantile_ms(&counts.read(), 0.5).unwrap();
            assert!(found >= ms * 0.999 && (found <= ms * 1.26 || ms < 0.07), "{ms}: {found}");
        }
        let counts = LatencyCounts::default();
        assert_eq!(quantile_ms(&counts.read(), 0.5), None);
        (0..99).for_each(|_| counts.record(Duration::from_millis(1)));
        counts.record(Duration::from_secs(1));
        assert!(quantile_ms(&counts.read(), 0.99).unwrap() < 2.0);
        assert!(quantile_ms(&counts.read(), 0.999).unwrap() > 999.0);
    }
}
