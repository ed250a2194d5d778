//! History under a clock that tests move: whatever order rows come in, however often the hub
//! starts anew, each row counts once, and roll-ups equal a recount of what was sent.

use super::*;
use perfwatch_model::{BootId, Column, ManualClock, Shape};
use perfwatch_store::{BlockContent, PostgresStore, SqliteOptions, SqliteStore, Write};
use perfwatch_testkit::Postgres;
use perfwatch_tsdb::query::Points;
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketStats, Projection, SeriesSelector, Tier};
use std::collections::BTreeMap;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Midnight.
const T0: i64 = 20_400 * DAY;

struct TestHistory {
    backend: Place,
    clock: Arc<ManualClock>,
    history: Arc<History>,
    config: HistoryConfig,
    host: HostId,
    shape: Arc<Shape>,
    sent: Vec<Arc<Snapshot>>,
}

fn shape() -> Arc<Shape> {
    let column = |metric: &'static str, decimals| Column {
        metric: metric.into(),
        dimension: "".into(),
        instance: "".into(),
        decimals,
    };
    Arc::new(Shape::new(vec![column("cpu.usage", 2), column("memory.used", 0)]))
}

/// Where the history of one test is.
enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(Postgres),
}

impl Place {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        let server = Postgres::start();
        server.database("history");
        Self::Postgres(server)
    }

    async fn open(&self, clock: &Arc<ManualClock>, config: &HistoryConfig) -> Arc<History> {
        let clock: Arc<dyn Clock> = clock.clone();
        let budget_bytes = config.budget_bytes;
        let store: Arc<dyn Store> = match self {
            Self::Sqlite(folder) => {
                let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes };
                Arc::new(SqliteStore::open(&options, clock.clone()).unwrap())
            }
            Self::Postgres(server) => {
                let url = server.url("history");
                Arc::new(
                    PostgresStore::connect(&url, "hub".to_owned(), budget_bytes, clock.clone())
                        .await
                        .unwrap(),
                )
            }
        };
        History::open(store, clock, config.clone(), HistoryMetrics::default()).await.unwrap()
    }
}

impl TestHistory {
    async fn new(place: Place, config: HistoryConfig) -> Self {
        let clock = Arc::new(ManualClock::starting_at(T0));
        let history = place.open(&clock, &config).await;
        Self {
            backend: place,
            clock,
            history,
            config,
            host: HostId::generate(),
            shape: shape(),
            sent: Vec::new(),
        }
    }

    /// The hub dies and comes back.
    async fn restart(&mut self) {
        let none = Place::sqlite().open(&self.clock, &self.config).await;
        // The store lets go of its folder when the last one who knows it is gone.
        drop(std::mem::replace(&mut self.history, none));
        self.history = self.backend.open(&self.clock, &self.config).await;
    }

    fn row(&self, boot: u8, seq: u64, at_ms: i64) -> Arc<Snapshot> {
        let noise = i64::try_from((seq * 2_654_435_761) % 9_973).unwrap();
        Arc::new(Snapshot {
            boot: BootId::from_bytes(&[boot; 16]).unwrap(),
            seq,
            at_ms,
            interval_ms: 10_000,
            shape: self.shape.clone(),
            values: vec![if seq % 50 == 49 { perfwatch_model::MISSING } else { noise }, noise * 4_096],
            processes: vec![],
            facts: None,
            errors: vec![],
        })
    }

    async fn send(&mut self, rows: Vec<Arc<Snapshot>>) {
        for rows in rows.chunks(100) {
            let taken = self.history.append(self.host, rows.to_vec()).await.unwrap();
            let new = rows.iter().zip(&taken.is_new).filter(|(_, new)| **new).map(|(row, _)| row.clone());
            self.sent.extend(new);
        }
        self.history.seal(false).await.unwrap();
    }

    /// Ticks every 10 s from one time to another, the clock with them.
    async fn run(&mut self, boot: u8, from_ms: i64, to_ms: i64) {
        let mut at_ms = from_ms;
        while at_ms < to_ms {
            let end_ms = (at_ms + 30 * MINUTE).min(to_ms);
            let seq = |at: i64| u64::try_from((at - from_ms) / 10_000).unwrap();
            let rows = (at_ms..end_ms).step_by(10_000).map(|at| self.row(boot, seq(at), at)).collect();
            self.at(end_ms);
            self.send(rows).await;
            self.history.roll_up().await.unwrap();
            at_ms = end_ms;
        }
    }

