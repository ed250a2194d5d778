//! Reads a time range by joining blocks with unsealed rows.

use super::History;
use super::task::{CancelOnDrop, MAX_PART_CELLS, run_held};
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_model::{BootId, HostId, MISSING, ProcessRow, Snapshot};
use perfwatch_store::{BlockContent, HeldPermits, Query, QueryResult, ReadBounds, StoreError};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketColumn, Buckets, DecodedRows, EncodedRow, Projection, Projector, Table, Tier};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of processes whose usage is summed up; above, those with the least usage are left out.
const MAX_SUMMED_PROCESSES: usize = 100_000;

/// Maximum number of reads of a range in which another hub seals rows at the same time.
const MAX_READ_ATTEMPTS: usize = 3;

/// Minimum length of the parts in which processes are read.
const MIN_PART_MS: i64 = 60_000;

/// Rows of a time range, from blocks and from the head.
pub struct JoinedSeries {
    /// Slices of the blocks, with the tiers that the query plan selected.
    pub sealed: QueryResult,
    /// Unsealed rows within the range, as tables.
    pub unsealed: Vec<Table>,
}

/// Resource usage of a process over a time range. It includes only rows in which the process is a top
/// process.
pub struct ProcessUsage {
    /// Newest row of the process.
    pub last: ProcessRow,
    /// Processor time: tenths of a percent × milliseconds, summed over the rows.
    pub cpu_tenths_ms: u64,
    /// Highest processor usage, tenths of a percent.
    pub cpu_tenths_max: u32,
    /// Highest memory usage in bytes.
    pub memory_max: u64,
    /// Bytes read from disk, estimated from the rates.
    pub read_bytes: u64,
    /// Bytes written to disk, estimated from the rates.
    pub write_bytes: u64,
    /// Number of rows with this process.
    pub rows: u64,
    /// Time of the first row, Unix milliseconds.
    pub first_ms: i64,
    /// Time of the last row, Unix milliseconds.
    pub last_ms: i64,
}

/// Snapshot at or before a requested time.
pub struct NearestSnapshot {
    /// Raw row, or the averages of a bucket.
    pub snapshot: Snapshot,
    /// Bucket width in milliseconds; 0 for a raw row.
    pub width_ms: i64,
}

impl History {
    /// Reads the rows of a host in `from_ms..to_ms`, each row once, from the tiers that fit. The read has no
    /// limit: it serves the hub itself.
    ///
    /// # Errors
    /// Returns the error of the store if the blocks cannot be read.
    pub async fn read(
        &self,
        host: HostId,
        tier: Tier,
        range: (i64, i64),
        projection: &Arc<Projection>,
    ) -> Result<JoinedSeries, StoreError> {
        self.read_bounded(host, tier, range, projection, &ReadBounds::default()).await
    }

