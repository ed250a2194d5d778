//! Reads over a large fleet: queries of Explore, the fleet replay, and the time range of the overview, each by a single
//! user and by several users at once, beside a probe of `/healthz`. The hub has a day of history of every host.

use crate::fleet::{self, RETRY_DELAY, SENDERS, ShareExceeded};
use crate::health::Health;
use crate::hub_process::{FLEET_SETTINGS, HubProcess};
use crate::store::Scratch;
use crate::tiny::shorten;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Catalog, Clock, SystemClock};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Interval of the hosts: a day of a large fleet is sent within minutes.
const INTERVAL_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// Ticks per request.
const BATCH_ROWS: usize = 240;
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Users that send the same request at once.
const USERS: [usize; 2] = [1, 4];
/// Time over which the CPU usage of the hub decides whether it has sealed and rolled up everything.
const IDLE_PERIOD: Duration = Duration::from_secs(5);
/// CPU usage of an idle hub in percent of a core.
const IDLE_PERCENT: f64 = 10.0;
/// Longest time to wait for an idle hub.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest text of what a response left out.
const MAX_TEXT_LEN: usize = 200;

/// Read that is measured for each number of users.
struct Read {
    label: &'static str,
    path: String,
    body: Option<Value>,
    /// Path of what the response left out.
    left_out: &'static str,
}

/// Response that a user received.
struct Answer {
    seconds: f64,
    bytes: usize,
    /// What the response left out, or its error.
    note: String,
}

