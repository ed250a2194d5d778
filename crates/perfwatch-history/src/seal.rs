//! Seals head rows into blocks; late rows are merged into coarser tiers in the same commit.
//!
//! A late row is older than the retention watermark of the raw tier. Its values are added to the minutes or
//! hours that still cover its time, so that each accepted row counts exactly once.

use super::History;
use super::head::{HostHead, sequence_ranges_of};
use super::rollup::{self, LateBuckets};
use super::task::run_blocking;
use perfwatch_model::HostId;
use perfwatch_store::{CommitError, RetentionWatermarks, SealWatermark, StoreError, Write};
use perfwatch_tsdb::{Buckets, CompressionLevel, DecodedRows, EncodedRow, RowKey, Tier};
use perfwatch_tsdb::{block, rollup::bucket_start};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Maximum number of hosts that are sealed in one commit.
const MAX_HOSTS_PER_COMMIT: usize = 32;
/// Maximum number of attempts of a commit that conflicts with an advance of the retention watermarks.
const MAX_ATTEMPTS: usize = 5;

/// Rows of a host that are sealed together.
struct SealBatch {
    host: HostId,
    head: Arc<HostHead>,
    rows: Vec<EncodedRow>,
    /// Arrival number of the last row.
    until: i64,
}

impl History {
    /// Seals the hosts that are due, or all hosts with rows if `everything` is set, and truncates the head.
    /// Returns the number of blocks.
    pub(super) async fn seal(&self, everything: bool) -> Result<usize, StoreError> {
        let now = self.clock.monotonic();
        let mut block_count = 0;
        let mut heads: Vec<_> =
            self.heads().into_iter().filter(|(_, head)| everything || self.is_seal_due(head, now)).collect();
        // The oldest rows first: the head is truncated up to the oldest unsealed row.
        heads.sort_by_key(|(_, head)| head.oldest_arrival());
        for hosts in heads.chunks(MAX_HOSTS_PER_COMMIT) {
            let batches = hosts.iter().filter_map(|(host, head)| {
                let (rows, until) = head.rows_to_seal()?;
                Some(SealBatch { host: *host, head: head.clone(), rows, until })
            });
            let batches: Vec<SealBatch> = batches.collect();
            if batches.is_empty() {
                continue;
            }
            block_count += self.seal_hosts(batches).await?;
            // After each commit, because the next commit may need the space.
            self.truncate_pending.store(true, Ordering::Relaxed);
            self.truncate_head().await?;
        }
        // Retries a truncation that failed earlier.
        self.truncate_head().await?;
        Ok(block_count)
    }

    /// Returns whether a host has rows that are old, many, or large.
    pub(super) fn is_seal_due(&self, head: &HostHead, now: Duration) -> bool {
        head.should_seal(now) || head.unsealed_bytes() > self.max_unsealed_bytes() / 2
    }

    /// Deletes head rows that are in blocks. A failed truncation stays pending.
    async fn truncate_head(&self) -> Result<(), StoreError> {
        if !self.truncate_pending.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Read before the heads: a row that arrives in between is not deleted.
        let in_flight = self.in_flight.oldest_arrival();
        let oldest = self.heads().iter().filter_map(|(_, head)| head.oldest_arrival()).min();
        self.backend.truncate_head(oldest.unwrap_or(in_flight).min(in_flight)).await?;
        self.truncate_pending.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn seal_hosts(&self, mut batches: Vec<SealBatch>) -> Result<usize, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let writes = self.seal_writes(&batches).await?;
            let block_count = writes.iter().filter(|write| is_raw_block(write)).count();
            // Until the sealed rows are removed from memory, these hosts cannot be read.
            let mut seal_locks = Vec::with_capacity(batches.len());
            for batch in &batches {
                seal_locks.push(batch.head.lock_seal().await);
            }
            match self.backend.commit(writes.into()).await {
                Ok(()) => {
                    let now = self.clock.monotonic();
                    batches.iter().for_each(|batch| batch.head.remove_sealed(batch.until, now));
                    return Ok(block_count);
                }
                Err(CommitError::Conflict) => {
                    drop(seal_locks);
                    self.skip_already_sealed(&mut batches).await?;
                }
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("sealing failed after repeated conflicts".to_owned()))
    }

