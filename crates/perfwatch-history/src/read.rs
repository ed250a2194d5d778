//! The way back: blocks and open rows of one host, joined into what the API answers.

use super::History;
use perfwatch_model::{HostId, ProcessRow, Snapshot};
use perfwatch_store::{BlockContent, Query, QueryResult, StoreError};
use perfwatch_tsdb::query::{self, Gap, GapMarker, Points};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{Buckets, Projection, Projector, SeriesSelector, Table, Tier};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rows of some time, from blocks and from the open rows.
pub struct JoinedSeries {
    /// What blocks answered.
    pub sealed: QueryResult,
    /// Open rows within the range, as tables.
    pub unsealed: Vec<Table>,
}

/// One series of an answer.
pub struct SeriesPoints {
    pub metric: String,
    pub instance: String,
    pub decimals: u8,
    pub values: SeriesValues,
}

/// Its numbers.
pub enum SeriesValues {
    /// One a row; scaled.
    Ticks(Vec<i64>),
    /// One a point.
    Points(Points),
}

/// Several series over one time.
pub struct SeriesResult {
    /// Width of a point; 0 where each row is one.
    pub step_ms: i64,
    /// Times of the rows, or starts of the points that have any.
    pub at_ms: Vec<i64>,
    /// Which of a grid's points those are.
    pub point_indices: Vec<usize>,
    pub series: Vec<SeriesPoints>,
    pub gaps: Vec<Gap>,
    /// The coarsest tier that answered.
    pub tier: Tier,
}

/// A process over some time.
pub struct ProcessUsage {
    pub last: ProcessRow,
    /// Sums over the rows it was in, weighted by their time: tenths of a percent × ms.
    pub cpu_tenths_ms: u64,
    pub cpu_tenths_max: u32,
    pub memory_max: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub rows: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Rows that an answer gives one by one at most, whatever was asked.
const MAX_GAPS: usize = 1_000;

impl History {
    /// What there is of a host in `from_ms..to_ms`, no row twice.
    pub async fn read(
        &self,
        host: HostId,
        tier: Tier,
        (from_ms, to_ms): (i64, i64),
        wanted: &Arc<Projection>,
    ) -> Result<JoinedSeries, StoreError> {
        let log = self.head(host);
        // Rows don't move into blocks while this is held.
        let _look = log.lock_read().await;
        let rows: Vec<Arc<Snapshot>> =
            log.rows().into_iter().filter(|row| (from_ms..to_ms).contains(&row.at_ms)).collect();
        let query = Query { host, tier, from_ms, to_ms, projection: wanted.clone() };
        let reading = self.backend.read_range(query).await?;
        let pieces = &reading.slices;
        self.log_corrupt_blocks(pieces);
        let mut picker = Projector::new(wanted);
        let open = Table::from_snapshots(&rows)
            .into_iter()
            .map(|table| table.project(wanted, &mut picker))
            .collect();
        Ok(JoinedSeries { sealed: reading, unsealed: open })
    }

    /// Points of series over a range.
    pub async fn series(
        &self,
        host: HostId,
        names: Vec<SeriesSelector>,
        (from_ms, to_ms): (i64, i64),
        points: usize,
        rhythm_ms: i64,
    ) -> Result<SeriesResult, StoreError> {
        let step_ms = query::step_ms(to_ms - from_ms, points);
        let tier = query::tier_for(step_ms);
        let wanted = Arc::new(Projection { sequences: true, ..Projection::of_series(names) });
        let joined = self.read(host, tier, (from_ms, to_ms), &wanted).await?;
        super::seal::run_blocking(move || build_points(&joined, (from_ms, to_ms), step_ms, points, rhythm_ms))
            .await
    }

    /// The newest row at a time or shortly before it.
    pub async fn snapshot_at(
        &self,
        host: HostId,
        at_ms: i64,
        within_ms: i64,
    ) -> Result<Option<NearestSnapshot>, StoreError> {
        let range = (at_ms.saturating_sub(within_ms), at_ms.saturating_add(1));
        let times = self.read(host, Tier::Raw, range, &Arc::new(Projection::default())).await?;
        let in_blocks = times.sealed.slices.iter().flat_map(|piece| match &piece.content {
            Ok(BlockContent::Raw(table)) => table.at_ms.clone(),
            Ok(BlockContent::Buckets(buckets)) => buckets.start_ms.clone(),
            Err(_) => Vec::new(),
        });
        let all = in_blocks.chain(times.unsealed.iter().flat_map(|table| table.at_ms.clone()));
        let Some(newest) = all.filter(|at| (range.0..range.1).contains(at)).max() else {
            return Ok(None);
        };
        let whole = self.read(host, Tier::Raw, (newest, newest + 1), &Arc::new(Projection::full())).await?;
        let tables = whole.sealed.slices.iter().filter_map(|piece| match &piece.content {
            Ok(BlockContent::Raw(table)) => Some(table),
            _ => None,
        });
        for table in tables.chain(&whole.unsealed) {
            if let Some(row) = table.at_ms.iter().rposition(|at| *at == newest) {
                return Ok(Some(NearestSnapshot { snapshot: table.snapshot(row), width_ms: 0 }));
            }
        }
        let buckets = whole.sealed.slices.iter().find_map(|piece| match &piece.content {
            Ok(BlockContent::Buckets(buckets)) => bucket_row(buckets, newest, piece.block.tier),
            _ => None,
        });
        Ok(buckets)
    }

