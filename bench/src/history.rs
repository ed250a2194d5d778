//! History under load: a simulated fleet sends hours of backfill at maximum rate to a hub in a process, committed
//! durably, with concurrent sealing, roll-up and retention. Then size on disk, query latency, and the same series in
//! the competitors.

use crate::competitors;
use crate::fleet::{self, BATCH_ROWS, BenchHub, HOSTS, INTERVAL_MS, SENDERS, SendReport};
use crate::hub_process::{FLEET_SETTINGS, HubProcess};
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Catalog, Clock, SystemClock};
use perfwatch_store::{DiskUsage, PostgresStore, SqliteOptions, SqliteStore, Store};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

/// Age of the first tick.
const BACKFILL_MS: i64 = 24 * HOUR_MS;
/// Disk budget, larger than the data.
const BUDGET_BYTES: u64 = 20 << 30;
/// Maximum time to wait for pending roll-ups.
const ROLLUP_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum time in which the hub stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Id of the hub, to which the newest snapshots in the database belong.
const HUB_ID: &str = "bench";
const HOUR_MS: i64 = 3_600_000;

/// Measures both databases and the competitors in sequence, or the named one.
pub(crate) fn run(seconds: u64, backend: Option<&str>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let start_ms = (clock.wall_ms() - BACKFILL_MS) / HOUR_MS * HOUR_MS;
    println!(
        "{HOSTS} simulated hosts, one tick per {INTERVAL_MS} ms of simulated time, \
         {BATCH_ROWS} ticks per request, {SENDERS} senders on the same machine"
    );
    let is_selected = |name: &str| backend.is_none_or(|backend| backend.eq_ignore_ascii_case(name));
    let run = Run { runtime: &runtime, clock: &clock, start_ms, seconds };
    if is_selected("sqlite") {
        let scratch = Scratch::new("history")?;
        let open = || -> anyhow::Result<Arc<dyn Store>> {
            let options = SqliteOptions { folder: scratch.0.join("hub/history"), budget_bytes: BUDGET_BYTES };
            Ok(Arc::new(SqliteStore::open(&options, clock.clone())?))
        };
        run.measure(&scratch, &[], open)?;
    }
    if is_selected("postgres") {
        let (scratch, server) =
            (Scratch::new("history-postgres")?, perfwatch_testkit::Postgres::start_durable());
        let url = server.database("bench");
        let open = || -> anyhow::Result<Arc<dyn Store>> {
            let store = PostgresStore::connect(&url, HUB_ID.to_owned(), BUDGET_BYTES, clock.clone());
            Ok(Arc::new(runtime.block_on(store)?))
        };
        let settings = [("PERFWATCH_HUB_STORE", &*url), ("PERFWATCH_HUB_ID", HUB_ID)];
        run.measure(&scratch, &settings, open)?;
    }
    let catalog = fleet::catalog();
    for competitor in competitors::COMPETITORS.iter().filter(|competitor| is_selected(competitor.name)) {
        competitors::measure(competitor, &catalog, &*clock, start_ms, seconds)?;
    }
    Ok(())
}

/// What all databases have in common.
struct Run<'a> {
    runtime: &'a tokio::runtime::Runtime,
    clock: &'a Arc<dyn Clock>,
    start_ms: i64,
    seconds: u64,
}

