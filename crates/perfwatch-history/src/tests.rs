//! Tests of the history on both databases with a manual clock. In any order of arrival and with any number
//! of restarts, each row counts once, and roll-ups equal a recount of the rows that were sent.

mod bounds;
mod instant;
mod mirrored;
mod timeline;

use super::*;
use bounds::{
    changing_columns_are_refused_before_they_are_read, export_in_parts_equals_export_at_once,
    grid_in_parts_equals_grid_at_once, largest_host_is_read_in_parts_with_a_coarser_step,
};
use instant::row_at_a_time_is_read_from_the_finest_tier;
use mirrored::mirrored_rows_are_read_once;
use perfwatch_model::{BootId, CollectorError, Column, ManualClock, Shape};
use perfwatch_store::{BlockContent, PostgresStore, SqliteOptions, SqliteStore, Write};
use perfwatch_testkit::Postgres;
use perfwatch_tsdb::query::Points;
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketStats, Projection, SeriesSelector, Tier};
use std::collections::BTreeMap;
use timeline::timeline_has_gaps_reboots_and_changed_facts;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Start of the tests, at midnight UTC.
const T0: i64 = 20_400 * DAY;

struct TestHistory {
    backend: TestBackend,
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

/// Database of a single test.
enum TestBackend {
    Sqlite(tempfile::TempDir),
    Postgres(Postgres),
}

impl TestBackend {
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
    async fn new(backend: TestBackend, config: HistoryConfig) -> Self {
        let clock = Arc::new(ManualClock::starting_at(T0));
        let history = backend.open(&clock, &config).await;
        Self { backend, clock, history, config, host: HostId::generate(), shape: shape(), sent: Vec::new() }
    }

    /// Drops the history without a shutdown and opens it again.
    async fn restart(&mut self) {
        let placeholder = TestBackend::sqlite().open(&self.clock, &self.config).await;
        // The store unlocks its folder when the last reference is dropped.
        drop(std::mem::replace(&mut self.history, placeholder));
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
            let outcome = self.history.append(self.host, rows.to_vec()).await.unwrap();
            let accepted = rows.iter().zip(&outcome.rows).filter(|(_, appended)| appended.is_some());
            self.sent.extend(accepted.map(|(row, _)| row.clone()));
        }
        self.history.seal(false).await.unwrap();
    }

    /// Sends a row every 10 s of a range, rolls up, and advances the clock to its end.
    async fn run(&mut self, boot: u8, from_ms: i64, to_ms: i64) {
        let mut at_ms = from_ms;
        while at_ms < to_ms {
            let end_ms = (at_ms + 30 * MINUTE).min(to_ms);
            let seq = |at: i64| u64::try_from((at - from_ms) / 10_000).unwrap();
            let rows = (at_ms..end_ms).step_by(10_000).map(|at| self.row(boot, seq(at), at)).collect();
            self.advance_to(end_ms);
            self.send(rows).await;
            self.history.roll_up().await.unwrap();
            at_ms = end_ms;
        }
    }

    fn advance_to(&self, at_ms: i64) {
        let by_ms = at_ms - self.clock.wall_ms();
        self.clock.advance(Duration::from_millis(by_ms.try_into().unwrap()));
    }

    /// Compares the statistics of all buckets with a recount of the rows that were sent.
    async fn check(&self, step: &str) {
        self.check_all(step, false).await;
    }

