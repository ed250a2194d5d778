//! History under load: a simulated fleet sends hours of backfill at maximum rate, committed durably,
//! with concurrent sealing, roll-up and retention. Then size on disk, query latency, and the same
//! series in the competitors.

use crate::competitors;
use crate::fleet::{self, BATCH_ROWS, BenchHub, HOSTS, INTERVAL_MS, SENDERS};
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Catalog, Clock, SystemClock};
use perfwatch_store::{DiskUsage, PostgresStore, Store};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

/// Age of the first tick.
const BACKFILL_MS: i64 = 24 * HOUR_MS;
/// Disk budget, larger than the data.
const BUDGET_BYTES: u64 = 20 << 30;
/// Maximum time to wait for pending roll-ups.
const ROLLUP_TIMEOUT: Duration = Duration::from_secs(300);
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
    if is_selected("sqlite") {
        let scratch = Scratch::new("history")?;
        let sqlite: Arc<dyn Store> = scratch.sqlite(clock.clone())?;
        measure(&runtime, sqlite, &clock, start_ms, seconds)?;
    }
    if is_selected("postgres") {
        let server = perfwatch_testkit::Postgres::start_durable();
        let url = server.database("bench");
        let store =
            async { PostgresStore::connect(&url, "bench".to_owned(), BUDGET_BYTES, clock.clone()).await };
        measure(&runtime, Arc::new(runtime.block_on(store)?), &clock, start_ms, seconds)?;
    }
    let catalog = fleet::catalog();
    for competitor in competitors::COMPETITORS.iter().filter(|competitor| is_selected(competitor.name)) {
        competitors::measure(competitor, &catalog, &*clock, start_ms, seconds)?;
    }
    Ok(())
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    start_ms: i64,
    seconds: u64,
) -> anyhow::Result<()> {
    let catalog = fleet::catalog();
    let hub = BenchHub::start(runtime, store.clone(), clock, BUDGET_BYTES)?;
    println!("perfwatch on {}:", store.backend());
    let report = fleet::feed(&catalog, &**clock, start_ms, seconds, || hub.sender(&**clock));
    report.print("acknowledged when durable");
    // All rows are old enough to be sealed and rolled up before the size on disk is measured.
    wait_for_rollups(runtime, &*store, clock)?;
    let usage = runtime.block_on(store.disk_usage())?;
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
    measure_queries(&hub, &catalog, start_ms, report.covered_ms, clock)?;
    hub.stop();
    Ok(())
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
        let usage = runtime.block_on(store.disk_usage())?;
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
