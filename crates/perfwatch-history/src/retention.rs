//! Retention and disk budget: advances watermarks and deletes blocks below them.
//!
//! A tier's watermark advances only past windows that are rolled up into the next tier. The blocks below the
//! watermark are then deleted in small commits. When space is short, the oldest and most detailed data is
//! deleted first.

use super::History;
use super::budget::{EVICT_TO_PERCENT, MINUTE_SHARE_PERCENT, RAW_SHARE_PERCENT};
use super::metrics::DeletionReason;
use super::share::EVICT_ABOVE_PERCENT;
use perfwatch_store::{BlockInfo, CommitError, DiskUsage, StoreError, Write};
use perfwatch_tsdb::{Tier, rollup::bucket_start};

/// Maximum number of blocks that are deleted in one commit.
pub(super) const MAX_DROPS_PER_COMMIT: usize = 64;
/// Age in milliseconds of raw rows that the disk budget never deletes: live pages show them.
const PROTECTED_MS: i64 = 120_000;
/// Maximum number of blocks that are read to find the new watermark.
pub(super) const MAX_BLOCKS_PER_PASS: usize = 4_096;

/// Step in which a tier's watermark advances. Each advance is a commit that other hubs must follow.
pub(super) fn watermark_step_ms(tier: Tier) -> i64 {
    match tier {
        Tier::Raw => 60_000,
        Tier::Minute => 3_600_000,
        Tier::Hour => 86_400_000,
    }
}

impl History {
    /// Deletes blocks that are older than the retention of their tier. Returns their number.
    pub(super) async fn apply_retention(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock.wall_ms();
        let config = self.config();
        let mut count = 0;
        for (tier, retention) in [
            (Tier::Raw, config.raw_retention),
            (Tier::Minute, config.minute_retention),
            (Tier::Hour, config.hour_retention),
        ] {
            let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            // Steps of at least an hour, so that complete blocks are deleted.
            let step_ms = watermark_step_ms(tier).max(3_600_000);
            let watermark_ms = bucket_start(now_ms.saturating_sub(retention_ms), step_ms);
            count += self.advance_watermark(tier, watermark_ms, DeletionReason::Retention).await?;
        }
        Ok(count)
    }

