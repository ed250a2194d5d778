//! Reads a time range by joining blocks with unsealed rows.

use super::History;
use super::series::{CancelOnDrop, MAX_PART_CELLS, add_to_grids, check_points, points_result};
use super::task::run_held;
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_model::{BootId, HostId, MISSING, ProcessRow, Snapshot};
use perfwatch_store::{BlockContent, HeldPermits, Query, QueryResult, ReadBounds, StoreError};
use perfwatch_tsdb::query::{self, Gap, GapMarker, Points};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketColumn, Buckets, Projection, Projector, Table, Tier};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Maximum number of gaps in a result.
const MAX_GAPS: usize = 1_000;

/// Maximum number of processes whose usage is summed up; above, those with the least usage are left out.
const MAX_SUMMED_PROCESSES: usize = 100_000;

/// Minimum length of the parts in which processes are read.
const MIN_PART_MS: i64 = 60_000;

/// Rows of a time range, from blocks and from the head.
pub struct JoinedSeries {
    /// Slices of the blocks, with the tiers that the query plan selected.
    pub sealed: QueryResult,
    /// Unsealed rows within the range, as tables.
    pub unsealed: Vec<Table>,
}

/// Values of a series in a result.
pub struct SeriesPoints {
    /// Dotted name of the metric.
    pub metric: String,
    /// Instance of the metric's dimension, empty if the metric has none.
    pub instance: String,
    /// Number of decimals of the scaled values.
    pub decimals: u8,
    /// Values at the times of the result.
    pub values: SeriesValues,
}

/// Values of a series: rows, or points of a grid.
pub enum SeriesValues {
    /// Scaled value per row.
    Raw(Vec<i64>),
    /// Statistics of the samples per point.
    Points(Points),
}

/// Series of a host over a common time axis.
pub struct SeriesResult {
    /// Width of a point in milliseconds; 0 if the values are raw rows.
    pub step_ms: i64,
    /// Times of the rows, or starts of the points that have values, Unix milliseconds.
    pub at_ms: Vec<i64>,
    /// Indices of these points in the grid; empty for raw rows.
    pub point_indices: Vec<usize>,
    /// Selected series, ordered by metric and instance for points.
    pub series: Vec<SeriesPoints>,
    /// Times without data, at most 1,000.
    pub gaps: Vec<Gap>,
    /// Coarsest tier that was read.
    pub tier: Tier,
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
        let rows = self.unsealed_rows(host, range);
        let sealed = self.read_sealed(host, tier, range, projection, bounds).await?;
        let projection = projection.clone();
        let unsealed = run_held(bounds, move || project_rows(&rows, &projection)).await?;
        Ok(JoinedSeries { sealed, unsealed })
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
    pub(crate) fn unsealed_rows(&self, host: HostId, (from_ms, to_ms): (i64, i64)) -> Vec<Arc<Snapshot>> {
        let rows = self.head(host).rows().into_iter();
        rows.filter(|row| (from_ms..to_ms).contains(&row.at_ms)).collect()
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

fn bucket_row(buckets: &Buckets, start_ms: i64, tier: Tier) -> Option<NearestSnapshot> {
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

pub(crate) fn gap_markers(
    joined: &JoinedSeries,
    (from_ms, to_ms): (i64, i64),
    interval_ms: i64,
) -> Vec<GapMarker> {
    let mut markers = Vec::new();
    let mut add_rows = |table: &Table, from_ms: i64, to_ms: i64| {
        for row in 0..table.len() {
            if (from_ms..to_ms).contains(&table.at_ms[row]) {
                // Scripts have no boot; their sequence numbers are times.
                let boot = table.boots[row];
                let sequence = (boot != BootId::default()).then_some((boot, table.seqs[row]));
                let row_interval_ms = table.interval_ms[row];
                let interval_ms = if row_interval_ms > 0 { row_interval_ms } else { interval_ms };
                markers.push(GapMarker { at_ms: table.at_ms[row], interval_ms, sequence });
            }
        }
    };
    joined.unsealed.iter().for_each(|table| add_rows(table, from_ms, to_ms));
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &slice.content {
            add_rows(table, slice.from_ms, slice.to_ms);
        }
    }
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Buckets(buckets)) = &slice.content {
            let interval_ms = slice.block.tier.width_ms().max(interval_ms);
            let starts = buckets.start_ms.iter();
            let starts = starts.filter(|start| (slice.from_ms..slice.to_ms).contains(start));
            markers.extend(starts.map(|start| GapMarker { at_ms: *start, interval_ms, sequence: None }));
        }
    }
    markers.sort_by_key(|marker| marker.at_ms);
    markers
}

