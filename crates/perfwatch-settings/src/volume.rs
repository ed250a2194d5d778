//! Volume that the fleet writes, measured from the stored blocks.

use perfwatch_store::shares::{TierVolume, tier_volume};
use perfwatch_store::{Store, StoreError};
use perfwatch_tsdb::Tier;
use std::time::Duration;
use tokio::sync::Mutex;

/// Time for which a measurement is reused: the preview is requested at each change of a field.
const MEASUREMENT_TTL: Duration = Duration::from_secs(30);

/// Period over which the volume of a tier is measured. Blocks of a coarser tier are written less often.
const fn period_ms(tier: Tier) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    match tier {
        Tier::Raw => DAY_MS,
        Tier::Minute => 7 * DAY_MS,
        Tier::Hour => 30 * DAY_MS,
    }
}

/// Measured volume of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct MeasuredTier {
    /// Bytes per day of all hosts; `None` without blocks.
    pub(crate) bytes_per_day: Option<f64>,
    /// Time that the measurement covers.
    pub(crate) covered_ms: i64,
    /// Number of hosts that wrote blocks.
    pub(crate) hosts: u64,
    /// Time of the oldest row, Unix milliseconds.
    pub(crate) oldest_ms: Option<i64>,
}

/// Measured volumes by [`Tier::id`].
pub(crate) type Volumes = [MeasuredTier; 3];

/// Latest measurement.
#[derive(Default)]
pub(crate) struct VolumeCache(Mutex<Option<(Duration, Volumes)>>);

impl VolumeCache {
    /// Measures the volumes, unless that was done a moment ago. Concurrent callers share a measurement.
    pub(crate) async fn measure(
        &self,
        store: &dyn Store,
        now: Duration,
        now_ms: i64,
    ) -> Result<Volumes, StoreError> {
        let mut cached = self.0.lock().await;
        if let Some((at, volumes)) = *cached
            && now.saturating_sub(at) < MEASUREMENT_TTL
        {
            return Ok(volumes);
        }
        let mut volumes = Volumes::default();
        for (tier, measured) in Tier::ALL.into_iter().zip(&mut volumes) {
            let since_ms = now_ms - period_ms(tier);
            let volume = tier_volume(store, tier, since_ms).await?;
            let oldest = store.oldest_blocks(tier, i64::MAX, 1).await?;
            *measured = measured_tier(tier, volume, since_ms, oldest.first().map(|block| block.first_ms));
        }
        *cached = Some((now, volumes));
        Ok(volumes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn measured_tier(tier: Tier, volume: TierVolume, since_ms: i64, oldest_ms: Option<i64>) -> MeasuredTier {
    // The last bucket ends a bucket width after its start.
    let covered_ms = volume.last_ms + tier.width_ms() - volume.first_ms.max(since_ms);
    let is_measured = volume.bytes > 0 && covered_ms > 0;
    MeasuredTier {
        bytes_per_day: is_measured.then(|| volume.bytes as f64 * 86_400_000.0 / covered_ms as f64),
        covered_ms: if is_measured { covered_ms } else { 0 },
        hosts: volume.hosts,
        oldest_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_is_scaled_to_a_day() {
        let hour = 3_600_000;
        let volume = TierVolume { bytes: 1_000, hosts: 2, first_ms: 10 * hour, last_ms: 12 * hour };
        let measured = measured_tier(Tier::Raw, volume, 0, Some(10 * hour));
        assert_eq!((measured.bytes_per_day.map(f64::round), measured.hosts), (Some(12_000.0), 2));
        // A block that began before the period counts from the start of the period.
        let measured = measured_tier(Tier::Raw, volume, 11 * hour, Some(0));
        assert_eq!((measured.bytes_per_day.map(f64::round), measured.covered_ms), (Some(24_000.0), hour + 1));
        let empty = measured_tier(Tier::Hour, TierVolume::default(), 0, None);
        assert_eq!((empty.bytes_per_day, empty.covered_ms), (None, 0));
    }
}