    /// Deletes data when the store approaches its disk budget. Each tier has a share, so that neither the
    /// last hours nor the last years are lost. Returns the number of deleted blocks.
    pub(super) async fn enforce_disk_budget(&self, usage: DiskUsage) -> Result<usize, StoreError> {
        let DiskUsage { used_bytes, target_bytes: limit_bytes, .. } = usage;
        if used_bytes <= limit_bytes / 100 * EVICT_ABOVE_PERCENT {
            return Ok(0);
        }
        let excess_bytes = used_bytes - limit_bytes / 100 * EVICT_TO_PERCENT;
        let count = self.evict_over_share(limit_bytes, excess_bytes).await?;
        if count > 0 {
            return Ok(count);
        }
        let first = tier_to_evict(&usage);
        // If the selected tier has no block that may be deleted, another tier is used.
        let others = Tier::ALL.into_iter().filter(|tier| *tier != first);
        for tier in std::iter::once(first).chain(others) {
            let count = self.delete_oldest(tier, excess_bytes, usage).await?;
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }

    /// Deletes the oldest blocks of a tier, about `excess_bytes` in total. Returns their number.
    async fn delete_oldest(
        &self,
        tier: Tier,
        excess_bytes: u64,
        usage: DiskUsage,
    ) -> Result<usize, StoreError> {
        let mut sum = 0;
        let oldest = self.backend.oldest_blocks(tier, i64::MAX, MAX_BLOCKS_PER_PASS).await?;
        let last_needed = oldest.iter().find(|block| {
            sum += block.bytes;
            sum >= excess_bytes
        });
        let Some(last) = last_needed.or(oldest.last()) else {
            return Ok(0);
        };
        let step_ms = watermark_step_ms(tier);
        // A tier is not deleted past the watermark of the finer tier, which is rolled up into it.
        let watermarks = self.backend.retention_watermarks().await?;
        let max_ms = match tier {
            Tier::Raw => self.clock.wall_ms() - PROTECTED_MS,
            Tier::Minute => watermarks.tier_ms(Tier::Raw),
            Tier::Hour => watermarks.tier_ms(Tier::Minute),
        };
        let watermark_ms = (bucket_start(last.last_ms, step_ms) + step_ms).min(bucket_start(max_ms, step_ms));
        let DiskUsage { used_bytes, target_bytes: limit_bytes, .. } = usage;
        tracing::info!(
            used_bytes,
            limit_bytes,
            tier = tier.name(),
            watermark_ms,
            "deleting old data to stay within the disk budget"
        );
        self.advance_watermark(tier, watermark_ms, DeletionReason::DiskBudget).await
    }

    /// Advances the watermark of a tier and deletes the blocks below it. Returns their number.
    async fn advance_watermark(
        &self,
        tier: Tier,
        watermark_ms: i64,
        reason: DeletionReason,
    ) -> Result<usize, StoreError> {
        if watermark_ms > self.backend.retention_watermarks().await?.tier_ms(tier) {
            if tier.coarser().is_some() {
                self.roll_up_before(tier, watermark_ms).await?;
            }
            match self.commit_maintenance(vec![Write::AdvanceWatermark(tier, watermark_ms)]).await {
                Ok(()) => {}
                // Rows below the new watermark arrived since the roll-up; the next run retries.
                Err(CommitError::Conflict) => return Ok(0),
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        let watermark_ms = self.backend.retention_watermarks().await?.tier_ms(tier);
        // The last bucket of a block ends one bucket width after its start.
        let before_ms = watermark_ms - tier.width_ms() + 1;
        let mut count = 0;
        loop {
            let blocks = self.backend.oldest_blocks(tier, before_ms, MAX_DROPS_PER_COMMIT).await?;
            if blocks.is_empty() {
                return Ok(count);
            }
            count += self.drop_blocks(&blocks, reason).await?;
        }
    }

    pub(super) async fn drop_blocks(
        &self,
        blocks: &[BlockInfo],
        reason: DeletionReason,
    ) -> Result<usize, StoreError> {
        let writes: Vec<Write> = blocks.iter().cloned().map(Write::DropBlock).collect();
        match self.commit_maintenance(writes).await {
            Ok(()) => {
                self.metrics.record_deleted(reason, blocks.len());
                self.tier_sizes().subtract(blocks);
                Ok(blocks.len())
            }
            // A roll-up replaced some of these blocks.
            Err(CommitError::Conflict) => Ok(0),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

/// Tier of which the oldest blocks are deleted when space is short.
pub(super) fn tier_to_evict(usage: &DiskUsage) -> Tier {
    let [_, minutes, hours] = usage.tier_bytes;
    // Includes the space that is allocated for raw blocks and not reused yet.
    let raw = usage.used_bytes.saturating_sub(minutes + hours + usage.head_bytes);
    if raw > (raw + minutes + hours) / 100 * RAW_SHARE_PERCENT {
        Tier::Raw
    } else if minutes > (minutes + hours) / 100 * MINUTE_SHARE_PERCENT {
        Tier::Minute
    } else {
        Tier::Hour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_data_is_evicted_first() {
        let usage = |tier_bytes: [u64; 3]| DiskUsage {
            tier_bytes,
            used_bytes: tier_bytes.iter().sum(),
            ..DiskUsage::default()
        };
        assert_eq!(tier_to_evict(&usage([900, 90, 10])), Tier::Raw);
        assert_eq!(tier_to_evict(&usage([300, 600, 10])), Tier::Minute);
        assert_eq!(tier_to_evict(&usage([300, 300, 300])), Tier::Hour);
    }
}