    async fn seal_writes(&self, batches: &[SealBatch]) -> Result<Vec<Write>, StoreError> {
        let watermarks = self.backend.retention_watermarks().await?;
        let mut writes = vec![Write::ExpectWatermarks(watermarks)];
        let hosts: Vec<(HostId, Vec<EncodedRow>)> =
            batches.iter().map(|batch| (batch.host, batch.rows.clone())).collect();
        let build = move || {
            let (mut writes, mut late) = (Vec::new(), Vec::new());
            for (host, rows) in hosts {
                let mut rows = DecodedRows::new(&rows);
                let newest = rows.keys().max_by_key(|row| row.at_ms);
                let interval_ms = |row: RowKey| u32::try_from(row.interval_ms).unwrap_or_default();
                writes.extend(newest.map(|row| Write::HostSeen(host, row.at_ms, interval_ms(row))));
                writes.extend(sequence_ranges_of(host, rows.keys()).into_iter().map(Write::RecordSequences));
                writes.extend(build_blocks(host, &mut rows, watermarks));
                late.extend(build_late_buckets(host, &mut rows, watermarks));
            }
            (writes, late)
        };
        let (built, late) = run_blocking(build).await?;
        writes.extend(built);
        for (host, tier, buckets) in late {
            writes.extend(rollup::merge_late(&*self.backend, host, tier, buckets).await?);
        }
        let watermark = |batch: &SealBatch| SealWatermark { host: batch.host, arrival: batch.until };
        writes.extend(batches.iter().map(|batch| Write::AdvanceSeal(watermark(batch))));
        Ok(writes)
    }

    /// Removes the batches that are sealed already: their commit succeeded, but its response was lost.
    async fn skip_already_sealed(&self, batches: &mut Vec<SealBatch>) -> Result<(), StoreError> {
        let sealed_until = self.sealed_until().await?;
        let now = self.clock.monotonic();
        batches.retain(|batch| {
            let is_sealed = sealed_until.get(&batch.host).is_some_and(|arrival| *arrival >= batch.until);
            if is_sealed {
                batch.head.remove_sealed(batch.until, now);
            }
            !is_sealed
        });
        Ok(())
    }
}

fn is_raw_block(write: &Write) -> bool {
    matches!(write, Write::PutBlock(Tier::Raw, ..))
}

/// Blocks of the rows from the raw watermark on.
fn build_blocks(host: HostId, rows: &mut DecodedRows, watermarks: RetentionWatermarks) -> Vec<Write> {
    let mut writes = Vec::new();
    // A block does not cross an hour, so that the blocks of an hour can be rewritten as one block.
    let hour_of = |at_ms: i64| bucket_start(at_ms, Tier::Raw.window_ms());
    let is_raw = |at_ms: i64| at_ms >= watermarks.tier_ms(Tier::Raw);
    let times = rows.keys().map(|row| row.at_ms);
    let hours: BTreeSet<i64> = times.filter(|at_ms| is_raw(*at_ms)).map(hour_of).collect();
    for hour_ms in hours {
        for table in rows.take_tables(|at_ms| is_raw(at_ms) && hour_of(at_ms) == hour_ms) {
            let block = block::encode(&table, CompressionLevel::Fast);
            writes.push(Write::PutBlock(Tier::Raw, host, table.shape.clone(), block));
        }
        writes.push(Write::MarkDirty(Tier::Raw, host, hour_ms));
    }
    writes
}

/// Buckets of the remaining rows, which are below the raw watermark, for the tiers that still cover their time.
fn build_late_buckets(
    host: HostId,
    rows: &mut DecodedRows,
    watermarks: RetentionWatermarks,
) -> Vec<LateBuckets> {
    let tables = rows.take_tables(|_| true);
    let minutes: Vec<Buckets> =
        tables.iter().map(|table| Buckets::from_table(table, Tier::Minute.width_ms(), i64::MIN)).collect();
    let hours = minutes
        .iter()
        .map(|m| m.slice(i64::MIN, watermarks.tier_ms(Tier::Minute)).downsample(Tier::Hour.width_ms()));
    let hours: Vec<Buckets> =
        hours.map(|hours| hours.slice(watermarks.tier_ms(Tier::Hour), i64::MAX)).collect();
    let minutes = minutes.iter().map(|m| m.slice(watermarks.tier_ms(Tier::Minute), i64::MAX)).collect();
    let mut late = vec![(host, Tier::Minute, minutes), (host, Tier::Hour, hours)];
    late.retain(|(_, _, buckets)| buckets.iter().any(|buckets| !buckets.is_empty()));
    late
}