    fn at(&self, at_ms: i64) {
        let by_ms = at_ms - self.clock.wall_ms();
        self.clock.advance(Duration::from_millis(by_ms.try_into().unwrap()));
    }

    /// Every figure of every bucket against a recount of what was sent.
    async fn check(&self, what: &str) {
        self.check_all(what, false).await;
    }

    /// The last values too, which are known where all is rolled up.
    async fn check_all(&self, what: &str, last: bool) {
        let (from_ms, to_ms) = (T0 - 40 * DAY, self.clock.wall_ms() + HOUR);
        let names = vec![SeriesSelector { metric: "*".into(), instance: None }];
        let wanted = Arc::new(Projection::of_series(names));
        for (tier, width_ms) in [(Tier::Minute, MINUTE), (Tier::Hour, HOUR)] {
            let joined = self.history.read(self.host, tier, (from_ms, to_ms), &wanted).await.unwrap();
            let mut grid: BTreeMap<String, Points> = BTreeMap::new();
            let new = || Points::new(from_ms, to_ms, width_ms);
            for piece in &joined.sealed.slices {
                match piece.content.as_ref().unwrap() {
                    BlockContent::Raw(table) => {
                        for (at, column) in table.shape.columns().iter().enumerate() {
                            let points = grid.entry(column.metric.to_string()).or_insert_with(new);
                            points.add_ticks(table, at, piece.from_ms, piece.to_ms);
                        }
                    }
                    BlockContent::Buckets(buckets) => {
                        for (at, column) in buckets.shape.columns().iter().enumerate() {
                            let points = grid.entry(column.metric.to_string()).or_insert_with(new);
                            points.add_buckets(buckets, at, piece.from_ms, piece.to_ms);
                        }
                    }
                }
            }
            for table in &joined.unsealed {
                for (at, column) in table.shape.columns().iter().enumerate() {
                    grid.entry(column.metric.to_string())
                        .or_insert_with(new)
                        .add_ticks(table, at, from_ms, to_ms);
                }
            }
            for (column, metric) in ["cpu.usage", "memory.used"].iter().enumerate() {
                let mut recount: BTreeMap<i64, BucketStats> = BTreeMap::new();
                let mut rows = self.sent.clone();
                rows.sort_by_key(|row| (row.at_ms, row.boot, row.seq));
                for row in rows {
                    let figures =
                        recount.entry(bucket_start(row.at_ms, width_ms)).or_insert(BucketStats::EMPTY);
                    *figures = figures.merge(BucketStats::from_value(row.values[column]));
                }
                let points = &grid[*metric];
                for (place, figures) in points.stats().iter().enumerate() {
                    let start = points.from_ms + i64::try_from(place).unwrap() * width_ms;
                    let mut want = recount.get(&start).copied().unwrap_or(BucketStats::EMPTY);
                    want.last = if last { want.last } else { figures.last };
                    assert_eq!(
                        *figures,
                        want,
                        "{what}: {metric} by {width_ms} at {} min",
                        (start - T0) / MINUTE
                    );
                }
            }
        }
    }

    async fn blocks(&self, tier: Tier) -> Vec<perfwatch_store::BlockSlice> {
        self.history.backend.read_blocks(tier, self.host, T0 - 40 * DAY, T0 + 400 * DAY).await.unwrap()
    }
}

