//! Latency of the live stream with many WebSocket clients, from post to receipt, with CPU time and memory of the hub.
//!
//! The timestamp of a snapshot is the time of its post.

use crate::hub_process::{FLEET_SETTINGS, HubProcess};
use crate::live_client::ClientProcesses;
use crate::process::delay_summary;
use crate::store::Scratch;
use crate::tiny::shorten;
use perfwatch_model::{Clock, SystemClock};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Runs without arguments: number of clients, ticks, time between two ticks in milliseconds.
const RUNS: [(u64, u64, u64); 2] = [(1_000, 60, 200), (10_000, 30, 2_000)];
/// Time after which the allocator has returned what the start and the handshakes used.
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// Runs with the arguments, or all runs of [`RUNS`].
pub(crate) fn run(clients: Option<u64>, ticks: u64, interval_ms: u64) -> anyhow::Result<()> {
    match clients {
        Some(clients) => measure(clients, ticks, interval_ms),
        None => RUNS
            .into_iter()
            .try_for_each(|(clients, ticks, interval_ms)| measure(clients, ticks, interval_ms)),
    }
}

fn measure(count: u64, ticks: u64, interval_ms: u64) -> anyhow::Result<()> {
    let (clock, scratch): (Arc<dyn Clock>, _) = (Arc::new(SystemClock::new()), Scratch::new("live")?);
    let mut hub = HubProcess::start(&scratch.0, FLEET_SETTINGS)?;
    let admin = hub.create_user("root-admin", "admin")?;
    let mut body = snapshot_of_this_machine(&clock)?;
    let http = ureq::agent();
    let mut post = |seq: u64| -> anyhow::Result<f64> {
        body["seq"] = json!(seq);
        body["timestamp"] = json!(clock.wall_ms());
        let started = clock.monotonic();
        let request = http.post(format!("{}/ingest/metrics", hub.url)).header("Authorization", &admin);
        request.send(body.to_string())?;
        Ok(clock.monotonic().saturating_sub(started).as_secs_f64() * 1000.0)
    };
    post(1)?;
    std::thread::sleep(shorten(SETTLE_TIME));
    let idle_mb = hub.resident_mb()?;
    // Half of the clients receive full snapshots, half have a subscription.
    let selection = json!({ "hosts": ["bench"], "metrics": ["cpu.*", "memory.*", "network.*"] });
    let subscriptions: Vec<Option<Value>> =
        (0..count).map(|number| (number % 2 == 1).then(|| selection.clone())).collect();
    let clients = ClientProcesses::start(&hub, &admin, &subscriptions, ticks, &*clock)?;
    std::thread::sleep(shorten(SETTLE_TIME));
    let (connected_mb, cpu_before) = (hub.resident_mb()?, hub.cpu_seconds()?);
    let mut acknowledgments = Vec::new();
    for tick in 0..ticks {
        acknowledgments.push(post(tick + 2)?);
        std::thread::sleep(Duration::from_millis(interval_ms));
    }
    let cpu_ms = (hub.cpu_seconds()? - cpu_before) * 1_000.0 / ticks as f64;
    let busy_mb = hub.resident_mb()?;
    let delays = clients.finish()?;
    println!("{count} clients, {ticks} ticks, one per {interval_ms} ms");
    println!("  post → ack:      {}", delay_summary(acknowledgments));
    let received = delays.len();
    println!("  post → received: {} ({received} of {} messages)", delay_summary(delays), count * ticks);
    let per_client_kb = |resident_mb: f64| (resident_mb - idle_mb) * 1024.0 / count as f64;
    println!(
        "  hub: {cpu_ms:.1} ms of a core per tick; {idle_mb:.0} MB before, {:.1} KB per client when connected, {:.1} KB \
         after the ticks",
        per_client_kb(connected_mb),
        per_client_kb(busy_mb)
    );
    let metrics = hub.text("/metrics", &admin, None)?;
    for line in metrics.lines().filter(|line| line.starts_with("perfwatch_websocket_dropped")) {
        println!("  {line}");
    }
    hub.stop(Duration::from_secs(60), &*clock)?;
    Ok(())
}

/// Snapshot of a realistic size, as the body of a post.
fn snapshot_of_this_machine(clock: &Arc<dyn Clock>) -> anyhow::Result<Value> {
    let set = perfwatch_collect::CollectorSet::new(&[], perfwatch_collect::CollectorOptions::default());
    let root = perfwatch_collect::LocalRoot::new("/proc".as_ref(), "/sys".as_ref(), "/".as_ref());
    let snapshot = perfwatch_agent::collect_once(Arc::new(root), &set, Duration::from_millis(200), clock)?;
    let host = perfwatch_model::HostRef { id: None, name: "bench".to_owned() };
    let mut text = String::new();
    perfwatch_model::json::write_snapshot(&mut text, perfwatch_model::HostId::generate(), &host, &snapshot);
    Ok(serde_json::from_str(&text)?)
}
