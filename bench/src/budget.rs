//! A disk budget that is far too small for its fleet: sizes on disk looked at all the time, and
//! what was kept of each tier at the end.

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

const BUDGET: u64 = 64 << 20;
const MB: f64 = 1_048_576.0;
const PAST_MS: i64 = 24 * 3_600_000;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Both databases, one after the other; or one by its name.
pub(crate) fn run(seconds: u64, who: Option<&str>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "{HOSTS} made-up hosts, a tick each {INTERVAL_MS} ms of their time, on a budget of {} MB",
        BUDGET >> 20
    );
    let wanted = |name: &str| who.is_none_or(|who| who.eq_ignore_ascii_case(name));
    if wanted("sqlite") {
        let scratch = Scratch::new("budget")?;
        let options = SqliteOptions { folder: scratch.0.join("history"), budget_bytes: BUDGET };
        let sqlite: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock.clone())?);
        measure(&runtime, sqlite, &clock, seconds, Some(options.folder))?;
    }
    if wanted("postgres") {
        let server = perfwatch_testkit::Postgres::start_durable();
        let url = server.database("bench");
        let store = async { PostgresStore::connect(&url, "bench".to_owned(), BUDGET, clock.clone()).await };
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
    let hub = BenchHub::start(runtime, store.clone(), clock, BUDGET)?;
    let start_ms = clock.wall_ms() - PAST_MS;
    let size = || match &folder {
        // The files with their log, as `du` sees them.
        Some(folder) => bytes_below(folder),
        None => runtime.block_on(store.disk_usage()).map_or(0, |usage| usage.disk_bytes),
    };
    let done = AtomicBool::new(false);
    let (sent, (looks, most)) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut looks, mut most) = (0_u64, 0_u64);
            while !done.load(Ordering::Relaxed) {
                most = most.max(size());
                looks += 1;
                std::thread::sleep(SAMPLE_INTERVAL);
            }
            (looks, most)
        });
        let sent = fleet::feed(&fleet::catalog(), &**clock, start_ms, seconds, || hub.sender(&**clock));
        done.store(true, Ordering::Relaxed);
        (sent, watch.join().unwrap_or_default())
    });
    println!("perfwatch on {}:", store.backend());
    sent.print("acked when durable");
    println!(
        "  at most {:.1} MB in {looks} looks, {:.1} MB at the end",
        most as f64 / MB,
        size() as f64 / MB
    );
    let newest_ms = start_ms + sent.covered_ms;
    for tier in Tier::ALL {
        let oldest = runtime.block_on(store.oldest_blocks(tier, i64::MAX, 1))?;
        let reach = oldest.first().map_or(0, |block| newest_ms - block.first_ms);
        println!("  {} reach back {:.1} of {:.1} min", tier.name(), minutes(reach), minutes(sent.covered_ms));
    }
    hub.stop();
    Ok(())
}

fn minutes(ms: i64) -> f64 {
    ms as f64 / 60_000.0
}
