//! History under load: a made-up fleet sends hours of its past as fast as the hub takes them,
//! durable, with sealing, roll-up and retention at work beside; then what it takes on disk, and
//! how long questions take. Then peers with the same series.

use crate::competitors;
use crate::fleet::{self, BATCH, BenchHub, HOSTS, INTERVAL_MS, SENDERS};
use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Catalog, Clock, SystemClock};
use perfwatch_store::{DiskUsage, PostgresStore, Store};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

/// How long ago the first tick is.
const PAST_MS: i64 = 24 * HOUR_MS;
/// More than it takes.
const BUDGET: u64 = 20 << 30;
const HOUR_MS: i64 = 3_600_000;

/// Both databases, then the peers, one after the other; or one of them by its name.
pub(crate) fn run(seconds: u64, who: Option<&str>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let start_ms = (clock.wall_ms() - PAST_MS) / HOUR_MS * HOUR_MS;
    println!(
        "{HOSTS} made-up hosts, a tick each {INTERVAL_MS} ms of their time, {BATCH} ticks a request, {SENDERS} senders that share this machine with who takes it"
    );
    let wanted = |name: &str| who.is_none_or(|who| who.eq_ignore_ascii_case(name));
    if wanted("sqlite") {
        let scratch = Scratch::new("history")?;
        let sqlite: Arc<dyn Store> = scratch.sqlite(clock.clone())?;
        measure(&runtime, sqlite, &clock, start_ms, seconds)?;
    }
    if wanted("postgres") {
        let server = perfwatch_testkit::Postgres::start_durable();
        let url = server.database("bench");
        let store = async { PostgresStore::connect(&url, "bench".to_owned(), BUDGET, clock.clone()).await };
        measure(&runtime, Arc::new(runtime.block_on(store)?), &clock, start_ms, seconds)?;
    }
    let catalog = fleet::catalog();
    for peer in competitors::COMPETITORS.iter().filter(|peer| wanted(peer.name)) {
        competitors::measure(peer, &catalog, &*clock, start_ms, seconds)?;
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
    let hub = BenchHub::start(runtime, store.clone(), clock, BUDGET)?;
    println!("perfwatch on {}:", store.backend());
    let sent = fleet::feed(&catalog, &**clock, start_ms, seconds, || hub.sender(&**clock));
    sent.print("acked when durable");
    // What waits is sealed when it is old enough: here it is, being of the past. The rest of the
    // work is let finish before the disk is looked at.
    wait_for_rollups(runtime, &*store, clock)?;
    let usage = runtime.block_on(store.disk_usage())?;
    let [raw, minutes, hours] = usage.tier_bytes;
    let per = |bytes: u64| bytes as f64 / sent.samples as f64;
    println!(
        "  bytes a sample: ticks {:.2} with processes, minutes {:.3}, hours {:.4}; the file as it is {:.2} ({} MB), {:.0} % of it free again",
        per(raw),
        per(minutes),
        per(hours),
        per(usage.disk_bytes),
        usage.disk_bytes >> 20,
        100.0 - 100.0 * usage.used_bytes as f64 / usage.disk_bytes.max(1) as f64
    );
    measure_queries(&hub, &catalog, start_ms, sent.covered_ms, clock)?;
    hub.stop();
    Ok(())
}

/// Waits until roll-up has nothing to do and the sizes stand still.
fn wait_for_rollups(
    runtime: &tokio::runtime::Runtime,
    store: &dyn Store,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let began = clock.monotonic();
    let mut before = DiskUsage::default();
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let usage = runtime.block_on(store.disk_usage())?;
        let waiting = runtime.block_on(store.dirty_windows(
            perfwatch_tsdb::Tier::Raw,
            clock.wall_ms() - 5_000_000,
            1,
        ))?;
        let still = waiting.is_empty()
            && usage.tier_bytes == before.tier_bytes
            && usage.disk_bytes == before.disk_bytes;
        let took = clock.monotonic().saturating_sub(began);
        if still || took > Duration::from_secs(300) {
            println!("  roll-up was done {:.0} s later", took.as_secs_f64());
            return Ok(());
        }
        before = usage;
    }
}

/// The questions a dashboard asks, each some times over different hosts.
fn measure_queries(
    hub: &BenchHub<'_>,
    catalog: &Catalog,
    start_ms: i64,
    covered_ms: i64,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let http = ureq::Agent::new_with_defaults();
    let end_ms = start_ms + covered_ms;
    let questions = [
        ("1 metric, 1 hour", format!("series?metric=cpu.usage&from={}&to={end_ms}", end_ms - HOUR_MS)),
        ("1 metric, all of it", format!("series?metric=cpu.usage&from={start_ms}&to={end_ms}&points=1000")),
        (
            "the host page, 1 hour",
            format!(
                "series?metric=cpu.*,memory.*,network.*,disk.*&from={}&to={end_ms}&points=400",
                end_ms - HOUR_MS
            ),
        ),
        ("everything at one second", format!("snapshot?at={}", start_ms + covered_ms / 2)),
        ("processes, 1 hour", format!("processes?from={}&to={end_ms}", end_ms - HOUR_MS)),
    ];
    for (what, question) in questions {
        let mut times = Vec::new();
        for number in 0..100 {
            let host = SimHost::new(catalog, 1, number % HOSTS);
            let began = clock.monotonic();
            let mut answer = http
                .get(format!("{}/api/v1/hosts/{}/{question}", hub.url, host.id))
                .header("Authorization", hub.bearer())
                .call()
                .with_context(|| format!("{what}: {question}"))?;
            let mut sink = Vec::new();
            answer.body_mut().as_reader().read_to_end(&mut sink)?;
            times.push(clock.monotonic().saturating_sub(began).as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        println!("  {what}: p50 {:.1} ms, p95 {:.1} ms", times[50], times[95]);
    }
    Ok(())
}