async fn rollups_equal_recount_after_restarts_and_late_data(place: Place) {
    let mut bench = TestHistory::new(place, HistoryConfig::default()).await;
    bench.run(1, T0, T0 + 5 * HOUR + 10 * MINUTE).await;
    bench.check("the tail is not sealed yet").await;
    bench.restart().await;
    bench.check("after a restart").await;
    bench.run(2, T0 + 5 * HOUR + 20 * MINUTE, T0 + 20 * HOUR).await;
    // A day off, then again.
    bench.run(3, T0 + 2 * DAY, T0 + 2 * DAY + 7 * HOUR).await;
    bench.check("after a day off").await;
    // What an agent kept while the hub was away: hours of the first day, out of order, twice.
    let late: Vec<_> = (0..900)
        .map(|n| bench.row(4, n, T0 + 3 * HOUR + 5_000 + i64::try_from(n).unwrap() * 10_000))
        .collect();
    bench.send(late.iter().rev().cloned().collect()).await;
    bench.send(late).await;
    assert_eq!(bench.sent.iter().filter(|row| row.boot.to_bytes()[0] == 4).count(), 900, "each once");
    bench.check("late rows, sealed in part").await;
    bench.at(T0 + 3 * DAY + 3 * HOUR);
    bench.history.seal(true).await.unwrap();
    let rolled = bench.history.roll_up().await.unwrap();
    assert!(rolled > 0);
    bench.check_all("late rows, rolled up", true).await;
    assert_eq!(bench.history.roll_up().await.unwrap(), 0, "a second run has nothing to do");
    bench.restart().await;
    bench.check_all("another restart", true).await;
    // Whole hours are one block, whole days of minutes too.
    let raw = bench.blocks(Tier::Raw).await;
    let hours: std::collections::BTreeSet<i64> =
        raw.iter().map(|p| bucket_start(p.block.first_ms, HOUR)).collect();
    assert_eq!(raw.len(), hours.len());
    assert_eq!(bench.blocks(Tier::Minute).await.len(), 2);
    let rows: usize = raw
        .iter()
        .map(|piece| match &piece.content {
            Ok(BlockContent::Raw(table)) => table.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(rows, bench.sent.len(), "every row once");
}

async fn retention_deletes_raw_data_and_late_rows_count_once(place: Place) {
    let config = HistoryConfig { raw_retention: Duration::from_secs(2 * 3_600), ..HistoryConfig::default() };
    let mut bench = TestHistory::new(place, config).await;
    bench.run(1, T0, T0 + 6 * HOUR).await;
    bench.history.seal(true).await.unwrap();
    assert!(bench.history.apply_retention().await.unwrap() > 0);
    let floor_ms = bench.history.backend.retention_watermarks().await.unwrap().ms[0];
    assert_eq!(floor_ms, T0 + 4 * HOUR);
    assert!(bench.blocks(Tier::Raw).await.iter().all(|piece| piece.block.last_ms >= floor_ms));
    bench.check_all("ticks are gone, minutes are not", true).await;
    // Late rows of a time whose ticks are gone, some of one that still has them.
    let late: Vec<_> =
        (0..2_000).map(|n| bench.row(2, n, T0 + HOUR + 5_000 + i64::try_from(n).unwrap() * 10_000)).collect();
    bench.send(late.clone()).await;
    bench.history.seal(true).await.unwrap();
    bench.check("late rows below the floor").await;
    bench.restart().await;
    bench.send(late).await;
    bench.history.seal(true).await.unwrap();
    bench.at(T0 + DAY + 6 * HOUR);
    bench.history.roll_up().await.unwrap();
    bench.history.apply_retention().await.unwrap();
    bench.check("once more, after a restart and roll-up").await;
    bench.at(T0 + 100 * DAY);
    bench.history.roll_up().await.unwrap();
    bench.history.apply_retention().await.unwrap();
    assert!(bench.blocks(Tier::Minute).await.is_empty());
    let hours = bench.blocks(Tier::Hour).await;
    assert_eq!(hours.len(), 1, "{hours:?}");
}

async fn disk_budget_deletes_oldest_raw_data_first(place: Place) {
    // PostgreSQL's own tables and indices take some MB: there the budget is four times as much.
    let times = if matches!(place, Place::Postgres(_)) { 4 } else { 1 };
    let config = HistoryConfig { budget_bytes: times << 24, ..HistoryConfig::default() };
    let mut bench = TestHistory::new(place, config).await;
    let names: Vec<String> = (0..300 * times).map(|n| format!("noise.m{n}")).collect();
    let columns = names.iter().map(|name| Column {
        metric: name.clone().into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 0,
    });
    bench.shape = Arc::new(Shape::new(columns.collect()));
    let mut largest = 0;
    for minute in 0..150 {
        let rows: Vec<_> = (0..60)
            .map(|second| {
                let mut row = Arc::unwrap_or_clone(bench.row(
                    1,
                    minute * 60 + second,
                    T0 + i64::try_from(minute * 60 + second).unwrap() * 1_000,
                ));
                row.values = (0..300 * times).map(|_| i64::from(fastrand::u32(..))).collect();
                row.interval_ms = 1_000;
                Arc::new(row)
            })
            .collect();
        bench.at(T0 + (i64::try_from(minute).unwrap() + 1) * MINUTE);
        bench.history.append(bench.host, rows).await.unwrap();
        bench.history.seal(true).await.unwrap();
        let usage = bench.history.backend.disk_usage().await.unwrap();
        bench.history.enforce_disk_budget(usage).await.unwrap();
        bench.history.backend.vacuum(0).await.unwrap();
        largest = largest.max(bench.history.backend.disk_usage().await.unwrap().disk_bytes);
    }
    assert!(largest <= bench.config.budget_bytes, "{largest}");
    let floor_ms = bench.history.backend.retention_watermarks().await.unwrap().ms[0];
    assert!(floor_ms > T0 + 30 * MINUTE, "{}", (floor_ms - T0) / MINUTE);
    let raw = bench.blocks(Tier::Raw).await;
    assert!(raw.iter().any(|piece| piece.block.last_ms > T0 + 149 * MINUTE), "the newest is there");
    // The minutes of all that went are there.
    let minutes = bench.blocks(Tier::Minute).await;
    let starts: usize = minutes
        .iter()
        .map(|p| match &p.content {
            Ok(BlockContent::Buckets(b)) => b.slice(T0, floor_ms).len(),
            _ => 0,
        })
        .sum();
    assert_eq!(starts, usize::try_from((floor_ms - T0) / MINUTE).unwrap());
}

async fn corrupt_block_does_not_affect_others(place: Place) {
    let mut bench = TestHistory::new(place, HistoryConfig::default()).await;
    bench.run(1, T0, T0 + HOUR).await;
    bench.history.seal(true).await.unwrap();
    let before = bench.blocks(Tier::Raw).await.len();
    assert!(before > 1);
    let mut broken = perfwatch_tsdb::block::encode(
        &perfwatch_tsdb::Table::from_snapshots(&[bench.row(9, 1, T0 + 1_000)])[0],
        perfwatch_tsdb::CompressionLevel::Fast,
    );
    let last = broken.bytes.len() - 1;
    broken.bytes[last] ^= 1;
    broken.bytes[20] ^= 1;
    let shape = bench.shape.clone();
    bench.history.backend.commit(vec![Write::PutBlock(Tier::Raw, bench.host, shape, broken)]).await.unwrap();
    bench.check_readable().await;
    bench.at(T0 + 2 * HOUR);
    bench.history.roll_up().await.unwrap();
    assert!(bench.history.counts.corrupt_blocks.get() > 0);
    // It is not thrown away: somebody may want to look at it.
    assert_eq!(bench.blocks(Tier::Raw).await.len(), 2);
}

impl TestHistory {
    async fn check_readable(&self) {
        let names = vec![SeriesSelector { metric: "cpu.usage".into(), instance: None }];
        let answer = self.history.series(self.host, names, (T0, T0 + HOUR), 1_000, 0).await.unwrap();
        assert_eq!(answer.at_ms.len(), 360);
    }
}

/// Each of the above over both databases.
mod per_backend {
    use super::Place;

    macro_rules! over {
        ($store:ident: $($name:ident)*) => {
            mod $store {
                $(#[tokio::test]
                async fn $name() {
                    super::super::$name(super::Place::$store()).await;
                })*
            }
        };
    }
    over!(sqlite: rollups_equal_recount_after_restarts_and_late_data
        retention_deletes_raw_data_and_late_rows_count_once disk_budget_deletes_oldest_raw_data_first
        corrupt_block_does_not_affect_others);
    over!(postgres: rollups_equal_recount_after_restarts_and_late_data
        retention_deletes_raw_data_and_late_rows_count_once disk_budget_deletes_oldest_raw_data_first
        corrupt_block_does_not_affect_others);
}