/// Measures the reads over `hosts` hosts with `hours` hours of history.
pub(crate) fn run(hosts: u64, hours: u64) -> anyhow::Result<()> {
    let (clock, catalog, scratch) = (SystemClock::new(), fleet::catalog(), Scratch::new("explore")?);
    let mut hub = HubProcess::start(&scratch.0, FLEET_SETTINGS)?;
    let admin = hub.create_user("root-admin", "admin")?;
    let users: Vec<String> = (0..USERS.into_iter().max().unwrap_or(1))
        .map(|number| hub.create_user(&format!("user-{number}"), "viewer"))
        .collect::<anyhow::Result<_>>()?;
    let count = usize::try_from(hosts)?;
    fill(&hub, &admin, &catalog, (count, i64::try_from(hours)?), &clock)?;
    set_tags(&hub, &admin, &catalog, count)?;
    wait_until_idle(&hub, &clock)?;
    println!(
        "{hosts} hosts, {hours} h at {} s; requests of the users at once; hub {:.0} MB",
        INTERVAL_MS / 1_000,
        hub.resident_mb()?
    );
    let (health, stop) = (Health::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| health.probe(&hub, &clock, PROBE_INTERVAL, &stop));
        let result = reads(hours).iter().try_for_each(|read| {
            USERS.iter().try_for_each(|count| measure(&hub, &users[..*count], read, &health, &clock))
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    hub.stop(Duration::from_secs(60), &clock)?;
    Ok(())
}

/// Sends the history of the fleet, one host after the other: unsealed rows of few hosts fill the head.
fn fill(
    hub: &HubProcess,
    admin: &str,
    catalog: &Catalog,
    (hosts, hours): (usize, i64),
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let (started, end_ms) = (clock.monotonic(), clock.wall_ms());
    let rows = hours * HOUR_MS / INTERVAL_MS;
    let sent = AtomicU64::new(0);
    let send = |sender: usize| -> anyhow::Result<()> {
        let mut deliver = fleet::sender(&hub.url, admin.to_owned(), clock);
        for number in (sender..hosts).step_by(SENDERS) {
            let mut host = SimHost::new(catalog, 1, number);
            for first in (0..rows).step_by(BATCH_ROWS) {
                let ticks: Vec<_> = (first..rows.min(first + BATCH_ROWS as i64))
                    .map(|row| {
                        host.tick(end_ms - (rows - row - 1) * INTERVAL_MS, INTERVAL_MS.cast_unsigned() as u32)
                    })
                    .collect();
                while let Err(error) = deliver(&host, &ticks) {
                    anyhow::ensure!(error.is::<ShareExceeded>(), error);
                    std::thread::sleep(RETRY_DELAY);
                }
                sent.fetch_add(ticks.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let senders: Vec<_> = (0..SENDERS.min(hosts))
            .map(|sender| {
                let send = &send;
                scope.spawn(move || send(sender))
            })
            .collect();
        let mut results = senders.into_iter().map(|sender| sender.join());
        results.try_for_each(|result| result.unwrap_or_else(|_| anyhow::bail!("sender failed")))
    })?;
    let (sent, elapsed) = (sent.into_inner(), clock.monotonic().saturating_sub(started).as_secs_f64());
    println!("{sent} snapshots sent in {elapsed:.0} s, {:.0}/s", sent as f64 / elapsed);
    Ok(())
}

/// Sets the tag `role` of every host, the first part of its name.
fn set_tags(hub: &HubProcess, admin: &str, catalog: &Catalog, hosts: usize) -> anyhow::Result<()> {
    (0..hosts).map(|number| SimHost::new(catalog, 1, number)).try_for_each(|host| {
        let role = host.name.split('-').next().unwrap_or_default();
        let tags = json!({ "tags": [format!("role={role}")] });
        hub.put(&format!("/api/v1/hosts/{}/tags", host.id), admin, &tags)
    })
}

/// Waits until the hub has sealed and rolled up what it received.
fn wait_until_idle(hub: &HubProcess, clock: &dyn Clock) -> anyhow::Result<()> {
    let started = clock.monotonic();
    loop {
        let before = hub.cpu_seconds()?;
        std::thread::sleep(shorten(IDLE_PERIOD));
        let percent = (hub.cpu_seconds()? - before) / shorten(IDLE_PERIOD).as_secs_f64() * 100.0;
        let elapsed = clock.monotonic().saturating_sub(started);
        if percent < IDLE_PERCENT || elapsed > shorten(IDLE_TIMEOUT) {
            println!("{percent:.0} % of a core after {:.0} s without load", elapsed.as_secs_f64());
            return Ok(());
        }
    }
}

fn query(label: &'static str, hours: u64, query: &Value) -> Read {
    let mut query = query.clone();
    query["id"] = "A".into();
    query["metric"] = "cpu.usage".into();
    let body = json!({ "from": format!("-{hours}h"), "to": "now", "points": 300, "queries": [query] });
    Read { label, path: "/api/v1/query".to_owned(), body: Some(body), left_out: "/left_out" }
}

fn reads(hours: u64) -> Vec<Read> {
    let read = |label, path: &str, left_out| Read { label, path: path.to_owned(), body: None, left_out };
    let course = format!("/api/v1/overview/history?from=-{hours}h&points=120");
    vec![
        query("mean by tag", hours, &json!({ "aggregate": "mean", "by": "tag:role" })),
        query("p95 by tag", hours, &json!({ "aggregate": "p95", "by": "tag:role" })),
        query("by host", hours, &json!({ "by": "host", "limit": 200 })),
        read("fleet replay, 1 h ago", "/api/v1/overview?at=-1h", "/replay/left_out"),
        read("range of the overview", &course, "/left_out"),
        read("range of the overview, 1 h", "/api/v1/overview/history?from=-1h&points=120", "/left_out"),
    ]
}

/// Sends a read for all users at once and prints the results.
fn measure(
    hub: &HubProcess,
    users: &[String],
    read: &Read,
    health: &Health,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let before_mb = hub.resident_mb()?;
    let cpu = hub.cpu_seconds()?;
    health.reset(clock.monotonic());
    let answers = std::thread::scope(|scope| -> anyhow::Result<Vec<Answer>> {
        let requests: Vec<_> =
            users.iter().map(|user| scope.spawn(|| send(hub, user, read, clock))).collect();
        let results = requests.into_iter().map(|request| request.join());
        results.map(|result| result.unwrap_or_else(|_| anyhow::bail!("request failed"))).collect()
    })?;
    println!("{}, {} at once: {:.1} s of CPU", read.label, users.len(), hub.cpu_seconds()? - cpu);
    for Answer { seconds, bytes, note } in &answers {
        println!("  {seconds:.2} s, {} kB, {note}", bytes / 1_000);
    }
    health.print("beside it");
    let (max_mb, after_mb) = (health.peak_mb().value, hub.resident_mb()?);
    println!("  memory: {before_mb:.0} MB before, {max_mb:.0} MB maximum, {after_mb:.0} MB after");
    Ok(())
}

fn send(hub: &HubProcess, user: &str, read: &Read, clock: &dyn Clock) -> anyhow::Result<Answer> {
    let started = clock.monotonic();
    let text = hub.text(&read.path, user, read.body.as_ref())?;
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    let response: Value = serde_json::from_str(&text)?;
    let mut note = match (response.get("error"), response.pointer(read.left_out)) {
        (Some(error), _) => format!("error {error}"),
        (None, Some(left_out)) => format!("left out {left_out}"),
        (None, None) => "nothing left out".to_owned(),
    };
    note.truncate(MAX_TEXT_LEN);
    Ok(Answer { seconds, bytes: text.len(), note })
}
