//! Agentless hosts collected once a minute over SSH: delay of the jobs, and CPU time of the hub per
//! collection. The measured process contains the benchmark client, too.

use crate::fleet::BenchHub;
use crate::process::{cpu_seconds, percentiles, resident_mb};
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch_hub::{EncryptionKeys, HubConfig};
use perfwatch_model::{Clock, SystemClock};
use perfwatch_testkit::sshd::Sshd;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Servers per sshd process, which has its own connection limits.
const SERVERS_PER_SSHD: u64 = 100;

/// Warm-up after the first collections, longer than one interval.
const WARM_UP: Duration = Duration::from_secs(70);

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// Creates a program that prints a capture with current times: rates need advancing clocks.
fn live_probe(capture: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(capture)?;
    let value_line = |name: &[u8]| {
        let heading = text.split(|byte| *byte == b'\n').position(|line| line == [b"=== ", name].concat());
        heading.map(|heading| heading + 2).context("the capture has no clocks")
    };
    let (uptime, monotonic) = (value_line(b"/proc/uptime")?, value_line(b"@monotonic_ms")?);
    let script = format!(
        "read up idle </proc/uptime\n\
         exec sed \"{uptime}s/.*/$up $idle/;{monotonic}s/.*/${{up%.*}}${{up#*.}}0/\" {}\n",
        capture.display()
    );
    let program = folder.join("live-probe");
    std::fs::write(&program, script)?;
    Ok(program)
}

/// Measures `count` servers for `seconds` with `workers` concurrent collections.
pub(crate) fn run(count: u64, seconds: u64, workers: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("agentless")?;
    let store = scratch.sqlite(clock.clone())?;
    let config = HubConfig {
        secret_keys: EncryptionKeys(vec![[7; 32]]),
        collection_workers: usize::try_from(workers)?,
        ..HubConfig::default()
    };
    let hub = BenchHub::with_config(&runtime, store, &clock, config)?;
    let capture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/perfwatch-collect/fixtures/hosts/debian12-vm.2.capture");
    let command = format!("ForceCommand sh {}", live_probe(&capture, &scratch.0)?.display());
    let sshds: Vec<Sshd> = (0..count.div_ceil(SERVERS_PER_SSHD))
        .map(|index| {
            let address = Ipv4Addr::new(127, 0, 10, u8::try_from(index + 1).unwrap_or(255));
            Sshd::start(address, &[&command, "MaxSessions 1"])
        })
        .collect();
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let get = |path: &str| -> anyhow::Result<Value> {
        let mut response =
            http.get(format!("{}{path}", hub.url)).header("Authorization", hub.bearer()).call()?;
        Ok(serde_json::from_str(&response.body_mut().read_to_string()?)?)
    };
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    for index in 0..count {
        let sshd = &sshds[usize::try_from(index / SERVERS_PER_SSHD)?];
        let request = json!({ "name": format!("host-{index:04}"), "address": sshd.address().ip().to_string(),
            "port": sshd.address().port(), "user": user,
            "credentials": { "kind": "key", "key": sshd.key("ed25519") },
            "interval": "1m", "enabled": true });
        let post = http.post(format!("{}/api/v1/servers", hub.url)).header("Authorization", hub.bearer());
        let mut response = post.content_type("application/json").send(request.to_string())?;
        anyhow::ensure!(response.status() == 201, response.body_mut().read_to_string()?);
    }
    println!("{count} servers at 1 minute on {} sshd processes, {workers} workers", sshds.len());
    let stats =
        |field: &str| Ok::<f64, anyhow::Error>(number(&get("/api/v1/servers/metrics/queue/stats")?[field]));
    // The first collection of a server connects and reads two captures.
    let started = clock.monotonic();
    while stats("completed")? < number(&json!(count)) {
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("first collections: {:.0} s", clock.monotonic().saturating_sub(started).as_secs_f64());
    std::thread::sleep(shorten(WARM_UP));
    let (cpu, completed, failed, started) =
        (cpu_seconds("self")?, stats("completed")?, stats("failed")?, clock.monotonic());
    let started_ms = number(&json!(clock.wall_ms()));
    std::thread::sleep(Duration::from_secs(seconds));
    let duration_s = clock.monotonic().saturating_sub(started).as_secs_f64();
    let (collections, failures, cpu_s) =
        (stats("completed")? - completed, stats("failed")? - failed, cpu_seconds("self")? - cpu);
    let jobs = get("/api/v1/servers/metrics/queue/jobs?state=completed&limit=1000")?;
    let jobs = jobs["jobs"].as_array().context("jobs")?;
    let jobs: Vec<&Value> = jobs.iter().filter(|job| number(&job["run_at_ms"]) >= started_ms).collect();
    let delays =
        jobs.iter().map(|job| (number(&job["started_ms"]) - number(&job["run_at_ms"])) / 1_000.0).collect();
    let durations = jobs.iter().map(|job| number(&job["finished_ms"]) - number(&job["started_ms"])).collect();
    println!("collections per minute: {:.0}, failed: {failures:.0}", collections / duration_s * 60.0);
    let (p50, p99, max) = percentiles(delays);
    println!("start delay: p50 {p50:.2} s, p99 {p99:.2} s, max {max:.2} s");
    let (p50, p99, max) = percentiles(durations);
    println!("duration: p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms");
    println!(
        "hub: {:.2} s of CPU time per 1,000 collections, {:.0} MB resident, {:.0} open connections",
        cpu_s / collections * 1_000.0,
        resident_mb("self")?,
        stats("open_connections")?
    );
    hub.stop();
    Ok(())
}