    /// Reads the rows of a host within a number of values. The read ends if its future is dropped.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the number of values, or another error of the store if the
    /// blocks cannot be read.
    pub async fn read_limited(
        &self,
        host: HostId,
        tier: Tier,
        range: (i64, i64),
        projection: &Arc<Projection>,
        max_cells: usize,
    ) -> Result<JoinedSeries, StoreError> {
        let bounds = ReadBounds { max_cells, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        self.read_bounded(host, tier, range, projection, &bounds).await
    }

    /// Reads the rows of a host within bounds.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the bounds, or another error of the store if the blocks cannot
    /// be read.
    pub async fn read_bounded(
        &self,
        host: HostId,
        tier: Tier,
        range: (i64, i64),
        projection: &Arc<Projection>,
        bounds: &ReadBounds,
    ) -> Result<JoinedSeries, StoreError> {
        let head = self.head(host);
        // While this lock is held, rows do not move into blocks.
        let _read_lock = head.lock_read().await;
        let mut rows = self.unsealed_rows(host, range);
        let (sealed, mirrored) = self.read_sealed_and_mirrored(host, tier, range, projection, bounds).await?;
        rows.extend(mirrored);
        let projection = projection.clone();
        let unsealed = run_held(bounds, move || project_rows(&rows, &projection)).await?;
        Ok(JoinedSeries { sealed, unsealed })
    }

    /// Reads the blocks of a host, and the unsealed rows of other hubs, each row once.
    async fn read_sealed_and_mirrored(
        &self,
        host: HostId,
        tier: Tier,
        range: (i64, i64),
        projection: &Arc<Projection>,
        bounds: &ReadBounds,
    ) -> Result<(QueryResult, Vec<EncodedRow>), StoreError> {
        let mut attempts = 0;
        loop {
            let mirrored = self.unsealed_mirrored(host, range).await?;
            let sealed = self.read_sealed(host, tier, range, projection, bounds).await?;
            attempts += 1;
            // Another hub may seal rows during the read.
            if self.are_unsealed(host, &mirrored).await? || attempts == MAX_READ_ATTEMPTS {
                return Ok((sealed, mirrored.into_iter().map(|mirrored| mirrored.row).collect()));
            }
        }
    }

    /// Reads the blocks of a host.
    pub(crate) async fn read_sealed(
        &self,
        host: HostId,
        tier: Tier,
        (from_ms, to_ms): (i64, i64),
        projection: &Arc<Projection>,
        bounds: &ReadBounds,
    ) -> Result<QueryResult, StoreError> {
        let (projection, bounds) = (projection.clone(), bounds.clone());
        let query = Query { host, tier, from_ms, to_ms, projection, bounds };
        let sealed = self.backend.read_range(query).await?;
        self.log_corrupt_blocks(&sealed.slices);
        Ok(sealed)
    }

    /// Unsealed rows of a host within a range.
    pub(crate) fn unsealed_rows(&self, host: HostId, (from_ms, to_ms): (i64, i64)) -> Vec<EncodedRow> {
        let rows = self.head(host).rows().into_iter();
        rows.filter(|row| (from_ms..to_ms).contains(&row.at_ms())).collect()
    }

    /// Reads the newest snapshot at `at_ms`, or at most `max_age_ms` before it.
    ///
    /// # Errors
    /// Returns the error of the store if the blocks cannot be read.
    pub async fn snapshot_at(
        &self,
        host: HostId,
        at_ms: i64,
        max_age_ms: i64,
        held: Option<HeldPermits>,
    ) -> Result<Option<NearestSnapshot>, StoreError> {
        let range = (at_ms.saturating_sub(max_age_ms), at_ms.saturating_add(1));
        let bounds = ReadBounds { max_cells: MAX_READ_CELLS, trim: true, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let no_columns = Arc::new(Projection::default());
        let times = self.read_bounded(host, Tier::Raw, range, &no_columns, &bounds).await?;
        let sealed_times = times.sealed.slices.iter().flat_map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => table.at_ms.clone(),
            Ok(BlockContent::Buckets(buckets)) => buckets.start_ms.clone(),
            Err(_) => Vec::new(),
        });
        let all_times = sealed_times.chain(times.unsealed.iter().flat_map(|table| table.at_ms.clone()));
        let Some(newest) = all_times.filter(|at| (range.0..range.1).contains(at)).max() else {
            return Ok(None);
        };
        let (range, full) = ((newest, newest + 1), Arc::new(Projection::full()));
        let joined = self.read_bounded(host, Tier::Raw, range, &full, &bounds).await?;
        let tables = joined.sealed.slices.iter().filter_map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => Some(table),
            _ => None,
        });
        for table in tables.chain(&joined.unsealed) {
            if let Some(row) = table.at_ms.iter().rposition(|at| *at == newest) {
                return Ok(Some(NearestSnapshot { snapshot: table.snapshot(row), width_ms: 0 }));
            }
        }
        Ok(joined.sealed.slices.iter().find_map(|slice| match &slice.content {
            Ok(BlockContent::Buckets(buckets)) => bucket_row(buckets, newest, slice.block.tier),
            _ => None,
        }))
    }

    /// Sums the usage of each top process over a range. Returns the processes, ordered by processor time,
    /// and the time in milliseconds that raw rows cover.
    ///
    /// # Errors
    /// Returns the error of the store if the blocks cannot be read.
    pub async fn processes(
        &self,
        host: HostId,
        (from_ms, to_ms): (i64, i64),
        held: Option<HeldPermits>,
    ) -> Result<(Vec<ProcessUsage>, i64), StoreError> {
        let projection = Arc::new(Projection { processes: true, ..Projection::default() });
        let bounds = ReadBounds { max_cells: MAX_PART_CELLS, trim: true, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let mut totals = ProcessTotals::default();
        let (mut at_ms, mut part_ms) = (from_ms, Tier::Raw.window_ms());
        // Hour by hour, or less if there are many rows, so that a month of rows is never in memory at once.
        while at_ms < to_ms {
            let end_ms = (bucket_start(at_ms, part_ms) + part_ms).min(to_ms);
            let range = (at_ms, end_ms);
            let joined = match self.read_bounded(host, Tier::Raw, range, &projection, &bounds).await {
                Err(StoreError::TooLarge(_)) if part_ms > MIN_PART_MS => {
                    part_ms /= 2;
                    continue;
                }
                joined => joined?,
            };
            totals = run_held(&bounds, move || {
                totals.add_all(&joined, range);
                totals
            })
            .await?;
            at_ms = end_ms;
        }
        let sorted = move || {
            let mut processes: Vec<ProcessUsage> = totals.by_process.into_values().collect();
            processes.sort_by_key(|usage| (Reverse(usage.cpu_tenths_ms), usage.last.pid));
            (processes, totals.covered_ms)
        };
        run_held(&bounds, sorted).await
    }
}

