//! History under load: a made-up fleet sends hours of its past as fast as the hub takes them,
//! durable, with sealing, roll-up and retention at work beside; then what it takes on disk, and
//! how long questions take.

use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_hub::{Deps, Hub, HubConfig};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Catalog, Clock, SystemClock};
use perfwatch_store::{PostgresStore, Store, Usage};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HOSTS: usize = 200;
const SENDERS: usize = 32;
/// Ticks in one request: as an agent sends that fills in the past.
const BATCH: usize = 25;
const INTERVAL_MS: i64 = 2_000;
/// How long ago the first tick is.
const PAST_MS: i64 = 24 * 3_600_000;

/// Both databases, one after the other.
pub(crate) fn run(seconds: u64) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scratch = Scratch::new("history")?;
    println!(
        "{HOSTS} made-up hosts, a tick each {INTERVAL_MS} ms of their time, {BATCH} ticks a request; senders and hub share this machine"
    );
    let sqlite: Arc<dyn Store> = scratch.sqlite(clock.clone())?;
    measure(&runtime, sqlite, &clock, seconds)?;
    let server = perfwatch_testkit::Postgres::start_durable();
    let url = server.database("bench");
    let store = async { PostgresStore::connect(&url, "bench".to_owned(), 20 << 30, clock.clone()).await };
    measure(&runtime, Arc::new(runtime.block_on(store)?), &clock, seconds)
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    seconds: u64,
) -> anyhow::Result<()> {
    let catalog = Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS));
    let config = HubConfig { listen: ([127, 0, 0, 1], 0).into(), ..HubConfig::default() };
    let deps = Deps { store: store.clone(), clock: clock.clone(), catalog: catalog.clone() };
    let hub = runtime.block_on(Hub::start(config, deps))?;
    let url = format!("http://{}", hub.address());
    let (sent, samples) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = clock.monotonic() + Duration::from_secs(seconds);
    let start_ms = (clock.wall_ms() - PAST_MS) / 3_600_000 * 3_600_000;
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (catalog, url, clock, sent, samples) = (&catalog, &url, clock, &sent, &samples);
            scope.spawn(move || {
                if let Err(error) = send(catalog, url, sender, start_ms, &**clock, until, sent, samples) {
                    println!("a sender stopped: {error:#}");
                }
            });
        }
    });
    let (sent, samples) = (sent.into_inner(), samples.into_inner());
    println!("{}:", store.kind());
    println!(
        "  {:.0} snapshots/s = {:.2} M samples/s, acked when durable, over {seconds} s",
        sent as f64 / seconds as f64,
        samples as f64 / seconds as f64 / 1e6
    );
    // What waits is sealed when it is old enough: here it is, being of the past. The rest of the
    // work is let finish before the disk is looked at.
    settle(runtime, &*store, clock)?;
    let usage = runtime.block_on(store.usage())?;
    let [raw, minutes, hours] = usage.tier_bytes;
    let per = |bytes: u64| bytes as f64 / samples as f64;
    println!(
        "  bytes a sample: ticks {:.2} with processes, minutes {:.3}, hours {:.4}; the file as it is {:.2} ({} MB), {:.0} % of it free again",
        per(raw),
        per(minutes),
        per(hours),
        per(usage.disk_bytes),
        usage.disk_bytes >> 20,
        100.0 - 100.0 * usage.used_bytes as f64 / usage.disk_bytes.max(1) as f64
    );
    ask(&url, &catalog, start_ms, (sent / HOSTS as u64).cast_signed() * INTERVAL_MS, clock)?;
    runtime.block_on(hub.stop());
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what threads share")]
fn send(
    catalog: &Catalog,
    url: &str,
    sender: usize,
    start_ms: i64,
    clock: &dyn Clock,
    until: Duration,
    sent: &AtomicU64,
    samples: &AtomicU64,
) -> anyhow::Result<()> {
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut hosts: Vec<SimHost> =
        (sender..HOSTS).step_by(SENDERS).map(|number| SimHost::new(catalog, 1, number)).collect();
    let mut at_ms = start_ms;
    let mut knows_shapes = false;
    while clock.monotonic() < until {
        for host in &mut hosts {
            let ticks: Vec<_> =
                (0..BATCH as i64).map(|n| host.tick(at_ms + n * INTERVAL_MS, 2_000)).collect();
            let count: usize = ticks.iter().map(perfwatch_model::Snapshot::samples).sum();
            let batch = Batch {
                host_id: host.id.to_bytes().to_vec().into(),
                host_name: host.name.clone(),
                shapes: if knows_shapes { Vec::new() } else { vec![wire::encode_shape(host.shape())] },
                snapshots: ticks.iter().map(wire::encode_snapshot).collect(),
                sent_at_ms: clock.wall_ms(),
                facts: None,
            };
            let body = zstd::bulk::compress(&wire::encode_batch(&batch), 1)?;
            let mut answer = http
                .post(format!("{url}/ingest/metrics"))
                .header("Content-Type", wire::CONTENT_TYPE)
                .header("Content-Encoding", "zstd")
                .send(&body[..])?;
            let mut text = String::new();
            answer.body_mut().as_reader().read_to_string(&mut text)?;
            anyhow::ensure!(answer.status() == 200, "{} {text}", answer.status());
            sent.fetch_add(BATCH as u64, Ordering::Relaxed);
            samples.fetch_add(count as u64, Ordering::Relaxed);
            if clock.monotonic() >= until {
                return Ok(());
            }
        }
        knows_shapes = true;
        at_ms += BATCH as i64 * INTERVAL_MS;
    }
    Ok(())
}

/// Waits until roll-up has nothing to do and the sizes stand still.
fn settle(
    runtime: &tokio::runtime::Runtime,
    store: &dyn Store,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let began = clock.monotonic();
    let mut before = Usage::default();
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let usage = runtime.block_on(store.usage())?;
        let waiting =
            runtime.block_on(store.dirty(perfwatch_series::Tier::Raw, clock.wall_ms() - 5_000_000, 1))?;
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
fn ask(
    url: &str,
    catalog: &Catalog,
    start_ms: i64,
    covered_ms: i64,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let http = ureq::Agent::new_with_defaults();
    let end_ms = start_ms + covered_ms;
    let hour_ms = 3_600_000;
    let questions = [
        ("1 metric, 1 hour", format!("series?metric=cpu.usage&from={}&to={end_ms}", end_ms - hour_ms)),
        ("1 metric, all of it", format!("series?metric=cpu.usage&from={start_ms}&to={end_ms}&points=1000")),
        (
            "the host page, 1 hour",
            format!(
                "series?metric=cpu.*,memory.*,network.*,disk.*&from={}&to={end_ms}&points=400",
                end_ms - hour_ms
            ),
        ),
        ("everything at one second", format!("snapshot?at={}", start_ms + covered_ms / 2)),
        ("processes, 1 hour", format!("processes?from={}&to={end_ms}", end_ms - hour_ms)),
    ];
    for (what, question) in questions {
        let mut times = Vec::new();
        for number in 0..100 {
            let host = SimHost::new(catalog, 1, number % HOSTS);
            let began = clock.monotonic();
            let mut answer = http
                .get(format!("{url}/api/v1/hosts/{}/{question}", host.id))
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
