//! The way back: blocks and open rows of one host, joined into what the API answers.

use super::History;
use perfwatch_model::{HostId, ProcessRow, Snapshot};
use perfwatch_series::query::{self, Gap, Mark, Points};
use perfwatch_series::rollup::bucket_start;
use perfwatch_series::{Buckets, Picker, SeriesName, Table, Tier, Wanted};
use perfwatch_store::{Content, Query, Reading, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rows of some time, from blocks and from the open rows.
pub(crate) struct Joined {
    /// What blocks answered.
    pub(crate) reading: Reading,
    /// Open rows within the range, as tables.
    pub(crate) open: Vec<Table>,
}

/// One series of an answer.
pub(crate) struct SeriesPoints {
    pub(crate) metric: String,
    pub(crate) instance: String,
    pub(crate) decimals: u8,
    pub(crate) values: Values,
}

/// Its numbers.
pub(crate) enum Values {
    /// One a row; scaled.
    Ticks(Vec<i64>),
    /// One a point.
    Points(Points),
}

/// Several series over one time.
pub(crate) struct SeriesAnswer {
    /// Width of a point; 0 where each row is one.
    pub(crate) step_ms: i64,
    /// Times of the rows, or starts of the points that have any.
    pub(crate) at_ms: Vec<i64>,
    /// Which of a grid's points those are.
    pub(crate) filled: Vec<usize>,
    pub(crate) series: Vec<SeriesPoints>,
    pub(crate) gaps: Vec<Gap>,
    /// The coarsest tier that answered.
    pub(crate) tier: Tier,
}

/// A process over some time.
pub(crate) struct ProcessUse {
    pub(crate) last: ProcessRow,
    /// Sums over the rows it was in, weighted by their time: tenths of a percent × ms.
    pub(crate) cpu_tenths_ms: u64,
    pub(crate) cpu_tenths_max: u32,
    pub(crate) memory_max: u64,
    pub(crate) read_bytes: u64,
    pub(crate) write_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

/// Rows that an answer gives one by one at most, whatever was asked.
const GAPS: usize = 1_000;

impl History {
    /// What there is of a host in `from_ms..to_ms`, no row twice.
    pub(crate) async fn join(
        &self,
        host: HostId,
        tier: Tier,
        (from_ms, to_ms): (i64, i64),
        wanted: &Arc<Wanted>,
    ) -> Result<Joined, StoreError> {
        let log = self.log(host);
        // Rows don't move into blocks while this is held.
        let _look = log.look().await;
        let rows: Vec<Arc<Snapshot>> =
            log.rows().into_iter().filter(|row| (from_ms..to_ms).contains(&row.at_ms)).collect();
        let query = Query { host, tier, from_ms, to_ms, wanted: wanted.clone() };
        let reading = self.store.read(query).await?;
        let pieces = &reading.pieces;
        self.report(pieces);
        let mut picker = Picker::new(wanted);
        let open =
            Table::from_snapshots(&rows).into_iter().map(|table| table.pick(wanted, &mut picker)).collect();
        Ok(Joined { reading, open })
    }

    /// Points of series over a range.
    pub(crate) async fn series(
        &self,
        host: HostId,
        names: Vec<SeriesName>,
        (from_ms, to_ms): (i64, i64),
        points: usize,
        rhythm_ms: i64,
    ) -> Result<SeriesAnswer, StoreError> {
        let step_ms = query::step_ms(to_ms - from_ms, points);
        let tier = query::tier_for(step_ms);
        let wanted = Arc::new(Wanted { ticks: true, ..Wanted::series(names) });
        let joined = self.join(host, tier, (from_ms, to_ms), &wanted).await?;
        super::seal::blocking(move || answer(&joined, (from_ms, to_ms), step_ms, points, rhythm_ms)).await
    }

    /// The newest row at a time or shortly before it.
    pub(crate) async fn snapshot_at(
        &self,
        host: HostId,
        at_ms: i64,
        within_ms: i64,
    ) -> Result<Option<Found>, StoreError> {
        let range = (at_ms.saturating_sub(within_ms), at_ms.saturating_add(1));
        let times = self.join(host, Tier::Raw, range, &Arc::new(Wanted::default())).await?;
        let in_blocks = times.reading.pieces.iter().flat_map(|piece| match &piece.content {
            Ok(Content::Ticks(table)) => table.at_ms.clone(),
            Ok(Content::Buckets(buckets)) => buckets.start_ms.clone(),
            Err(_) => Vec::new(),
        });
        let all = in_blocks.chain(times.open.iter().flat_map(|table| table.at_ms.clone()));
        let Some(newest) = all.filter(|at| (range.0..range.1).contains(at)).max() else {
            return Ok(None);
        };
        let whole = self.join(host, Tier::Raw, (newest, newest + 1), &Arc::new(Wanted::everything())).await?;
        let tables = whole.reading.pieces.iter().filter_map(|piece| match &piece.content {
            Ok(Content::Ticks(table)) => Some(table),
            _ => None,
        });
        for table in tables.chain(&whole.open) {
            if let Some(row) = table.at_ms.iter().rposition(|at| *at == newest) {
                return Ok(Some(Found { snapshot: table.snapshot(row), width_ms: 0 }));
            }
        }
        let buckets = whole.reading.pieces.iter().find_map(|piece| match &piece.content {
            Ok(Content::Buckets(buckets)) => bucket_row(buckets, newest, piece.block.tier),
            _ => None,
        });
        Ok(buckets)
    }

    /// Who used the host over some time, by processor time; and the time that there are rows of.
    pub(crate) async fn processes(
        &self,
        host: HostId,
        (from_ms, to_ms): (i64, i64),
    ) -> Result<(Vec<ProcessUse>, i64), StoreError> {
        let wanted = Arc::new(Wanted { processes: true, ..Wanted::default() });
        let mut uses = Uses::default();
        let mut at_ms = from_ms;
        // Hour by hour: a month of rows never stands in memory at once.
        while at_ms < to_ms {
            let end_ms = (bucket_start(at_ms, Tier::Raw.window_ms()) + Tier::Raw.window_ms()).min(to_ms);
            let joined = self.join(host, Tier::Raw, (at_ms, end_ms), &wanted).await?;
            uses = super::seal::blocking(move || {
                uses.add_all(&joined, (at_ms, end_ms));
                uses
            })
            .await?;
            at_ms = end_ms;
        }
        let mut all: Vec<ProcessUse> = uses.by_process.into_values().collect();
        all.sort_by_key(|sum| (std::cmp::Reverse(sum.cpu_tenths_ms), sum.last.pid));
        Ok((all, uses.covered_ms))
    }
}

/// A row of the past.
pub(crate) struct Found {
    pub(crate) snapshot: Snapshot,
    /// 0 for a tick; for a bucket, its width: the values are averages.
    pub(crate) width_ms: i64,
}

fn bucket_row(buckets: &Buckets, start_ms: i64, tier: Tier) -> Option<Found> {
    let row = buckets.start_ms.iter().position(|start| *start == start_ms)?;
    Some(Found { snapshot: bucket_of(buckets, row, tier), width_ms: tier.width_ms() })
}

/// A bucket as if it were a tick: averages, and no processes, which only ticks have.
pub(crate) fn bucket_of(buckets: &Buckets, row: usize, tier: Tier) -> Snapshot {
    let average = |column: &perfwatch_series::BucketColumn| {
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

fn marks(joined: &Joined, (from_ms, to_ms): (i64, i64), rhythm_ms: i64) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut ticks = |table: &Table, from_ms: i64, to_ms: i64| {
        for row in 0..table.len() {
            if (from_ms..to_ms).contains(&table.at_ms[row]) {
                let tick = Some((table.boots[row], table.seqs[row]));
                marks.push(Mark { at_ms: table.at_ms[row], interval_ms: table.interval_ms[row], tick });
            }
        }
    };
    joined.open.iter().for_each(|table| ticks(table, from_ms, to_ms));
    for piece in &joined.reading.pieces {
        if let Ok(Content::Ticks(table)) = &piece.content {
            ticks(table, piece.from_ms, piece.to_ms);
        }
    }
    for piece in &joined.reading.pieces {
        if let Ok(Content::Buckets(buckets)) = &piece.content {
            let interval_ms = piece.block.tier.width_ms().max(rhythm_ms);
            let within = buckets.start_ms.iter().filter(|start| (piece.from_ms..piece.to_ms).contains(start));
            marks.extend(within.map(|start| Mark { at_ms: *start, interval_ms, tick: None }));
        }
    }
    marks.sort_by_key(|mark| mark.at_ms);
    marks
}

fn answer(joined: &Joined, range: (i64, i64), step_ms: i64, points: usize, rhythm_ms: i64) -> SeriesAnswer {
    let marks = marks(joined, range, rhythm_ms);
    let mut gaps = query::gaps(&marks);
    gaps.truncate(GAPS);
    let tier = joined.reading.plan.iter().map(|stretch| stretch.tier).max().unwrap_or(Tier::Raw);
    if tier == Tier::Raw && marks.len() <= points {
        return tick_answer(joined, range, gaps);
    }
    let mut grid: BTreeMap<(String, String), Points> = BTreeMap::new();
    let point = |column: &perfwatch_model::Column| (column.metric.to_string(), column.instance.to_string());
    let new = || Points::new(range.0, range.1 - 1, step_ms);
    // Blocks in the order of time, then what is newest of all.
    for piece in &joined.reading.pieces {
        match &piece.content {
            Ok(Content::Ticks(table)) => {
                for (at, column) in table.shape.columns().iter().enumerate() {
                    let points = grid.entry(point(column)).or_insert_with(new);
                    points.add_ticks(table, at, piece.from_ms, piece.to_ms);
                }
            }
            Ok(Content::Buckets(buckets)) => {
                for (at, column) in buckets.shape.columns().iter().enumerate() {
                    let points = grid.entry(point(column)).or_insert_with(new);
                    points.add_buckets(buckets, at, piece.from_ms, piece.to_ms);
                }
            }
            Err(_) => {}
        }
    }
    for table in &joined.open {
        for (at, column) in table.shape.columns().iter().enumerate() {
            grid.entry(point(column)).or_insert_with(new).add_ticks(table, at, range.0, range.1);
        }
    }
    let places = new().len();
    let has = |place: &usize| grid.values().any(|points| points.figures()[*place].count > 0);
    let filled: Vec<usize> = (0..places).filter(has).collect();
    let first_ms = new().from_ms;
    let start = |place: &usize| first_ms + i64::try_from(*place).unwrap_or_default() * step_ms;
    let at_ms = filled.iter().map(start).collect();
    let series = grid.into_iter().map(|((metric, instance), points)| SeriesPoints {
        metric,
        instance,
        decimals: points.decimals(),
        values: Values::Points(points),
    });
    SeriesAnswer { step_ms, at_ms, filled, series: series.collect(), gaps, tier }
}

/// Every row as it came.
fn tick_answer(joined: &Joined, (from_ms, to_ms): (i64, i64), gaps: Vec<Gap>) -> SeriesAnswer {
    let mut tables: Vec<Table> = joined.open.clone();
    for piece in &joined.reading.pieces {
        if let Ok(Content::Ticks(table)) = &piece.content {
            tables.push(table.clone());
        }
    }
    let merged = Table::merge(&tables, from_ms);
    let mut answer = SeriesAnswer {
        step_ms: 0,
        at_ms: Vec::new(),
        filled: Vec::new(),
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
                    values: Values::Ticks(Vec::new()),
                });
                answer.series.len() - 1
            });
            if let Values::Ticks(values) = &mut answer.series[place].values {
                values.resize(before, perfwatch_model::MISSING);
                values.extend(rows.iter().map(|row| table.columns[at][*row]));
            }
        }
    }
    let count = answer.at_ms.len();
    for series in &mut answer.series {
        if let Values::Ticks(values) = &mut series.values {
            values.resize(count, perfwatch_model::MISSING);
        }
    }
    answer
}

/// Processes summed up so far.
#[derive(Default)]
struct Uses {
    by_process: HashMap<(u32, i64), ProcessUse>,
    covered_ms: i64,
}

impl Uses {
    fn add_all(&mut self, joined: &Joined, (from_ms, to_ms): (i64, i64)) {
        for piece in &joined.reading.pieces {
            if let Ok(Content::Ticks(table)) = &piece.content {
                self.add(table, piece.from_ms, piece.to_ms);
            }
        }
        joined.open.iter().for_each(|table| self.add(table, from_ms, to_ms));
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
                sum.or_insert_with(|| ProcessUse::new(process, at_ms)).add(
                    process,
                    at_ms,
                    time_ms.cast_unsigned(),
                );
            }
        }
    }
}

impl ProcessUse {
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
