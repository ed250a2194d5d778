//! Raw rows → minutes → hours, window by window, and many small blocks → one. A window that
//! takes in more is done again: the buckets are counted anew from what they are made of, so
//! doing it twice changes nothing.

use super::History;
use super::seal::run_blocking;
use perfwatch_model::HostId;
use perfwatch_store::{
    BlockContent, BlockInfo, BlockSlice, CommitError, DirtyWindow, RetentionWatermarks, Store, StoreError,
    Write,
};
use perfwatch_tsdb::{Buckets, CompressionLevel, Table, Tier, block, rollup::bucket_start};
use std::collections::BTreeSet;

/// Buckets of one host to be added to a tier.
pub(super) type LateBuckets = (HostId, Tier, Vec<Buckets>);

/// How long after a window's end it is rolled up: what is on its way arrives until then.
fn late_arrival_delay_ms(tier: Tier) -> i64 {
    match tier {
        // Every row is sealed 15 minutes after it came.
        Tier::Raw => 17 * 60_000,
        Tier::Minute => 90 * 60_000,
        Tier::Hour => 26 * 3_600_000,
    }
}

/// Windows done in one go.
const MAX_WINDOWS_PER_PASS: usize = 64;
/// An hour of ticks that takes more than this part of the budget is not written anew.
const MAX_REWRITE_FRACTION: u64 = 16;

impl History {
    /// Rolls up the windows that are over. The number done.
    pub(super) async fn roll_up(&self) -> Result<usize, StoreError> {
        let now_ms = self.clock.wall_ms();
        let mut done = 0;
        for tier in Tier::ALL {
            let before_ms = now_ms - tier.window_ms() - late_arrival_delay_ms(tier);
            done += self.roll_up_before(tier, before_ms + 1).await?;
        }
        Ok(done)
    }

    /// Rolls up every window that begins before a time, over or not.
    pub(super) async fn roll_up_before(&self, tier: Tier, before_ms: i64) -> Result<usize, StoreError> {
        let mut done = 0;
        loop {
            let windows = self.backend.dirty_windows(tier, before_ms, MAX_WINDOWS_PER_PASS).await?;
            let mut moved = false;
            for window in &windows {
                // One that meets another change is done again in the next round.
                moved |= self.roll_window(*window).await?;
                done += 1;
                tokio::task::yield_now().await;
            }
            if windows.len() < MAX_WINDOWS_PER_PASS || !moved {
                return Ok(done);
            }
        }
    }

