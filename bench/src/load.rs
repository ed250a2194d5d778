//! A hub under a steady load: a fleet that sends at its interval, and viewers who watch a host each. Latencies, CPU time
//! and memory of the hub.

use crate::fleet::INTERVAL_MS;
use crate::fleet_viewers::FleetViewers;
use crate::hub_process::{FLEET_SETTINGS, HubProcess};
use crate::live_client::ClientProcesses;
use crate::process::delay_summary;
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock, SystemClock};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Hosts, viewers of a host, and viewers of the fleet of the runs without arguments.
const RUNS: [(usize, usize, usize); 5] =
    [(100, 25, 0), (1_000, 250, 0), (2_000, 500, 0), (2_000, 0, 50), (5_000, 50, 0)];
/// Duration of a run without arguments, in seconds.
const RUN_S: u64 = 120;
/// Time until hub and connections are warm.
const WARM_UP: Duration = Duration::from_secs(20);
/// Time between two lines of the output.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// Metrics of the viewers: those of the first charts of a host page.
const WATCHED: [&str; 4] = ["cpu.*", "memory.*", "disk.*", "network.*"];

/// What all agents measured.
#[derive(Default)]
struct Acknowledgments {
    /// Delays in milliseconds.
    delays: Mutex<Vec<f64>>,
    failed: AtomicU64,
}

/// Runs with the arguments, or all runs of [`RUNS`].
pub(crate) fn run(
    hosts: Option<usize>,
    viewers: usize,
    seconds: u64,
    fleet_viewers: usize,
) -> anyhow::Result<()> {
    match hosts {
        Some(hosts) => measure(hosts, (viewers, fleet_viewers), seconds),
        None => RUNS
            .into_iter()
            .try_for_each(|(hosts, viewers, of_fleet)| measure(hosts, (viewers, of_fleet), RUN_S)),
    }
}

/// Runs with viewers of a host each and viewers of the fleet.
fn measure(hosts: usize, (viewers, fleet_viewers): (usize, usize), seconds: u64) -> anyhow::Result<()> {
    let (clock, scratch): (Arc<dyn Clock>, _) = (Arc::new(SystemClock::new()), Scratch::new("load")?);
    let mut hub = HubProcess::start(&scratch.0, FLEET_SETTINGS)?;
    let admin = hub.create_user("root-admin", "admin")?;
    let agents = hub.enroll_fleet(&admin, hosts)?;
    let names: Vec<String> = agents.iter().map(|(host, _)| host.name.clone()).collect();
    println!(
        "{hosts} hosts at {INTERVAL_MS} ms, {viewers} viewers of a host, {fleet_viewers} of the fleet, {seconds} s"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let acknowledgments = Arc::new(Acknowledgments::default());
    let mut senders = JoinSet::new();
    for (number, agent) in agents.into_iter().enumerate() {
        // The hosts of a fleet send at different times of their interval.
        let offset =
            Duration::from_micros(INTERVAL_MS.cast_unsigned() * 1_000 * number as u64 / hosts as u64);
        let sender = send(hub.address.clone(), agent, offset, acknowledgments.clone(), clock.clone());
        senders.spawn_on(sender, runtime.handle());
    }
    std::thread::sleep(shorten(WARM_UP));
    let watch = |viewer: usize| Some(json!({ "hosts": [names[viewer % names.len()]], "metrics": WATCHED }));
    let subscriptions: Vec<Option<Value>> = (0..viewers).map(watch).collect();
    let messages = seconds * 1_000 / INTERVAL_MS.cast_unsigned();
    let clients = ClientProcesses::start(&hub, &admin, &subscriptions, messages, &*clock)?;
    let fleet = FleetViewers::start(&hub, &admin, fleet_viewers)?;
    let sent = || std::mem::take(&mut *acknowledgments.delays.lock().unwrap_or_else(PoisonError::into_inner));
    drop(sent());
    observe(&hub, &admin, seconds, &*clock)?;
    let received = clients.finish()?;
    senders.abort_all();
    fleet.finish()?;
    let delays = sent();
    let (accepted, watched) = (delays.len(), received.len());
    println!("  post → ack:      {} ({accepted} snapshots)", delay_summary(delays));
    if viewers > 0 {
        let expected = messages * viewers as u64;
        println!("  post → received: {} ({watched} of {expected})", delay_summary(received));
    }
    println!("  failed requests: {}", acknowledgments.failed.load(Ordering::Relaxed));
    drop(runtime);
    hub.stop(Duration::from_secs(60), &*clock)?;
    Ok(())
}

/// Prints CPU usage and memory of the hub once a minute.
fn observe(hub: &HubProcess, admin: &str, seconds: u64, clock: &dyn Clock) -> anyhow::Result<()> {
    let end = clock.monotonic() + Duration::from_secs(seconds);
    let accepted = || -> anyhow::Result<f64> {
        let metrics = hub.text("/metrics", admin, None)?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("perfwatch_ingest_snapshots_total{outcome=\"accepted\"} "));
        Ok(line.and_then(|count| count.parse().ok()).unwrap_or_default())
    };
    let mut before = (clock.monotonic(), hub.cpu_seconds()?, accepted()?);
    while clock.monotonic() < end {
        std::thread::sleep(REPORT_INTERVAL.min(end.saturating_sub(clock.monotonic())));
        let now = (clock.monotonic(), hub.cpu_seconds()?, accepted()?);
        let (elapsed, cpu, count) =
            (now.0.saturating_sub(before.0).as_secs_f64(), now.1 - before.1, now.2 - before.2);
        println!(
            "  {:.0} snapshots/s, {:.1} % of a core, {:.1} µs per snapshot, {:.0} MB",
            count / elapsed,
            cpu * 100.0 / elapsed,
            cpu * 1e6 / count,
            hub.resident_mb()?
        );
        before = now;
    }
    Ok(())
}

