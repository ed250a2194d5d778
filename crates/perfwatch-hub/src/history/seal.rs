//! Head rows → blocks. Rows of a time that the raw tier let go of already go straight into the
//! minutes (or hours), in the same commit: whatever came late counts once.

use super::History;
use super::open::{HostLog, seen_of};
use super::rollup::{self, Late};
use perfwatch_model::{HostId, Snapshot};
use perfwatch_series::{Buckets, Effort, Table, Tier, block, rollup::bucket_start};
use perfwatch_store::{CommitError, Floors, Sealed, StoreError, Write};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Hosts sealed in one commit.
const HOSTS: usize = 32;
/// How often a commit is tried again when floors rise under it.
const TRIES: usize = 5;

struct Sealing {
    host: HostId,
    log: Arc<HostLog>,
    rows: Vec<Arc<Snapshot>>,
    until: i64,
}

impl History {
    /// Seals the hosts that are due (all that have rows, if `everything`), then cuts the head.
    pub(super) async fn seal(&self, everything: bool) -> Result<usize, StoreError> {
        let now = self.clock.monotonic();
        let mut sealed = 0;
        let mut logs: Vec<_> =
            self.logs().into_iter().filter(|(_, log)| everything || log.is_due(now)).collect();
        // The oldest rows first: only then the head gets shorter.
        logs.sort_by_key(|(_, log)| log.oldest());
        for hosts in logs.chunks(HOSTS) {
            let due = hosts.iter().filter_map(|(host, log)| {
                let (rows, until) = log.to_seal()?;
                Some(Sealing { host: *host, log: log.clone(), rows, until })
            });
            let due: Vec<Sealing> = due.collect();
            if due.is_empty() {
                continue;
            }
            sealed += due.len();
            self.seal_hosts(due).await?;
            // Not only at the end: the room may be needed for the next ones.
            self.to_cut.store(true, Ordering::Relaxed);
            self.cut_head().await?;
        }
        // What could not be done last time.
        self.cut_head().await?;
        Ok(sealed)
    }

    /// Lets go of head rows that are in blocks; again until it works.
    async fn cut_head(&self) -> Result<(), StoreError> {
        if !self.to_cut.load(Ordering::Relaxed) {
            return Ok(());
        }
        let in_flight = self.in_flight.oldest();
        let oldest = self.logs().iter().filter_map(|(_, log)| log.oldest()).min();
        self.store.truncate_head(oldest.unwrap_or(in_flight).min(in_flight)).await?;
        self.to_cut.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn seal_hosts(&self, mut due: Vec<Sealing>) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let floors = self.store.floors().await?;
            let mut writes = vec![Write::Expect(floors)];
            let work: Vec<(HostId, Vec<Arc<Snapshot>>)> =
                due.iter().map(|s| (s.host, s.rows.clone())).collect();
            let (blocks, late) = blocking(move || (blocks_of(&work, floors), late_of(&work, floors))).await?;
            writes.extend(blocks);
            for (host, tier, buckets) in late {
                writes.extend(rollup::add(&*self.store, host, tier, buckets).await?);
            }
            for sealing in &due {
                let last = sealing.rows.iter().max_by_key(|row| row.at_ms);
                writes.extend(last.map(|row| Write::Heard(sealing.host, row.at_ms, row.interval_ms)));
                writes.extend(seen_of(sealing.host, &sealing.rows).into_iter().map(Write::Seen));
                writes.push(Write::Sealed(Sealed { host: sealing.host, arrival: sealing.until }));
            }
            // From here until the rows are let go, nobody reads these hosts.
            let mut moving = Vec::with_capacity(due.len());
            for sealing in &due {
                moving.push(sealing.log.moving().await);
            }
            match self.store.commit(writes).await {
                Ok(()) => {
                    let now = self.clock.monotonic();
                    due.iter().for_each(|sealing| sealing.log.sealed(sealing.until, now));
                    return Ok(());
                }
                Err(CommitError::Conflict) => {
                    drop(moving);
                    self.let_go_of_sealed(&mut due).await?;
                }
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("sealing met other changes again and again".to_owned()))
    }
}

impl History {
    /// What is sealed already is done: the commit was made, and only its answer was lost.
    async fn let_go_of_sealed(&self, due: &mut Vec<Sealing>) -> Result<(), StoreError> {
        let there: HashMap<HostId, i64> =
            self.store.sealed().await?.into_iter().map(|sealed| (sealed.host, sealed.arrival)).collect();
        let now = self.clock.monotonic();
        due.retain(|sealing| {
            let is_done = there.get(&sealing.host).is_some_and(|arrival| *arrival >= sealing.until);
            if is_done {
                sealing.log.sealed(sealing.until, now);
            }
            !is_done
        });
        Ok(())
    }
}

/// Runs what costs processor time where it delays nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn blocks_of(work: &[(HostId, Vec<Arc<Snapshot>>)], floors: Floors) -> Vec<Write> {
    let mut writes = Vec::new();
    for (host, rows) in work {
        // No block reaches over an hour's bounds, so that whole hours can be made one block.
        let mut hours: BTreeMap<i64, Vec<Arc<Snapshot>>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.at_ms >= floors.ms[0]) {
            hours.entry(bucket_start(row.at_ms, Tier::Raw.window_ms())).or_default().push(row.clone());
        }
        for (hour, rows) in hours {
            for table in Table::from_snapshots(&rows) {
                let block = block::encode(&table, Effort::Fast);
                writes.push(Write::Put(Tier::Raw, *host, table.shape.clone(), block));
            }
            writes.push(Write::Mark(Tier::Raw, *host, hour));
        }
    }
    writes
}

/// Rows of a time that is let go, as buckets of the tier that still has it.
fn late_of(work: &[(HostId, Vec<Arc<Snapshot>>)], floors: Floors) -> Vec<Late> {
    let mut late = Vec::new();
    for (host, rows) in work {
        let rows: Vec<Arc<Snapshot>> = rows.iter().filter(|row| row.at_ms < floors.ms[0]).cloned().collect();
        let tables = Table::from_snapshots(&rows);
        let minutes: Vec<Buckets> =
            tables.iter().map(|table| Buckets::of_ticks(table, Tier::Minute.width_ms(), i64::MIN)).collect();
        let hours = minutes.iter().map(|m| m.within(i64::MIN, floors.ms[1]).wider(Tier::Hour.width_ms()));
        let hours: Vec<Buckets> = hours.map(|hours| hours.within(floors.ms[2], i64::MAX)).collect();
        let minutes = minutes.iter().map(|m| m.within(floors.ms[1], i64::MAX)).collect();
        late.push((*host, Tier::Minute, minutes));
        late.push((*host, Tier::Hour, hours));
    }
    late.retain(|(_, _, buckets)| buckets.iter().any(|buckets| !buckets.is_empty()));
    late
}