/// Builds the result of a read: raw rows if there are at most `max_points`, otherwise points.
///
/// # Errors
/// Returns [`StoreError::TooLarge`] above the limit of points.
pub(crate) fn build_series(
    joined: &JoinedSeries,
    range: (i64, i64),
    step_ms: i64,
    max_points: usize,
    interval_ms: i64,
) -> Result<SeriesResult, StoreError> {
    let markers = gap_markers(joined, range, interval_ms);
    let mut gaps = query::find_gaps(&markers);
    gaps.truncate(MAX_GAPS);
    let tier = joined.sealed.plan.iter().map(|segment| segment.tier).max().unwrap_or(Tier::Raw);
    if tier == Tier::Raw && markers.len() <= max_points {
        return build_raw(joined, range, gaps);
    }
    let mut grids = BTreeMap::new();
    add_to_grids(&mut grids, joined, range, range, step_ms)?;
    Ok(points_result(grids, range, step_ms, gaps, tier))
}

/// Tables of unsealed rows with the selected columns. Columns are selected first: rows with different
/// columns would otherwise become large tables.
fn project_rows(rows: &[Arc<Snapshot>], projection: &Projection) -> Vec<Table> {
    let mut projector = Projector::new(projection);
    let mut select = |row: &Arc<Snapshot>| {
        let selected = projector.project(&row.shape);
        if selected.indices.len() == row.shape.columns().len() {
            return row.clone();
        }
        let value = |&index: &usize| row.values.get(index).copied().unwrap_or(MISSING);
        let values = selected.indices.iter().map(value).collect();
        Arc::new(Snapshot { shape: selected.shape.clone(), values, ..(**row).clone() })
    };
    let selected: Vec<Arc<Snapshot>> = rows.iter().map(&mut select).collect();
    let tables = Table::from_snapshots(&selected).into_iter();
    tables.map(|table| table.project(projection, &mut projector)).collect()
}

/// Builds a result of raw rows, without aggregation.
fn build_raw(
    joined: &JoinedSeries,
    (from_ms, to_ms): (i64, i64),
    gaps: Vec<Gap>,
) -> Result<SeriesResult, StoreError> {
    let mut tables: Vec<Table> = joined.unsealed.clone();
    for slice in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &slice.content {
            tables.push(table.clone());
        }
    }
    let merged = Table::merge(&tables, from_ms);
    let mut result = SeriesResult {
        step_ms: 0,
        at_ms: Vec::new(),
        point_indices: Vec::new(),
        series: Vec::new(),
        gaps,
        tier: Tier::Raw,
    };
    let mut series_indices: HashMap<(String, String, u8), usize> = HashMap::new();
    for table in &merged {
        let rows: Vec<usize> = (0..table.len()).filter(|row| table.at_ms[*row] < to_ms).collect();
        let previous_len = result.at_ms.len();
        result.at_ms.extend(rows.iter().map(|row| table.at_ms[*row]));
        for (index, column) in table.shape.columns().iter().enumerate() {
            let key = (column.metric.to_string(), column.instance.to_string(), column.decimals);
            check_points(result.series.len(), result.at_ms.len())?;
            let series_index = *series_indices.entry(key).or_insert_with(|| {
                result.series.push(SeriesPoints {
                    metric: column.metric.to_string(),
                    instance: column.instance.to_string(),
                    decimals: column.decimals,
                    values: SeriesValues::Raw(Vec::new()),
                });
                result.series.len() - 1
            });
            if let SeriesValues::Raw(values) = &mut result.series[series_index].values {
                values.resize(previous_len, MISSING);
                values.extend(rows.iter().map(|row| table.columns[index][*row]));
            }
        }
    }
    let len = result.at_ms.len();
    for series in &mut result.series {
        if let SeriesValues::Raw(values) = &mut series.values {
            values.resize(len, MISSING);
        }
    }
    Ok(result)
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
        let (median, mut kept) = (*median, 0);
        self.by_process.retain(|_, usage| {
            kept += 1;
            usage.cpu_tenths_ms > median && kept <= MAX_SUMMED_PROCESSES
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