impl Run<'_> {
    /// Measures a database, which `open` opens after the hub with these settings has ended.
    fn measure(
        &self,
        scratch: &Scratch,
        settings: &[(&str, &str)],
        open: impl FnOnce() -> anyhow::Result<Arc<dyn Store>>,
    ) -> anyhow::Result<()> {
        let catalog = fleet::catalog();
        println!("perfwatch on {}:", if settings.is_empty() { "sqlite" } else { "postgres" });
        let report = self.ingest(scratch, settings, &catalog)?;
        let store = open()?;
        let hub = BenchHub::start(self.runtime, store.clone(), self.clock, BUDGET_BYTES)?;
        // All rows are old enough to be sealed and rolled up before the size on disk is measured.
        wait_for_rollups(self.runtime, &*store, self.clock)?;
        let usage = self.runtime.block_on(store.disk_usage(None))?;
        let [raw, minutes, hours] = usage.tier_bytes;
        let per_sample = |bytes: u64| bytes as f64 / report.samples as f64;
        println!(
            "  bytes per sample: raw {:.2} with processes, minutes {:.3}, hours {:.4}; \
             file {:.2} ({} MB), {:.0} % of it reusable",
            per_sample(raw),
            per_sample(minutes),
            per_sample(hours),
            per_sample(usage.disk_bytes),
            usage.disk_bytes >> 20,
            100.0 - 100.0 * usage.used_bytes as f64 / usage.disk_bytes.max(1) as f64
        );
        measure_queries(&hub, &catalog, self.start_ms, report.covered_ms, self.clock)?;
        hub.stop();
        Ok(())
    }

    /// Sends the fleet to a hub in a process, whose CPU time and memory do not contain those of the senders.
    fn ingest(
        &self,
        scratch: &Scratch,
        settings: &[(&str, &str)],
        catalog: &Catalog,
    ) -> anyhow::Result<SendReport> {
        let mut hub = HubProcess::start(&scratch.0, &[FLEET_SETTINGS, settings].concat())?;
        let bearer = hub.create_user("root-admin", "admin")?;
        let cpu_before = hub.cpu_seconds()?;
        let connect = || fleet::sender(&hub.url, bearer.clone(), &**self.clock);
        let report = fleet::feed(catalog, &**self.clock, self.start_ms, self.seconds, connect);
        report.print("acknowledged when durable");
        println!(
            "  {:.0} µs of CPU time per snapshot, {:.0} MB resident",
            (hub.cpu_seconds()? - cpu_before) * 1e6 / report.snapshots as f64,
            hub.resident_mb()?
        );
        hub.stop(STOP_TIMEOUT, &**self.clock)?.context("the hub did not stop")?;
        Ok(report)
    }
}

/// Waits until no window is dirty and the sizes are stable.
fn wait_for_rollups(
    runtime: &tokio::runtime::Runtime,
    store: &dyn Store,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let started = clock.monotonic();
    let mut previous = DiskUsage::default();
    loop {
        std::thread::sleep(shorten(Duration::from_secs(5)));
        let usage = runtime.block_on(store.disk_usage(None))?;
        let dirty_windows = runtime.block_on(store.dirty_windows(
            perfwatch_tsdb::Tier::Raw,
            clock.wall_ms() - 5_000_000,
            1,
        ))?;
        let is_stable = dirty_windows.is_empty()
            && usage.tier_bytes == previous.tier_bytes
            && usage.disk_bytes == previous.disk_bytes;
        let elapsed = clock.monotonic().saturating_sub(started);
        if is_stable || elapsed > shorten(ROLLUP_TIMEOUT) {
            println!("  roll-up finished after {:.0} s", elapsed.as_secs_f64());
            return Ok(());
        }
        previous = usage;
    }
}

/// Measures the queries of the dashboard, each on different hosts.
fn measure_queries(
    hub: &BenchHub<'_>,
    catalog: &Catalog,
    start_ms: i64,
    covered_ms: i64,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let http = ureq::Agent::new_with_defaults();
    let end_ms = start_ms + covered_ms;
    let queries = [
        ("1 metric, 1 hour", format!("series?metric=cpu.usage&from={}&to={end_ms}", end_ms - HOUR_MS)),
        ("1 metric, full range", format!("series?metric=cpu.usage&from={start_ms}&to={end_ms}&points=1000")),
        (
            "host page, 1 hour",
            format!(
                "series?metric=cpu.*,memory.*,network.*,disk.*&from={}&to={end_ms}&points=400",
                end_ms - HOUR_MS
            ),
        ),
        ("full snapshot at one second", format!("snapshot?at={}", start_ms + covered_ms / 2)),
        ("processes, 1 hour", format!("processes?from={}&to={end_ms}", end_ms - HOUR_MS)),
    ];
    for (label, query) in queries {
        let mut times = Vec::new();
        for number in 0..100 {
            let host = SimHost::new(catalog, 1, number % HOSTS);
            let started = clock.monotonic();
            let mut response = http
                .get(format!("{}/api/v1/hosts/{}/{query}", hub.url, host.id))
                .header("Authorization", hub.bearer())
                .call()
                .with_context(|| format!("{label}: {query}"))?;
            let mut body = Vec::new();
            response.body_mut().as_reader().read_to_end(&mut body)?;
            times.push(clock.monotonic().saturating_sub(started).as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        println!("  {label}: p50 {:.1} ms, p95 {:.1} ms", times[50], times[95]);
    }
    Ok(())
}