/// Sends a snapshot per interval over a connection that stays open.
async fn send(
    address: String,
    (mut host, bearer): (SimHost, String),
    offset: Duration,
    acknowledgments: Arc<Acknowledgments>,
    clock: Arc<dyn Clock>,
) {
    tokio::time::sleep(offset).await;
    let mut interval = tokio::time::interval(Duration::from_millis(INTERVAL_MS.cast_unsigned()));
    let (mut connection, mut is_known) = (None, false);
    loop {
        interval.tick().await;
        let body = batch(&mut host, is_known, clock.wall_ms());
        let started = clock.monotonic();
        match post(&address, &mut connection, &bearer, &body).await {
            Ok(()) => {
                is_known = true;
                let delay_ms = clock.monotonic().saturating_sub(started).as_secs_f64() * 1_000.0;
                acknowledgments.delays.lock().unwrap_or_else(PoisonError::into_inner).push(delay_ms);
            }
            Err(_) => {
                connection = None;
                acknowledgments.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Body of a request with a single snapshot.
fn batch(host: &mut SimHost, is_known: bool, now_ms: i64) -> Vec<u8> {
    let snapshot = host.tick(now_ms, INTERVAL_MS.cast_unsigned() as u32);
    let batch = Batch {
        host_id: host.id.to_bytes().to_vec().into(),
        host_name: host.name.clone(),
        shapes: if is_known { Vec::new() } else { vec![wire::encode_shape(host.shape())] },
        snapshots: vec![wire::encode_snapshot(&snapshot)],
        sent_at_ms: now_ms,
        facts: None,
    };
    wire::encode_batch(&batch)
}

/// Posts a body over a connection, which is opened if there is none, and reads the whole response.
async fn post(
    address: &str,
    connection: &mut Option<TcpStream>,
    bearer: &str,
    body: &[u8],
) -> anyhow::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(TcpStream::connect(address).await?),
    };
    let mut request = format!(
        "POST /ingest/metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: {bearer}\r\nContent-Type: {}\r\n\
         Content-Length: {}\r\n\r\n",
        wire::CONTENT_TYPE,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).await?;
    let mut response = Vec::with_capacity(1_024);
    loop {
        anyhow::ensure!(stream.read_buf(&mut response).await? > 0, "connection closed");
        anyhow::ensure!(response.len() <= MAX_RESPONSE_BYTES, "response too large");
        let Some(end) = response.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&response[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if response.len() >= end + 4 + length.context("no length")? {
            anyhow::ensure!(head.starts_with("http/1.1 200"), "{head}");
            return Ok(());
        }
    }
}
