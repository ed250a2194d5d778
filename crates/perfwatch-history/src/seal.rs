//! Head rows → blocks. Rows of a time that the raw tier let go of already go straight into the
//! minutes (or hours), in the same commit: whatever came late counts once.

use super::History;
use super::head::{HostHead, sequence_ranges_of};
use super::rollup::{self, LateBuckets};
use perfwatch_model::{HostId, Snapshot};
use perfwatch_store::{CommitError, RetentionWatermarks, SealWatermark, StoreError, Write};
use perfwatch_tsdb::{Buckets, CompressionLevel, Table, Tier, block, rollup::bucket_start};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Hosts sealed in one commit.
const MAX_HOSTS_PER_COMMIT: usize = 32;
/// How often a commit is tried again when floors rise under it.
const MAX_ATTEMPTS: usize = 5;

struct SealBatch {
    host: HostId,
    log: Arc<HostHead>,
    rows: Vec<Arc<Snapshot>>,
    until: i64,
}

impl History {
    /// Seals the hosts that are due (all that have rows, if `everything`), then cuts the head.
    pub(super) async fn seal(&self, everything: bool) -> Result<usize, StoreError> {
        let now = self.clock.monotonic();
        let mut sealed = 0;
        let mut logs: Vec<_> =
            self.heads().into_iter().filter(|(_, log)| everything || log.should_seal(now)).collect();
        // The oldest rows first: only then the head gets shorter.
        logs.sort_by_key(|(_, log)| log.oldest_arrival());
        for hosts in logs.chunks(MAX_HOSTS_PER_COMMIT) {
            let due = hosts.iter().filter_map(|(host, log)| {
                let (rows, until) = log.rows_to_seal()?;
                Some(SealBatch { host: *host, log: log.clone(), rows, until })
            });
            let due: Vec<SealBatch> = due.collect();
            if due.is_empty() {
                continue;
            }
            sealed += due.len();
            self.seal_hosts(due).await?;
            // Not only at the end: the room may be needed for the next ones.
            self.truncate_pending.store(true, Ordering::Relaxed);
            self.truncate_head().await?;
        }
        // What could not be done last time.
        self.truncate_head().await?;
        Ok(sealed)
    }

    /// Lets go of head rows that are in blocks; again until it works.
    async fn truncate_head(&self) -> Result<(), StoreError> {
        if !self.truncate_pending.load(Ordering::Relaxed) {
            return Ok(());
        }
        let in_flight = self.in_flight.oldest_arrival();
        let oldest = self.heads().iter().filter_map(|(_, log)| log.oldest_arrival()).min();
        self.backend.truncate_head(oldest.unwrap_or(in_flight).min(in_flight)).await?;
        self.truncate_pending.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn seal_hosts(&self, mut due: Vec<SealBatch>) -> Result<(), StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let floors = self.backend.retention_watermarks().await?;
            let mut writes = vec![Write::ExpectWatermarks(floors)];
            let work: Vec<(HostId, Vec<Arc<Snapshot>>)> =
                due.iter().map(|s| (s.host, s.rows.clone())).collect();
            let (blocks, late) =
                run_blocking(move || (build_blocks(&work, floors), build_late_buckets(&work, floors)))
                    .await?;
            writes.extend(blocks);
            for (host, tier, buckets) in late {
                writes.extend(rollup::merge_late(&*self.backend, host, tier, buckets).await?);
            }
            for sealing in &due {
                let last = sealing.rows.iter().max_by_key(|row| row.at_ms);
                writes.extend(last.map(|row| Write::HostSeen(sealing.host, row.at_ms, row.interval_ms)));
                writes.extend(
                    sequence_ranges_of(sealing.host, &sealing.rows).into_iter().map(Write::RecordSequences),
                );
                writes.push(Write::AdvanceSeal(SealWatermark { host: sealing.host, arrival: sealing.until }));
            }
            // From here until the rows are let go, nobody reads these hosts.
            let mut moving = Vec::with_capacity(due.len());
            for sealing in &due {
                moving.push(sealing.log.lock_seal().await);
            }
            match self.backend.commit(writes).await {
                Ok(()) => {
                    let now = self.clock.monotonic();
                    due.iter().for_each(|sealing| sealing.log.remove_sealed(sealing.until, now));
                    return Ok(());
                }
                Err(CommitError::Conflict) => {
                    drop(moving);
                    self.skip_already_sealed(&mut due).await?;
                }
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("sealing failed after repeated conflicts".to_owned()))
    }
}

impl History {
    /// What is sealed already is done: the commit was made, and only its answer was lost.
    async fn skip_already_sealed(&self, due: &mut Vec<SealBatch>) -> Result<(), StoreError> {
        let there: HashMap<HostId, i64> = self
            .backend
            .seal_watermarks()
            .await?
            .into_iter()
            .map(|sealed| (sealed.host, sealed.arrival))
            .collect();
        let now = self.clock.monotonic();
        due.retain(|sealing| {
            let is_done = there.get(&sealing.host).is_some_and(|arrival| *arrival >= sealing.until);
            if is_done {
                sealing.log.remove_sealed(sealing.until, now);
            }
            !is_done
        });
        Ok(())
    }
}

/// Runs what costs processor time where it delays nobody.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn build_blocks(work: &[(HostId, Vec<Arc<Snapshot>>)], floors: RetentionWatermarks) -> Vec<Write> {
    let mut writes = Vec::new();
    for (host, rows) in work {
        // No block reaches over an hour's bounds, so that whole hours can be made one block.
        let mut hours: BTreeMap<i64, Vec<Arc<Snapshot>>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.at_ms >= floors.ms[0]) {
            hours.entry(bucket_start(row.at_ms, Tier::Raw.window_ms())).or_default().push(row.clone());
        }
        for (hour, rows) in hours {
            for table in Table::from_snapshots(&rows) {
                let block = block::encode(&table, CompressionLevel::Fast);
                writes.push(Write::PutBlock(Tier::Raw, *host, table.shape.clone(), block));
            }
            writes.push(Write::MarkDirty(Tier::Raw, *host, hour));
        }
    }
    writes
}

/// Rows of a time that is let go, as buckets of the tier that still has it.
fn build_late_buckets(
    work: &[(HostId, Vec<Arc<Snapshot>>)],
    floors: RetentionWatermarks,
) -> Vec<LateBuckets> {
    let mut late = Vec::new();
    for (host, rows) in work {
        let rows: Vec<Arc<Snapshot>> = rows.iter().filter(|row| row.at_ms < floors.ms[0]).cloned().collect();
        let tables = Table::from_snapshots(&rows);
        let minutes: Vec<Buckets> = tables
            .iter()
            .map(|table| Buckets::from_table(table, Tier::Minute.width_ms(), i64::MIN))
            .collect();
        let hours = minutes.iter().map(|m| m.slice(i64::MIN, floors.ms[1]).downsample(Tier::Hour.width_ms()));
        let hours: Vec<Buckets> = hours.map(|hours| hours.slice(floors.ms[2], i64::MAX)).collect();
        let minutes = minutes.iter().map(|m| m.slice(floors.ms[1], i64::MAX)).collect();
        late.push((*host, Tier::Minute, minutes));
        late.push((*host, Tier::Hour, hours));
    }
    late.retain(|(_, _, buckets)| buckets.iter().any(|buckets| !buckets.is_empty()));
    late
}
