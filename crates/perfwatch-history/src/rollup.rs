//! Rolls raw rows up to minutes and minutes to hours, window by window; repeatable.
//!
//! The small blocks of a window that is over are also rewritten as one block. A window that receives late
//! rows is dirty and is rolled up again. Buckets are computed from the rows of the finer tier and replace
//! the previous buckets, so that repeating a roll-up changes nothing.

use super::History;
use super::task::run_blocking;
use perfwatch_model::HostId;
use perfwatch_store::{
    BlockContent, BlockSlice, CommitError, DirtyWindow, RetentionWatermarks, Store, StoreError, Write, shares,
};
use perfwatch_tsdb::{Buckets, CompressionLevel, Table, Tier, block, rollup::bucket_start};
use std::collections::BTreeSet;

/// Buckets of a host that are added to a tier.
pub(super) type LateBuckets = (HostId, Tier, Vec<Buckets>);

/// Delay between the end of a window and its roll-up. Rows that arrive within the delay need no second
/// roll-up.
fn late_arrival_delay_ms(tier: Tier) -> i64 {
    match tier {
        // Rows are sealed within 15 minutes after their arrival.
        Tier::Raw => 17 * 60_000,
        Tier::Minute => 90 * 60_000,
        Tier::Hour => 26 * 3_600_000,
    }
}

/// Maximum number of windows per query for dirty windows.
const MAX_WINDOWS_PER_PASS: usize = 64;
/// Part of the disk budget (one sixteenth) above which an hour of raw blocks is not rewritten.
const MAX_REWRITE_FRACTION: u64 = 16;

impl History {
    /// Rolls up the dirty windows that are over. Returns their number.
    pub(super) async fn roll_up(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock.wall_ms();
        let mut count = 0;
        for tier in Tier::ALL {
            let before_ms = now_ms - tier.window_ms() - late_arrival_delay_ms(tier);
            count += self.roll_up_before(tier, before_ms + 1).await?;
        }
        Ok(count)
    }

    /// Rolls up all dirty windows that begin before `before_ms`, also windows that are not over. Returns
    /// their number.
    pub(super) async fn roll_up_before(&self, tier: Tier, before_ms: i64) -> Result<usize, StoreError> {
        let mut count = 0;
        loop {
            let windows = self.backend.dirty_windows(tier, before_ms, MAX_WINDOWS_PER_PASS).await?;
            let mut has_progress = false;
            for window in &windows {
                // A window with a conflict stays dirty; the next pass rolls it up.
                has_progress |= self.roll_window(*window).await?;
                count += 1;
                tokio::task::yield_now().await;
            }
            if windows.len() < MAX_WINDOWS_PER_PASS || !has_progress {
                return Ok(count);
            }
        }
    }

    /// Rolls up the dirty windows of a host that begin before `before_ms`, also windows that are not over.
    pub(super) async fn roll_up_host(
        &self,
        tier: Tier,
        host: HostId,
        before_ms: i64,
    ) -> Result<(), StoreError> {
        let backend = &*self.backend;
        for window in
            shares::dirty_windows_of_host(backend, tier, host, before_ms, MAX_WINDOWS_PER_PASS).await?
        {
            self.roll_window(window).await?;
        }
        Ok(())
    }