    /// Who used the host over some time, by processor time; and the time that there are rows of.
    pub async fn processes(
        &self,
        host: HostId,
        (from_ms, to_ms): (i64, i64),
    ) -> Result<(Vec<ProcessUsage>, i64), StoreError> {
        let wanted = Arc::new(Projection { processes: true, ..Projection::default() });
        let mut uses = ProcessTotals::default();
        let mut at_ms = from_ms;
        // Hour by hour: a month of rows never stands in memory at once.
        while at_ms < to_ms {
            let end_ms = (bucket_start(at_ms, Tier::Raw.window_ms()) + Tier::Raw.window_ms()).min(to_ms);
            let joined = self.read(host, Tier::Raw, (at_ms, end_ms), &wanted).await?;
            uses = super::seal::run_blocking(move || {
                uses.add_all(&joined, (at_ms, end_ms));
                uses
            })
            .await?;
            at_ms = end_ms;
        }
        let mut all: Vec<ProcessUsage> = uses.by_process.into_values().collect();
        all.sort_by_key(|sum| (std::cmp::Reverse(sum.cpu_tenths_ms), sum.last.pid));
        Ok((all, uses.covered_ms))
    }
}

/// A row of the past.
pub struct NearestSnapshot {
    pub snapshot: Snapshot,
    /// 0 for a tick; for a bucket, its width: the values are averages.
    pub width_ms: i64,
}

fn bucket_row(buckets: &Buckets, start_ms: i64, tier: Tier) -> Option<NearestSnapshot> {
    let row = buckets.start_ms.iter().position(|start| *start == start_ms)?;
    Some(NearestSnapshot { snapshot: bucket_snapshot(buckets, row, tier), width_ms: tier.width_ms() })
}

/// A bucket as if it were a tick: averages, and no processes, which only ticks have.
pub fn bucket_snapshot(buckets: &Buckets, row: usize, tier: Tier) -> Snapshot {
    let average = |column: &perfwatch_tsdb::BucketColumn| {
        let figures = column.0.get(row).filter(|figures| figures.count > 0)?;
        i64::try_from(figures.sum / i128::from(figures.count)).ok()
    };
    let values = buckets.columns.iter().map(|column| average(column).unwrap_or(perfwatch_model::MISSING));
    Snapshot {
        boot: perfwatch_model::BootId::default(),
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

fn gap_markers(joined: &JoinedSeries, (from_ms, to_ms): (i64, i64), rhythm_ms: i64) -> Vec<GapMarker> {
    let mut marks = Vec::new();
    let mut ticks = |table: &Table, from_ms: i64, to_ms: i64| {
        for row in 0..table.len() {
            if (from_ms..to_ms).contains(&table.at_ms[row]) {
                let sequence = Some((table.boots[row], table.seqs[row]));
                marks.push(GapMarker {
                    at_ms: table.at_ms[row],
                    interval_ms: table.interval_ms[row],
                    sequence,
                });
            }
        }
    };
    joined.unsealed.iter().for_each(|table| ticks(table, from_ms, to_ms));
    for piece in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &piece.content {
            ticks(table, piece.from_ms, piece.to_ms);
        }
    }
    for piece in &joined.sealed.slices {
        if let Ok(BlockContent::Buckets(buckets)) = &piece.content {
            let interval_ms = piece.block.tier.width_ms().max(rhythm_ms);
            let within = buckets.start_ms.iter().filter(|start| (piece.from_ms..piece.to_ms).contains(start));
            marks.extend(within.map(|start| GapMarker { at_ms: *start, interval_ms, sequence: None }));
        }
    }
    marks.sort_by_key(|mark| mark.at_ms);
    marks
}

fn build_points(
    joined: &JoinedSeries,
    range: (i64, i64),
    step_ms: i64,
    points: usize,
    rhythm_ms: i64,
) -> SeriesResult {
    let marks = gap_markers(joined, range, rhythm_ms);
    let mut gaps = query::find_gaps(&marks);
    gaps.truncate(MAX_GAPS);
    let tier = joined.sealed.plan.iter().map(|stretch| stretch.tier).max().unwrap_or(Tier::Raw);
    if tier == Tier::Raw && marks.len() <= points {
        return build_raw(joined, range, gaps);
    }
    let mut grid: BTreeMap<(String, String), Points> = BTreeMap::new();
    let point = |column: &perfwatch_model::Column| (column.metric.to_string(), column.instance.to_string());
    let new = || Points::new(range.0, range.1 - 1, step_ms);
    // Blocks in the order of time, then what is newest of all.
    for piece in &joined.sealed.slices {
        match &piece.content {
            Ok(BlockContent::Raw(table)) => {
                for (at, column) in table.shape.columns().iter().enumerate() {
                    let points = grid.entry(point(column)).or_insert_with(new);
                    points.add_ticks(table, at, piece.from_ms, piece.to_ms);
                }
            }
            Ok(BlockContent::Buckets(buckets)) => {
                for (at, column) in buckets.shape.columns().iter().enumerate() {
                    let points = grid.entry(point(column)).or_insert_with(new);
                    points.add_buckets(buckets, at, piece.from_ms, piece.to_ms);
                }
            }
            Err(_) => {}
        }
    }
    for table in &joined.unsealed {
        for (at, column) in table.shape.columns().iter().enumerate() {
            grid.entry(point(column)).or_insert_with(new).add_ticks(table, at, range.0, range.1);
        }
    }
    let places = new().len();
    let has = |place: &usize| grid.values().any(|points| points.stats()[*place].count > 0);
    let filled: Vec<usize> = (0..places).filter(has).collect();
    let first_ms = new().from_ms;
    let start = |place: &usize| first_ms + i64::try_from(*place).unwrap_or_default() * step_ms;
    let at_ms = filled.iter().map(start).collect();
    let series = grid.into_iter().map(|((metric, instance), points)| SeriesPoints {
        metric,
        instance,
        decimals: points.decimals(),
        values: SeriesValues::Points(points),
    });
    SeriesResult { step_ms, at_ms, point_indices: filled, series: series.collect(), gaps, tier }
}

/// Every row as it came.
fn build_raw(joined: &JoinedSeries, (from_ms, to_ms): (i64, i64), gaps: Vec<Gap>) -> SeriesResult {
    let mut tables: Vec<Table> = joined.unsealed.clone();
    for piece in &joined.sealed.slices {
        if let Ok(BlockContent::Raw(table)) = &piece.content {
            tables.push(table.clone());
        }
    }
    let merged = Table::merge(&tables, from_ms);
    let mut answer = SeriesResult {
        step_ms: 0,
        at_ms: Vec::new(),
        point_indices: Vec::new(),
        series: Vec::new(),
        gaps,
        tier: Tier::Raw,
    };
    let mut places: HashMap<(String, String, u8), usize> = HashMap::new();
    for table in &merged {
        let rows: Vec<usize> = (0..table.len()).filter(|row| table.at_ms[*row] < to_ms).collect();
        let before = answer.at_ms.len();
        answer.at_ms.extend(rows.iter().map(|row| table.at_ms[*row]));
        for (at, column) in table.shape.columns().iter().enumerate() {
            let key = (column.metric.to_string(), column.instance.to_string(), column.decimals);
            let place = *places.entry(key).or_insert_with(|| {
                answer.series.push(SeriesPoints {
                    metric: column.metric.to_string(),
                    instance: column.instance.to_string(),
                    decimals: column.decimals,
                    values: SeriesValues::Ticks(Vec::new()),
                });
                answer.series.len() - 1
            });
            if let SeriesValues::Ticks(values) = &mut answer.series[place].values {
                values.resize(before, perfwatch_model::MISSING);
                values.extend(rows.iter().map(|row| table.columns[at][*row]));
            }
        }
    }
    let count = answer.at_ms.len();
    for series in &mut answer.series {
        if let SeriesValues::Ticks(values) = &mut series.values {
            values.resize(count, perfwatch_model::MISSING);
        }
    }
    answer
}

/// Processes summed up so far.
#[derive(Default)]
struct ProcessTotals {
    by_process: HashMap<(u32, i64), ProcessUsage>,
    covered_ms: i64,
}

impl ProcessTotals {
    fn add_all(&mut self, joined: &JoinedSeries, (from_ms, to_ms): (i64, i64)) {
        for piece in &joined.sealed.slices {
            if let Ok(BlockContent::Raw(table)) = &piece.content {
                self.add(table, piece.from_ms, piece.to_ms);
            }
        }
        joined.unsealed.iter().for_each(|table| self.add(table, from_ms, to_ms));
    }

    fn add(&mut self, table: &Table, from_ms: i64, to_ms: i64) {
        for (row, processes) in table.processes.iter().enumerate() {
            let at_ms = table.at_ms[row];
            if !(from_ms..to_ms).contains(&at_ms) {
                continue;
            }
            let time_ms = table.interval_ms[row].max(0);
            self.covered_ms += time_ms;
            for process in processes {
                let sum = self.by_process.entry((process.pid, process.started_ms));
                sum.or_insert_with(|| ProcessUsage::new(process, at_ms)).add(
                    process,
                    at_ms,
                    time_ms.cast_unsigned(),
                );
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

    fn add(&mut self, process: &ProcessRow, at_ms: i64, time_ms: u64) {
        self.cpu_tenths_ms += u64::from(process.cpu_tenths) * time_ms;
        self.cpu_tenths_max = self.cpu_tenths_max.max(process.cpu_tenths);
        self.memory_max = self.memory_max.max(process.memory_bytes);
        let bytes = |rate: Option<u64>| rate.unwrap_or_default().saturating_mul(time_ms) / 1_000;
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