pub(crate) fn bucket_row(buckets: &Buckets, start_ms: i64, tier: Tier) -> Option<NearestSnapshot> {
    let row = buckets.start_ms.iter().position(|start| *start == start_ms)?;
    Some(NearestSnapshot { snapshot: bucket_snapshot(buckets, row, tier), width_ms: tier.width_ms() })
}

/// Converts a bucket to a snapshot of averages. It has no processes, which only raw rows contain.
pub fn bucket_snapshot(buckets: &Buckets, row: usize, tier: Tier) -> Snapshot {
    let average = |column: &BucketColumn| {
        let stats = column.0.get(row).filter(|stats| stats.count > 0)?;
        i64::try_from(stats.sum / i128::from(stats.count)).ok()
    };
    let values = buckets.columns.iter().map(|column| average(column).unwrap_or(MISSING));
    Snapshot {
        boot: BootId::default(),
        seq: 0,
        at_ms: buckets.start_ms[row],
        interval_ms: u32::try_from(tier.width_ms()).unwrap_or_default(),
        shape: buckets.shape.clone(),
        values: values.collect(),
        processes: Vec::new(),
        facts: None,
        errors: Vec::new(),
    }
}

/// Tables of unsealed rows with the selected columns. Columns are selected first: rows with different
/// columns would otherwise become large tables.
fn project_rows(rows: &[EncodedRow], projection: &Projection) -> Vec<Table> {
    let mut projector = Projector::new(projection);
    DecodedRows::projected(rows, projection, &mut projector).take_tables(|_| true)
}

/// Usage summed up so far, by process.
#[derive(Default)]
struct ProcessTotals {
    /// Keyed by process id and start time, because process ids are reused.
    by_process: HashMap<(u32, i64), ProcessUsage>,
    covered_ms: i64,
}

impl ProcessTotals {
    fn add_all(&mut self, joined: &JoinedSeries, (from_ms, to_ms): (i64, i64)) {
        for slice in &joined.sealed.slices {
            if let Ok(BlockContent::Raw(table)) = &slice.content {
                self.add(table, slice.from_ms, slice.to_ms);
            }
        }
        joined.unsealed.iter().for_each(|table| self.add(table, from_ms, to_ms));
        self.drop_smallest();
    }

    /// Drops the processes with the least usage if there are too many.
    fn drop_smallest(&mut self) {
        if self.by_process.len() <= MAX_SUMMED_PROCESSES {
            return;
        }
        let mut usages: Vec<u64> = self.by_process.values().map(|usage| usage.cpu_tenths_ms).collect();
        let (_, median, _) = usages.select_nth_unstable(MAX_SUMMED_PROCESSES / 2);
        let (median, mut retained) = (*median, 0);
        self.by_process.retain(|_, usage| {
            retained += 1;
            usage.cpu_tenths_ms > median && retained <= MAX_SUMMED_PROCESSES
        });
    }

    fn add(&mut self, table: &Table, from_ms: i64, to_ms: i64) {
        for (row, processes) in table.processes.iter().enumerate() {
            let at_ms = table.at_ms[row];
            if !(from_ms..to_ms).contains(&at_ms) {
                continue;
            }
            let interval_ms = table.interval_ms[row].max(0);
            self.covered_ms += interval_ms;
            for process in processes {
                let usage = self.by_process.entry((process.pid, process.started_ms));
                let usage = usage.or_insert_with(|| ProcessUsage::new(process, at_ms));
                usage.add(process, at_ms, interval_ms.cast_unsigned());
            }
        }
    }
}

impl ProcessUsage {
    fn new(process: &ProcessRow, at_ms: i64) -> Self {
        Self {
            last: process.clone(),
            cpu_tenths_ms: 0,
            cpu_tenths_max: 0,
            memory_max: 0,
            read_bytes: 0,
            write_bytes: 0,
            rows: 0,
            first_ms: at_ms,
            last_ms: at_ms,
        }
    }

    fn add(&mut self, process: &ProcessRow, at_ms: i64, interval_ms: u64) {
        self.cpu_tenths_ms += u64::from(process.cpu_tenths) * interval_ms;
        self.cpu_tenths_max = self.cpu_tenths_max.max(process.cpu_tenths);
        self.memory_max = self.memory_max.max(process.memory_bytes);
        let bytes = |rate: Option<u64>| rate.unwrap_or_default().saturating_mul(interval_ms) / 1_000;
        self.read_bytes = self.read_bytes.saturating_add(bytes(process.read_bytes));
        self.write_bytes = self.write_bytes.saturating_add(bytes(process.write_bytes));
        self.rows += 1;
        self.first_ms = self.first_ms.min(at_ms);
        if at_ms >= self.last_ms {
            self.last_ms = at_ms;
            self.last.clone_from(process);
        }
    }
}