    /// Rolls up one window. Returns whether the commit succeeded without a conflict.
    async fn roll_window(&self, window: DirtyWindow) -> Result<bool, StoreError> {
        let DirtyWindow { tier, host, window_ms, .. } = window;
        let end_ms = window_ms + tier.window_ms();
        let watermarks = self.backend.retention_watermarks().await?;
        let of_host = shares::host_watermarks(&*self.backend, host).await?;
        let slices = self.backend.read_blocks(tier, host, window_ms, end_ms).await?;
        let coarser = match tier.coarser() {
            Some(coarser) => self.backend.read_blocks(coarser, host, window_ms, end_ms).await?,
            None => Vec::new(),
        };
        self.log_corrupt_blocks(&slices);
        self.log_corrupt_blocks(&coarser);
        let should_rewrite = self.clock.wall_ms() >= end_ms + late_arrival_delay_ms(tier)
            && !self.lacks_space_to_rewrite(tier, &slices);
        let mut writes = vec![Write::ExpectWatermarks(watermarks), Write::ClearDirty(window)];
        let rollup = move || rollup_writes(window, slices, &coarser, of_host, should_rewrite);
        writes.extend(run_blocking(rollup).await?);
        match self.commit_maintenance(writes).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Returns whether an hour of all hosts is so large that the disk budget has no space for a second
    /// copy. Its small blocks stay; the disk budget soon deletes them.
    fn lacks_space_to_rewrite(&self, tier: Tier, slices: &[BlockSlice]) -> bool {
        let bytes: u64 = slices.iter().map(|slice| slice.block.bytes).sum();
        tier == Tier::Raw
            && bytes.saturating_mul(self.heads().len() as u64)
                > self.config().budget_bytes / MAX_REWRITE_FRACTION
    }

    /// Counts and logs blocks that cannot be decoded. They are skipped; other blocks are not affected.
    pub(super) fn log_corrupt_blocks(&self, slices: &[BlockSlice]) {
        for slice in slices {
            if let Err(error) = &slice.content {
                self.metrics.corrupt_blocks.inc();
                let block = &slice.block;
                tracing::error!(
                    error = %error,
                    block.id = block.id.0,
                    block.tier = block.tier.name(),
                    host.id = %block.host,
                    "failed to decode a block; skipping it"
                );
            }
        }
    }
}

fn raw_tables(slices: Vec<BlockSlice>) -> Vec<Table> {
    let table = |slice: BlockSlice| match slice.content {
        Ok(BlockContent::Raw(table)) => Some(table),
        _ => None,
    };
    slices.into_iter().filter_map(table).collect()
}

fn buckets_of(slices: &[BlockSlice]) -> Vec<Buckets> {
    let buckets = |slice: &BlockSlice| match &slice.content {
        Ok(BlockContent::Buckets(buckets)) => Some(buckets.clone()),
        _ => None,
    };
    slices.iter().filter_map(buckets).collect()
}

/// Writes that delete the blocks that could be decoded.
fn drop_writes(slices: &[BlockSlice]) -> impl Iterator<Item = Write> {
    let readable = slices.iter().filter(|slice| slice.content.is_ok());
    readable.map(|slice| Write::DropBlock(slice.block.clone()))
}

/// Writes that roll up one window, and rewrite its blocks as one block if `should_rewrite` is set.
fn rollup_writes(
    window: DirtyWindow,
    slices: Vec<BlockSlice>,
    coarser: &[BlockSlice],
    watermarks: RetentionWatermarks,
    should_rewrite: bool,
) -> Vec<Write> {
    let DirtyWindow { tier, host, window_ms, .. } = window;
    let end_ms = window_ms + tier.window_ms();
    // Rows below the watermark were rolled up before it was advanced.
    let from_ms = window_ms.max(watermarks.tier_ms(tier));
    let mut writes: Vec<Write> = if should_rewrite { drop_writes(&slices).collect() } else { Vec::new() };
    let has_corrupt_block = slices.iter().any(|slice| slice.content.is_err());
    let new_buckets: Vec<Buckets> = if tier == Tier::Raw {
        let tables = Table::merge(raw_tables(slices), from_ms);
        if should_rewrite {
            for table in &tables {
                let block = block::encode(table, CompressionLevel::Best);
                writes.push(Write::PutBlock(tier, host, table.shape.clone(), block));
            }
        }
        tables.iter().map(|table| Buckets::from_table(table, Tier::Minute.width_ms(), from_ms)).collect()
    } else {
        let merged: Vec<Buckets> = Buckets::merge(&buckets_of(&slices));
        if should_rewrite {
            let retained = merged.iter().map(|buckets| buckets.slice(from_ms, i64::MAX));
            writes.extend(block_writes(tier, host, retained));
        }
        let width = tier.coarser().map_or(i64::MAX, Tier::width_ms);
        merged.iter().map(|buckets| buckets.slice(from_ms, end_ms).downsample(width)).collect()
    };
    let Some(target) = tier.coarser() else {
        return writes;
    };
    // The buckets of a corrupt block were computed before it was damaged; they are retained.
    if has_corrupt_block {
        return writes;
    }
    let mut parts = Vec::new();
    for existing in buckets_of(coarser) {
        parts.push(existing.slice(i64::MIN, from_ms));
        parts.push(existing.slice(end_ms, i64::MAX));
    }
    parts.extend(new_buckets);
    writes.extend(drop_writes(coarser));
    writes.extend(block_writes(target, host, Buckets::merge(&parts).into_iter()));
    writes.push(Write::MarkDirty(target, host, bucket_start(window_ms, target.window_ms())));
    writes
}

fn block_writes(tier: Tier, host: HostId, buckets: impl Iterator<Item = Buckets>) -> Vec<Write> {
    let write = |buckets: Buckets| {
        let block = block::encode_buckets(&buckets, CompressionLevel::Best);
        Write::PutBlock(tier, host, buckets.shape, block)
    };
    buckets.filter(|buckets| !buckets.is_empty()).map(write).collect()
}

/// Writes that add late buckets to a tier. They belong into the commit that marks the rows as sealed.
pub(super) async fn merge_late(
    store: &dyn Store,
    host: HostId,
    tier: Tier,
    late: Vec<Buckets>,
) -> Result<Vec<Write>, StoreError> {
    let starts = late.iter().flat_map(|buckets| &buckets.start_ms);
    let windows: BTreeSet<i64> = starts.map(|start| bucket_start(*start, tier.window_ms())).collect();
    let mut writes = Vec::new();
    for window_ms in windows {
        let end_ms = window_ms + tier.window_ms();
        let slices = store.read_blocks(tier, host, window_ms, end_ms).await?;
        // Existing buckets follow the late buckets: the last value is that of the existing bucket.
        let mut parts: Vec<Buckets> = late.iter().map(|late| late.slice(window_ms, end_ms)).collect();
        parts.extend(buckets_of(&slices));
        writes.extend(drop_writes(&slices));
        writes.extend(block_writes(tier, host, Buckets::merge(&parts).into_iter()));
        writes.push(Write::MarkDirty(tier, host, window_ms));
    }
    Ok(writes)
}
