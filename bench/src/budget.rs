//! Disk budget that is too small for its fleet: maximum size on disk, and the retained time range of
//! each tier.

use crate::competitors::bytes_below;
use crate::fleet::{self, BenchHub, HOSTS, INTERVAL_MS};
use crate::store::Scratch;
use perfwatch_model::{Clock, SystemClock};
use perfwatch_store::{PostgresStore, SqliteOptions, SqliteStore, Store};
use perfwatch_tsdb::Tier;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BUDGET_BYTES: u64 = 64 << 20;
const MB: f64 = 1_048_576.0;
const BACKFILL_MS: i64 = 24 * 3_600_000;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Measures both databases, or the named backend.
pub(crate) fn run(seconds: u64, backend: Option<&str>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "{HOSTS} simulated hosts, one tick per {INTERVAL_MS} ms of simulated time, budget {} MB",
        BUDGET_BYTES >> 20
    );
    let is_selected = |name: &str| backend.is_none_or(|backend| backend.eq_ignore_ascii_case(name));
    if is_selected("sqlite") {
        let scratch = Scratch::new("budget")?;
        let options = SqliteOptions { folder: scratch.0.join("history"), budget_bytes: BUDGET_BYTES };
        let sqlite: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock.clone())?);
        measure(&runtime, sqlite, &clock, seconds, Some(options.folder))?;
    }
    if is_selected("postgres") {
        let server = perfwatch_testkit::Postgres::start_durable();
        let url = server.database("bench");
        let store =
            async { PostgresStore::connect(&url, "bench".to_owned(), BUDGET_BYTES, clock.clone()).await };
        measure(&runtime, Arc::new(runtime.block_on(store)?), &clock, seconds, None)?;
    }
    Ok(())
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    seconds: u64,
    folder: Option<PathBuf>,
) -> anyhow::Result<()> {
    let hub = BenchHub::start(runtime, store.clone(), clock, BUDGET_BYTES)?;
    let start_ms = clock.wall_ms() - BACKFILL_MS;
    let size = || match &folder {
        // Database and write-ahead log, as `du` counts them.
        Some(folder) => bytes_below(folder),
        None => runtime.block_on(store.disk_usage(None)).map_or(0, |usage| usage.disk_bytes),
    };
    let done = AtomicBool::new(false);
    let (report, (samples, max_bytes)) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut samples, mut max_bytes) = (0_u64, 0_u64);
            while !done.load(Ordering::Relaxed) {
                max_bytes = max_bytes.max(size());
                samples += 1;
                std::thread::sleep(SAMPLE_INTERVAL);
            }
            (samples, max_bytes)
        });
        let report = fleet::feed(&fleet::catalog(), &**clock, start_ms, seconds, || hub.sender(&**clock));
        done.store(true, Ordering::Relaxed);
        (report, sampler.join().unwrap_or_default())
    });
    println!("perfwatch on {}:", store.backend());
    report.print("acknowledged when durable");
    println!(
        "  maximum {:.1} MB of {samples} samples, {:.1} MB at the end",
        max_bytes as f64 / MB,
        size() as f64 / MB
    );
    let newest_ms = start_ms + report.covered_ms;
    for tier in Tier::ALL {
        let oldest = runtime.block_on(store.oldest_blocks(tier, i64::MAX, 1))?;
        let range_ms = oldest.first().map_or(0, |block| newest_ms - block.first_ms);
        println!(
            "  {}: {:.1} of {:.1} min retained",
            tier.name(),
            minutes(range_ms),
            minutes(report.covered_ms)
        );
    }
    hub.stop();
    Ok(())
}

fn minutes(ms: i64) -> f64 {
    ms as f64 / 60_000.0
}