    /// Also compares the last values, which are exact when all windows are rolled up.
    async fn check_all(&self, step: &str, compare_last: bool) {
        let (from_ms, to_ms) = (T0 - 40 * DAY, self.clock.wall_ms() + HOUR);
        let names = vec![SeriesSelector { metric: "*".into(), instance: None }];
        let projection = Arc::new(Projection::of_series(names));
        for (tier, width_ms) in [(Tier::Minute, MINUTE), (Tier::Hour, HOUR)] {
            let joined = self.history.read(self.host, tier, (from_ms, to_ms), &projection).await.unwrap();
            let mut grids: BTreeMap<String, Points> = BTreeMap::new();
            let new_grid = || Points::new(from_ms, to_ms, width_ms);
            for slice in &joined.sealed.slices {
                match slice.content.as_ref().unwrap() {
                    BlockContent::Raw(table) => {
                        for (index, column) in table.shape.columns().iter().enumerate() {
                            let points = grids.entry(column.metric.to_string()).or_insert_with(new_grid);
                            points.add_ticks(table, index, slice.from_ms, slice.to_ms);
                        }
                    }
                    BlockContent::Buckets(buckets) => {
                        for (index, column) in buckets.shape.columns().iter().enumerate() {
                            let points = grids.entry(column.metric.to_string()).or_insert_with(new_grid);
                            points.add_buckets(buckets, index, slice.from_ms, slice.to_ms);
                        }
                    }
                }
            }
            for table in &joined.unsealed {
                for (index, column) in table.shape.columns().iter().enumerate() {
                    grids
                        .entry(column.metric.to_string())
                        .or_insert_with(new_grid)
                        .add_ticks(table, index, from_ms, to_ms);
                }
            }
            for (column, metric) in ["cpu.usage", "memory.used"].iter().enumerate() {
                let mut recount: BTreeMap<i64, BucketStats> = BTreeMap::new();
                let mut rows = self.sent.clone();
                rows.sort_by_key(|row| (row.at_ms, row.boot, row.seq));
                for row in rows {
                    let stats =
                        recount.entry(bucket_start(row.at_ms, width_ms)).or_insert(BucketStats::EMPTY);
                    *stats = stats.merge(BucketStats::from_value(row.values[column]));
                }
                let points = &grids[*metric];
                for (index, stats) in points.stats().iter().enumerate() {
                    let start = points.from_ms + i64::try_from(index).unwrap() * width_ms;
                    let mut expected = recount.get(&start).copied().unwrap_or(BucketStats::EMPTY);
                    expected.last = if compare_last { expected.last } else { stats.last };
                    assert_eq!(
                        *stats,
                        expected,
                        "{step}: {metric} by {width_ms} at {} min",
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

async fn rollups_equal_recount_after_restarts_and_late_data(backend: TestBackend) {
    let mut site = TestHistory::new(backend, HistoryConfig::default()).await;
    site.run(1, T0, T0 + 5 * HOUR + 10 * MINUTE).await;
    site.check("unsealed rows at the end").await;
    site.restart().await;
    site.check("after a restart").await;
    site.run(2, T0 + 5 * HOUR + 20 * MINUTE, T0 + 20 * HOUR).await;
    // A gap of a day.
    site.run(3, T0 + 2 * DAY, T0 + 2 * DAY + 7 * HOUR).await;
    site.check("after a gap of a day").await;
    // Rows that an agent spooled during an outage of the hub: hours of the first day, out of order, twice.
    let late: Vec<_> = (0..900)
        .map(|n| site.row(4, n, T0 + 3 * HOUR + 5_000 + i64::try_from(n).unwrap() * 10_000))
        .collect();
    site.send(late.iter().rev().cloned().collect()).await;
    site.send(late).await;
    assert_eq!(site.sent.iter().filter(|row| row.boot.to_bytes()[0] == 4).count(), 900, "no duplicates");
    site.check("late rows, partly sealed").await;
    site.advance_to(T0 + 3 * DAY + 3 * HOUR);
    site.history.seal(true).await.unwrap();
    let rolled = site.history.roll_up().await.unwrap();
    assert!(rolled > 0);
    site.check_all("late rows, rolled up", true).await;
    assert_eq!(site.history.roll_up().await.unwrap(), 0, "a second run has nothing to do");
    site.restart().await;
    site.check_all("another restart", true).await;
    // Each hour of raw rows is one block, each day of minutes too.
    let raw = site.blocks(Tier::Raw).await;
    let hours: std::collections::BTreeSet<i64> =
        raw.iter().map(|p| bucket_start(p.block.first_ms, HOUR)).collect();
    assert_eq!(raw.len(), hours.len());
    assert_eq!(site.blocks(Tier::Minute).await.len(), 2);
    let rows: usize = raw
        .iter()
        .map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => table.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(rows, site.sent.len(), "each row once");
}

async fn retention_deletes_raw_data_and_late_rows_count_once(backend: TestBackend) {
    let config = HistoryConfig { raw_retention: Duration::from_secs(2 * 3_600), ..HistoryConfig::default() };
    let mut site = TestHistory::new(backend, config).await;
    site.run(1, T0, T0 + 6 * HOUR).await;
    site.history.seal(true).await.unwrap();
    assert!(site.history.apply_retention().await.unwrap() > 0);
    let watermark_ms = site.history.backend.retention_watermarks().await.unwrap().ms[0];
    assert_eq!(watermark_ms, T0 + 4 * HOUR);
    assert!(site.blocks(Tier::Raw).await.iter().all(|slice| slice.block.last_ms >= watermark_ms));
    site.check_all("raw rows are deleted, minutes are not", true).await;
    // Late rows on both sides of the raw watermark.
    let late: Vec<_> =
        (0..2_000).map(|n| site.row(2, n, T0 + HOUR + 5_000 + i64::try_from(n).unwrap() * 10_000)).collect();
    site.send(late.clone()).await;
    site.history.seal(true).await.unwrap();
    site.check("late rows below the watermark").await;
    site.restart().await;
    site.send(late).await;
    site.history.seal(true).await.unwrap();
    site.advance_to(T0 + DAY + 6 * HOUR);
    site.history.roll_up().await.unwrap();
    site.history.apply_retention().await.unwrap();
    site.check("after a restart and roll-up").await;
    site.advance_to(T0 + 100 * DAY);
    site.history.roll_up().await.unwrap();
    site.history.apply_retention().await.unwrap();
    assert!(site.blocks(Tier::Minute).await.is_empty());
    let hours = site.blocks(Tier::Hour).await;
    assert_eq!(hours.len(), 1, "{hours:?}");
}

async fn disk_budget_deletes_oldest_raw_data_first(backend: TestBackend) {
    // The system tables and indices of PostgreSQL take some MB: its budget is four factor as large.
    let factor = if matches!(backend, TestBackend::Postgres(_)) { 4 } else { 1 };
    let config = HistoryConfig { budget_bytes: factor << 24, ..HistoryConfig::default() };
    let mut site = TestHistory::new(backend, config).await;
    let names: Vec<String> = (0..300 * factor).map(|n| format!("noise.m{n}")).collect();
    let columns = names.iter().map(|name| Column {
        metric: name.clone().into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 0,
    });
    site.shape = Arc::new(Shape::new(columns.collect()));
    let mut largest = 0;
    for minute in 0..150 {
        let rows: Vec<_> = (0..60)
            .map(|second| {
                let mut row = Arc::unwrap_or_clone(site.row(
                    1,
                    minute * 60 + second,
                    T0 + i64::try_from(minute * 60 + second).unwrap() * 1_000,
                ));
                row.values = (0..300 * factor).map(|_| i64::from(fastrand::u32(..))).collect();
                row.interval_ms = 1_000;
                Arc::new(row)
            })
            .collect();
        site.advance_to(T0 + (i64::try_from(minute).unwrap() + 1) * MINUTE);
        site.history.append(site.host, rows).await.unwrap();
        site.history.seal(true).await.unwrap();
        let usage = site.history.backend.disk_usage(None).await.unwrap();
        site.history.enforce_disk_budget(usage).await.unwrap();
        site.history.backend.vacuum(0).await.unwrap();
        largest = largest.max(site.history.backend.disk_usage(None).await.unwrap().disk_bytes);
    }
    assert!(largest <= site.config.budget_bytes, "{largest}");
    let watermark_ms = site.history.backend.retention_watermarks().await.unwrap().ms[0];
    assert!(watermark_ms > T0 + 30 * MINUTE, "{}", (watermark_ms - T0) / MINUTE);
    let raw = site.blocks(Tier::Raw).await;
    assert!(raw.iter().any(|slice| slice.block.last_ms > T0 + 149 * MINUTE), "the newest rows are retained");
    // The minutes of all deleted raw rows exist.
    let minutes = site.blocks(Tier::Minute).await;
    let starts: usize = minutes
        .iter()
        .map(|p| match &p.content {
            Ok(BlockContent::Buckets(b)) => b.slice(T0, watermark_ms).len(),
            _ => 0,
        })
        .sum();
    assert_eq!(starts, usize::try_from((watermark_ms - T0) / MINUTE).unwrap());
}

/// Finding C1: a host that floods the store loses its own data, and no other host is refused.
async fn disk_budget_is_shared_by_host(backend: TestBackend) {
    let factor = if matches!(backend, TestBackend::Postgres(_)) { 4 } else { 1 };
    let config = HistoryConfig { budget_bytes: factor << 24, ..HistoryConfig::default() };
    let mut site = TestHistory::new(backend, config).await;
    let (honest, hostile) = (HostId::generate(), HostId::generate());
    let flood_shape = |first: u64| {
        let column = |n: u64| Column {
            metric: format!("flood.m{n}").into(),
            dimension: "".into(),
            instance: "".into(),
            decimals: 0,
        };
        Arc::new(Shape::new((first..first + 30).map(column).collect()))
    };
    let mut refused = 0;
    for minute in 0..60 {
        site.advance_to(T0 + (i64::try_from(minute).unwrap() + 1) * MINUTE);
        let at_ms = |second: u64| T0 + i64::try_from(minute * 60 + second).unwrap() * 1_000;
        let rows: Vec<_> = (0..60).map(|second| site.row(1, minute * 60 + second, at_ms(second))).collect();
        site.host = honest;
        site.history.append(honest, rows.clone()).await.unwrap();
        site.sent.extend(rows);
        let rows = (0..20).map(|second| {
            let mut row = Arc::unwrap_or_clone(site.row(2, minute * 60 + second, at_ms(second)));
            row.shape = flood_shape(minute);
            row.values = (0..30).collect();
            // Random text does not compress.
            let noise = || (0..1_000).map(|_| fastrand::alphanumeric()).collect();
            let error = |_| CollectorError { collector: "x".into(), message: noise() };
            row.errors = (0..15 * factor).map(error).collect();
            Arc::new(row)
        });
        refused += u64::from(site.history.append(hostile, rows.collect()).await.is_err());
        site.history.seal(true).await.unwrap();
        let usage = site.history.backend.disk_usage(None).await.unwrap();
        site.history.update_over_share(usage).await.unwrap();
        site.history.enforce_disk_budget(usage).await.unwrap();
        site.history.backend.vacuum(0).await.unwrap();
        assert_eq!(site.history.ingest_blocked(), None, "minute {minute}");
    }
    let usage = perfwatch_store::shares::list_host_usage(site.history.backend()).await.unwrap();
    assert!(usage[&hostile].total_bytes() < factor << 24, "{usage:?}");
    let watermarks =
        async |host| perfwatch_store::shares::host_watermarks(site.history.backend(), host).await;
    assert_eq!(watermarks(honest).await.unwrap().ms, [0; 3], "no data of the honest host is deleted");
    let of_hostile = watermarks(hostile).await.unwrap();
    assert!(of_hostile.ms[0] > T0, "{of_hostile:?}, refused {refused} times, {usage:?}");
    site.check("the honest host has all its rows").await;
}

/// Finding C1: the hub was ready while its store refused every row.
async fn ingestion_is_blocked_while_the_store_rejects_rows(backend: TestBackend) {
    let factor = if matches!(backend, TestBackend::Postgres(_)) { 4 } else { 1 };
    let config = HistoryConfig { budget_bytes: factor << 24, ..HistoryConfig::default() };
    let site = TestHistory::new(backend, config).await;
    let is_rejected = async |site: &TestHistory, minute: u64| {
        let noise = |_| (0..1_000).map(|_| fastrand::alphanumeric()).collect();
        let error = |n| CollectorError { collector: "x".into(), message: noise(n) };
        let mut row = Arc::unwrap_or_clone(site.row(1, minute, T0 + i64::try_from(minute).unwrap() * MINUTE));
        row.errors = (0..500 * factor).map(error).collect();
        let result = site.history.append(site.host, vec![Arc::new(row)]).await;
        site.history.seal(true).await.unwrap();
        site.history.backend.disk_usage(None).await.unwrap();
        result.is_err()
    };
    let mut minute = 0;
    while !is_rejected(&site, minute).await {
        minute += 1;
        assert!(minute < 200, "the budget is never used up");
    }
    assert!(site.history.ingest_blocked().unwrap().contains("budget"));
    site.advance_to(T0 + i64::try_from(minute + 10).unwrap() * MINUTE);
    for _ in 0..5 {
        let usage = site.history.backend.disk_usage(None).await.unwrap();
        site.history.enforce_disk_budget(usage).await.unwrap();
        site.history.backend.vacuum(0).await.unwrap();
    }
    site.history.backend.disk_usage(None).await.unwrap();
    assert!(!is_rejected(&site, minute + 10).await);
    assert_eq!(site.history.ingest_blocked(), None);
}

async fn corrupt_block_does_not_affect_others(backend: TestBackend) {
    let mut site = TestHistory::new(backend, HistoryConfig::default()).await;
    site.run(1, T0, T0 + HOUR).await;
    site.history.seal(true).await.unwrap();
    let before = site.blocks(Tier::Raw).await.len();
    assert!(before > 1);
    let mut broken = perfwatch_tsdb::block::encode(
        &perfwatch_tsdb::Table::from_snapshots(&[site.row(9, 1, T0 + 1_000)])[0],
        perfwatch_tsdb::CompressionLevel::Fast,
    );
    let last = broken.bytes.len() - 1;
    broken.bytes[last] ^= 1;
    broken.bytes[20] ^= 1;
    let shape = site.shape.clone();
    site.history
        .backend
        .commit(vec![Write::PutBlock(Tier::Raw, site.host, shape, broken)].into())
        .await
        .unwrap();
    site.check_readable().await;
    site.advance_to(T0 + 2 * HOUR);
    site.history.roll_up().await.unwrap();
    assert!(site.history.metrics.corrupt_blocks.get() > 0);
    // The corrupt block is retained for inspection.
    assert_eq!(site.blocks(Tier::Raw).await.len(), 2);
}

impl TestHistory {
    async fn check_readable(&self) {
        let plan = self.history.plan_series(bounds::request(self, "cpu.usage", 1_000)).await.unwrap();
        let result = self.history.read_series(plan).await.unwrap();
        assert_eq!(result.at_ms.len(), 360);
    }
}

/// Runs each test on both databases.
mod per_backend {
    use super::TestBackend;

    macro_rules! run_on {
        ($store:ident: $($name:ident)*) => {
            mod $store {
                $(#[tokio::test]
                async fn $name() {
                    super::super::$name(super::TestBackend::$store()).await;
                })*
            }
        };
    }
    run_on!(sqlite: rollups_equal_recount_after_restarts_and_late_data
        retention_deletes_raw_data_and_late_rows_count_once disk_budget_deletes_oldest_raw_data_first
        corrupt_block_does_not_affect_others changing_columns_are_refused_before_they_are_read
        largest_host_is_read_in_parts_with_a_coarser_step export_in_parts_equals_export_at_once
        grid_in_parts_equals_grid_at_once disk_budget_is_shared_by_host ingestion_is_blocked_while_the_store_rejects_rows
        timeline_has_gaps_reboots_and_changed_facts mirrored_rows_are_read_once
        row_at_a_time_is_read_from_the_finest_tier);
    run_on!(postgres: rollups_equal_recount_after_restarts_and_late_data
        retention_deletes_raw_data_and_late_rows_count_once disk_budget_deletes_oldest_raw_data_first
        corrupt_block_does_not_affect_others changing_columns_are_refused_before_they_are_read
        largest_host_is_read_in_parts_with_a_coarser_step export_in_parts_equals_export_at_once
        grid_in_parts_equals_grid_at_once disk_budget_is_shared_by_host ingestion_is_blocked_while_the_store_rejects_rows
        timeline_has_gaps_reboots_and_changed_facts mirrored_rows_are_read_once
        row_at_a_time_is_read_from_the_finest_tier);
}
