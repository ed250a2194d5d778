//! Letting go: of each tier what is older than its time, and under a disk budget the oldest
//! detail first. A tier's floor rises only when what is below it is counted in the next tier;
//! blocks below the floor then go in small steps.

use super::History;
use perfwatch_store::{BlockInfo, CommitError, DiskUsage, RetentionWatermarks, StoreError, Write};
use perfwatch_tsdb::{Tier, rollup::bucket_start};
use std::time::Duration;

/// Blocks dropped in one commit.
const MAX_DROPS_PER_COMMIT: usize = 64;
/// Of the room, in hundredths: above the first, detail goes until the second is reached.
const HIGH_WATERMARK_PERCENT: u64 = 88;
const LOW_WATERMARK_PERCENT: u64 = 80;
/// Share of what is kept, in hundredths, that a tier may hold before it is the one that gives.
const RAW_SHARE_PERCENT: u64 = 40;
const MINUTE_SHARE_PERCENT: u64 = 60;
/// Ticks this young stay whatever the budget: what is on screen now.
const PROTECTED_MS: i64 = 120_000;
/// The oldest blocks looked at in one go.
const MAX_BLOCKS_PER_PASS: usize = 4_096;

/// Floors rise in these steps, so that they don't rise all the time.
fn watermark_step_ms(tier: Tier) -> i64 {
    match tier {
        Tier::Raw => 60_000,
        Tier::Minute => 3_600_000,
        Tier::Hour => 86_400_000,
    }
}

impl History {
    /// Lets go of what is older than it is to be kept.
    pub(super) async fn apply_retention(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock.wall_ms();
        let config = &self.config;
        let mut dropped = 0;
        for (tier, keep) in [
            (Tier::Raw, config.raw_retention),
            (Tier::Minute, config.minute_retention),
            (Tier::Hour, config.hour_retention),
        ] {
            let keep_ms = i64::try_from(Duration::as_millis(&keep)).unwrap_or(i64::MAX);
            // An hour at a time, so that whole blocks go.
            let floor_ms =
                bucket_start(now_ms.saturating_sub(keep_ms), watermark_step_ms(tier).max(3_600_000));
            dropped += self.advance_watermark(tier, floor_ms).await?;
        }
        Ok(dropped)
    }

    /// Keeps the store within its budget: the oldest detail goes first, and each tier keeps a
    /// share, so that neither the last hours nor the last years vanish.
    pub(super) async fn enforce_disk_budget(&self, usage: DiskUsage) -> Result<usize, StoreError> {
        let DiskUsage { used_bytes: used, append_limit_bytes: room, .. } = usage;
        if used <= room / 100 * HIGH_WATERMARK_PERCENT {
            return Ok(0);
        }
        let wanted = used - room / 100 * LOW_WATERMARK_PERCENT;
        let first = tier_to_evict(&usage);
        // Where the one whose turn it is has nothing that may go, another has.
        let others = Tier::ALL.into_iter().filter(|tier| *tier != first);
        for tier in std::iter::once(first).chain(others) {
            let dropped = self.delete_expired(tier, wanted, usage).await?;
            if dropped > 0 {
                return Ok(dropped);
            }
        }
        Ok(0)
    }

    /// Lets go of the oldest blocks of a tier, so many bytes of them. The blocks dropped.
    async fn delete_expired(&self, tier: Tier, wanted: u64, usage: DiskUsage) -> Result<usize, StoreError> {
        let mut sum = 0;
        let oldest = self.backend.oldest_blocks(tier, i64::MAX, MAX_BLOCKS_PER_PASS).await?;
        let enough = oldest.iter().find(|block| {
            sum += block.bytes;
            sum >= wanted
        });
        let Some(last) = enough.or(oldest.last()) else {
            return Ok(0);
        };
        let mut floor_ms = bucket_start(last.last_ms, watermark_step_ms(tier)) + watermark_step_ms(tier);
        // No tier lets go of what a finer one still counts on it for.
        let floors = self.backend.retention_watermarks().await?.ms;
        let most_ms = match tier {
            Tier::Raw => self.clock.wall_ms() - PROTECTED_MS,
            Tier::Minute => floors[0],
            Tier::Hour => floors[1],
        };
        floor_ms = floor_ms.min(bucket_start(most_ms, watermark_step_ms(tier)));
        let DiskUsage { used_bytes: used, append_limit_bytes: room, .. } = usage;
        tracing::info!(
            used,
            room,
            tier = tier.name(),
            floor_ms,
            "deleting old data to stay within the disk budget"
        );
        self.advance_watermark(tier, floor_ms).await
    }

    /// Lets go of a tier's rows before a time. The blocks dropped.
    async fn advance_watermark(&self, tier: Tier, floor_ms: i64) -> Result<usize, StoreError> {
        let RetentionWatermarks { ms } = self.backend.retention_watermarks().await?;
        if floor_ms > ms[usize::try_from(tier.id()).unwrap_or_default()] {
            if tier.coarser().is_some() {
                self.roll_up_before(tier, floor_ms).await?;
            }
            match self.backend.commit(vec![Write::AdvanceWatermark(tier, floor_ms)]).await {
                Ok(()) => {}
                // Rows came in below it meanwhile: next time.
                Err(CommitError::Conflict) => return Ok(0),
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        let floor_ms =
            self.backend.retention_watermarks().await?.ms[usize::try_from(tier.id()).unwrap_or_default()];
        let mut dropped = 0;
        loop {
            // The last bucket of a block lasts for its width.
            let blocks = self
                .backend
                .oldest_blocks(tier, floor_ms - tier.width_ms() + 1, MAX_DROPS_PER_COMMIT)
                .await?;
            if blocks.is_empty() {
                return Ok(dropped);
            }
            dropped += self.drop_blocks(&blocks).await?;
        }
    }

    async fn drop_blocks(&self, blocks: &[BlockInfo]) -> Result<usize, StoreError> {
        let writes = blocks.iter().cloned().map(Write::DropBlock).collect();
        match self.backend.commit(writes).await {
            Ok(()) => {
                self.counts.blocks_dropped.inc_by(blocks.len() as u64);
                Ok(blocks.len())
            }
            // Roll-up made others of some of them.
            Err(CommitError::Conflict) => Ok(0),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

/// The tier that gives when space is short.
fn tier_to_evict(usage: &DiskUsage) -> Tier {
    let [_, minutes, hours] = usage.tier_bytes;
    // With what its blocks keep from being used again.
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