    async fn roll_window(&self, window: DirtyWindow) -> Result<bool, StoreError> {
        let DirtyWindow { tier, host, window_ms, .. } = window;
        let end_ms = window_ms + tier.window_ms();
        let floors = self.backend.retention_watermarks().await?;
        let pieces = self.backend.read_blocks(tier, host, window_ms, end_ms).await?;
        let coarser = match tier.coarser() {
            Some(coarser) => self.backend.read_blocks(coarser, host, window_ms, end_ms).await?,
            None => Vec::new(),
        };
        self.log_corrupt_blocks(&pieces);
        self.log_corrupt_blocks(&coarser);
        let over = self.clock.wall_ms() >= end_ms + late_arrival_delay_ms(tier)
            && !self.lacks_space_to_rewrite(tier, &pieces);
        let mut writes = vec![Write::ExpectWatermarks(floors), Write::ClearDirty(window)];
        writes.extend(run_blocking(move || rollup_writes(window, &pieces, &coarser, floors, over)).await?);
        match self.backend.commit(writes).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Whether an hour of the fleet is so much of the budget that there is no room to write it
    /// anew beside itself: its small blocks stay then, and go soon.
    fn lacks_space_to_rewrite(&self, tier: Tier, pieces: &[BlockSlice]) -> bool {
        let bytes: u64 = pieces.iter().map(|piece| piece.block.bytes).sum();
        tier == Tier::Raw
            && bytes.saturating_mul(self.heads().len() as u64)
                > self.config.budget_bytes / MAX_REWRITE_FRACTION
    }

    /// A block that can't be read costs itself and is told of.
    pub(super) fn log_corrupt_blocks(&self, pieces: &[BlockSlice]) {
        for piece in pieces {
            if let Err(error) = &piece.content {
                self.counts.corrupt_blocks.inc();
                tracing::error!(%error, block = piece.block.id.0, tier = piece.block.tier.name(), host = %piece.block.host, "failed to decode a block; skipping it");
            }
        }
    }
}

fn raw_tables(pieces: &[BlockSlice]) -> Vec<Table> {
    let table = |piece: &BlockSlice| match &piece.content {
        Ok(BlockContent::Raw(table)) => Some(table.clone()),
        _ => None,
    };
    pieces.iter().filter_map(table).collect()
}

fn buckets(pieces: &[BlockSlice]) -> Vec<Buckets> {
    let buckets = |piece: &BlockSlice| match &piece.content {
        Ok(BlockContent::Buckets(buckets)) => Some(buckets.clone()),
        _ => None,
    };
    pieces.iter().filter_map(buckets).collect()
}

fn readable(pieces: &[BlockSlice]) -> impl Iterator<Item = &BlockInfo> {
    pieces.iter().filter(|piece| piece.content.is_ok()).map(|piece| &piece.block)
}

/// The writes that roll one window up.
fn rollup_writes(
    window: DirtyWindow,
    pieces: &[BlockSlice],
    coarser: &[BlockSlice],
    floors: RetentionWatermarks,
    over: bool,
) -> Vec<Write> {
    let DirtyWindow { tier, host, window_ms, .. } = window;
    let end_ms = window_ms + tier.window_ms();
    // What is before the floor was counted when it rose.
    let from_ms = window_ms.max(floors.ms[usize::try_from(tier.id()).unwrap_or_default()]);
    let mut writes = Vec::new();
    let fresh: Vec<Buckets> = if tier == Tier::Raw {
        let tables = Table::merge(&raw_tables(pieces), from_ms);
        if over {
            writes.extend(readable(pieces).cloned().map(Write::DropBlock));
            for table in &tables {
                let block = block::encode(table, CompressionLevel::Best);
                writes.push(Write::PutBlock(tier, host, table.shape.clone(), block));
            }
        }
        tables.iter().map(|table| Buckets::from_table(table, Tier::Minute.width_ms(), from_ms)).collect()
    } else {
        let whole: Vec<Buckets> = Buckets::merge(&buckets(pieces));
        if over {
            writes.extend(readable(pieces).cloned().map(Write::DropBlock));
            let kept = whole.iter().map(|buckets| buckets.slice(from_ms, i64::MAX));
            writes.extend(block_writes(tier, host, kept));
        }
        let width = tier.coarser().map_or(i64::MAX, Tier::width_ms);
        whole.iter().map(|buckets| buckets.slice(from_ms, end_ms).downsample(width)).collect()
    };
    let Some(target) = tier.coarser() else {
        return writes;
    };
    // What can't be read was counted when it could: it stays counted.
    if pieces.iter().any(|piece| piece.content.is_err()) {
        return writes;
    }
    let mut parts = Vec::new();
    for there in buckets(coarser) {
        parts.push(there.slice(i64::MIN, from_ms));
        parts.push(there.slice(end_ms, i64::MAX));
    }
    parts.extend(fresh);
    writes.extend(readable(coarser).cloned().map(Write::DropBlock));
    writes.extend(block_writes(target, host, Buckets::merge(&parts).into_iter()));
    writes.push(Write::MarkDirty(target, host, bucket_start(window_ms, target.window_ms())));
    writes
}

fn block_writes(tier: Tier, host: HostId, all: impl Iterator<Item = Buckets>) -> Vec<Write> {
    let filled = all.filter(|buckets| !buckets.is_empty());
    let write = |buckets: Buckets| {
        let block = block::encode_buckets(&buckets, CompressionLevel::Best);
        Write::PutBlock(tier, host, buckets.shape, block)
    };
    filled.map(write).collect()
}

/// The writes that add buckets to a tier: to be committed together with whatever says that
/// their rows are counted.
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
        let pieces = store.read_blocks(tier, host, window_ms, end_ms).await?;
        // What was there came later than what comes late: it gives the last value.
        let mut parts: Vec<Buckets> = late.iter().map(|late| late.slice(window_ms, end_ms)).collect();
        parts.extend(buckets(&pieces));
        writes.extend(readable(&pieces).cloned().map(Write::DropBlock));
        writes.extend(block_writes(tier, host, Buckets::merge(&parts).into_iter()));
        writes.push(Write::MarkDirty(tier, host, window_ms));
    }
    Ok(writes)
}
