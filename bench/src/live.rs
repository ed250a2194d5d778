//! Latency of the live stream with many WebSocket clients, from post to receipt.
//!
//! The clients run in a separate process, so that their CPU time is not counted as the hub's. The
//! timestamp of a snapshot is the time of its post; both processes use the same clock.

use crate::fleet::BenchHub;
use crate::process::percentiles;
use crate::store::Scratch;
use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch_model::{Clock, SystemClock};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

pub(crate) fn run(count: u64, ticks: u64) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = runtime()?;
    let scratch = Scratch::new("live")?;
    let hub = BenchHub::start(&runtime, scratch.sqlite(clock.clone())?, &clock, 10 << 30)?;
    let (address, bearer) = (hub.address(), hub.bearer());
    // Snapshot of this machine, for a realistic size.
    let set = perfwatch_collect::CollectorSet::new(&[], perfwatch_collect::CollectorOptions::default());
    let root = perfwatch_collect::LocalRoot::new("/proc".as_ref(), "/sys".as_ref(), "/".as_ref());
    let snapshot = perfwatch_agent::collect_once(Arc::new(root), &set, Duration::from_millis(200), &clock)?;
    let host = perfwatch_model::HostRef { id: None, name: "bench".to_owned() };
    let mut text = String::new();
    perfwatch_model::json::write_snapshot(&mut text, perfwatch_model::HostId::generate(), &host, &snapshot);
    let mut body: Value = serde_json::from_str(&text)?;
    let http = ureq::agent();
    let mut post = |seq: u64| -> anyhow::Result<f64> {
        body["seq"] = json!(seq);
        body["timestamp"] = json!(clock.wall_ms());
        let started = clock.monotonic();
        let post = http.post(format!("http://{address}/ingest/metrics")).header("Authorization", &bearer);
        post.send(body.to_string())?;
        Ok(clock.monotonic().saturating_sub(started).as_secs_f64() * 1000.0)
    };
    post(1)?;
    let metrics = || -> anyhow::Result<String> {
        let get = http.get(format!("http://{address}/metrics")).header("Authorization", &bearer);
        Ok(get.call()?.body_mut().read_to_string()?)
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["live-clients", &address, &count.to_string(), &ticks.to_string()])
        .env("BENCH_BEARER", &bearer)
        .stdout(Stdio::inherit())
        .spawn()?;
    let all_connected = format!("perfwatch_websocket_connections{{state=\"live\"}} {count}");
    for _ in 0..600 {
        if metrics()?.contains(&all_connected) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{count} clients, {ticks} ticks of {} bytes of JSON, 5 per second", text.len());
    let mut acks = Vec::new();
    for tick in 0..ticks {
        acks.push(post(tick + 2)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    let (p50, p99, max) = percentiles(acks);
    println!("  post → ack:          p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
    child.wait().context("clients")?;
    let metrics = metrics()?;
    for line in metrics.lines().filter(|line| {
        ["perfwatch_websocket_dropped", "process_resident"].iter().any(|name| line.starts_with(name))
    }) {
        println!("  {line}");
    }
    hub.stop();
    Ok(())
}

/// Client process: half of the clients receive full snapshots, half have a subscription.
pub(crate) fn clients(address: &str, count: u64, ticks: u64) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    let bearer = std::env::var("BENCH_BEARER")?;
    let results = runtime()?.block_on(async {
        let client = async |n: u64| -> anyhow::Result<Vec<f64>> {
            let mut request = format!("ws://{address}/api/ws/metrics").into_client_request()?;
            request.headers_mut().insert("authorization", bearer.parse()?);
            let (mut socket, _) = connect_async(request).await?;
            if n % 2 == 1 {
                let metrics = ["cpu.*", "memory.*", "network.*"];
                let message = json!({ "subscribe": { "hosts": ["bench"], "metrics": metrics } });
                socket.send(Message::Text(message.to_string().into())).await?;
            }
            let mut delays = Vec::new();
            while (delays.len() as u64) < ticks {
                let Some(message) = socket.next().await else { break };
                let now = clock.wall_ms();
                if let Message::Text(text) = message?
                    && let Some(at) = message_time_ms(&text)
                {
                    delays.push(f64::from(i32::try_from(now - at).unwrap_or(i32::MAX)));
                }
            }
            Ok(delays)
        };
        futures_util::future::join_all((0..count).map(client)).await
    });
    let mut delays = Vec::new();
    for client_delays in results {
        delays.extend(client_delays?);
    }
    let received = delays.len();
    let (p50, p99, max) = percentiles(delays);
    println!(
        "  post → received:     p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms \
         ({received} of {} messages)",
        count * ticks
    );
    Ok(())
}

/// Returns the time of a message without decoding all of it, because every client receives it.
fn message_time_ms(text: &str) -> Option<i64> {
    if let Some((_, time)) = text.split_once("\"t\":") {
        return time.split(',').next()?.parse().ok();
    }
    let timestamp = text.strip_prefix("{\"timestamp\":\"")?.split('"').next()?;
    // The date is today: both processes use the same clock.
    let digits: Vec<i64> = timestamp[11..23].split([':', '.']).filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds, ms] = digits[..] else {
        return None;
    };
    let day_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms;
    let midnight_ms = SystemClock::new().wall_ms() / 86_400_000 * 86_400_000;
    Some(midnight_ms + day_ms)
}
