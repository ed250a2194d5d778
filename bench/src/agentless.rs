//! Hosts without an agent: many of them once a minute, over real SSH. Are they looked at in time,
//! and what does a look cost the hub? Its figures hold a little of who asks it, too: one process.

use crate::fleet::BenchHub;
use crate::process::{cpu_seconds, percentiles, resident_mb};
use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch_hub::{EncryptionKeys, HubConfig};
use perfwatch_model::{Clock, SystemClock};
use perfwatch_testkit::sshd::Sshd;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Servers at one sshd: each has its own limits.
const SHARE: u64 = 100;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// A program that prints a capture with the time of now: of one that stands still, there are no rates.
fn live_probe(capture: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(capture)?;
    let value_of = |name: &[u8]| {
        let head = text.split(|byte| *byte == b'\n').position(|line| line == [b"=== ", name].concat());
        head.map(|head| head + 2).context("a capture with its clocks")
    };
    let (uptime, monotonic) = (value_of(b"/proc/uptime")?, value_of(b"@monotonic_ms")?);
    let print = format!(
        "read up idle </proc/uptime\nexec sed \"{uptime}s/.*/$up $idle/;{monotonic}s/.*/${{up%.*}}${{up#*.}}0/\" {}\n",
        capture.display()
    );
    let program = folder.join("moving");
    std::fs::write(&program, print)?;
    Ok(program)
}

/// `count` servers once a minute for `seconds`, by `workers`.
pub(crate) fn run(count: u64, seconds: u64, workers: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("servers")?;
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
    let sshds: Vec<Sshd> = (0..count.div_ceil(SHARE))
        .map(|at| {
            Sshd::start(
                Ipv4Addr::new(127, 0, 10, u8::try_from(at + 1).unwrap_or(255)),
                &[&command, "MaxSessions 1"],
            )
        })
        .collect();
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let get = |path: &str| -> anyhow::Result<Value> {
        let mut answer =
            http.get(format!("{}{path}", hub.url)).header("Authorization", hub.bearer()).call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    };
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    for at in 0..count {
        let sshd = &sshds[usize::try_from(at / SHARE)?];
        let wish = json!({ "name": format!("host-{at:04}"), "address": sshd.address().ip().to_string(), "port": sshd.address().port(),
            "user": user, "login": { "kind": "key", "key": sshd.key("ed25519") }, "interval": "1m", "enabled": true });
        let post = http.post(format!("{}/api/v1/servers", hub.url)).header("Authorization", hub.bearer());
        let mut answer = post.content_type("application/json").send(wish.to_string())?;
        anyhow::ensure!(answer.status() == 201, answer.body_mut().read_to_string()?);
    }
    println!("{count} servers once a minute at {} sshd, {workers} workers", sshds.len());
    let stats =
        |what: &str| Ok::<f64, anyhow::Error>(number(&get("/api/v1/servers/metrics/queue/stats")?[what]));
    // The first look of each makes its connection, and takes two captures.
    let began = clock.monotonic();
    while stats("completed")? < number(&json!(count)) {
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("first looks: {:.0} s", clock.monotonic().saturating_sub(began).as_secs_f64());
    std::thread::sleep(Duration::from_secs(70));
    let (cpu, done, failed, began) =
        (cpu_seconds("self")?, stats("completed")?, stats("failed")?, clock.monotonic());
    let since = number(&json!(clock.wall_ms()));
    std::thread::sleep(Duration::from_secs(seconds));
    let took = clock.monotonic().saturating_sub(began).as_secs_f64();
    let (looks, failures, used) =
        (stats("completed")? - done, stats("failed")? - failed, cpu_seconds("self")? - cpu);
    let jobs = get("/api/v1/servers/metrics/queue/jobs?state=completed&limit=1000")?;
    let jobs = jobs["jobs"].as_array().context("jobs")?;
    let jobs: Vec<&Value> = jobs.iter().filter(|job| number(&job["run_ms"]) >= since).collect();
    let late =
        jobs.iter().map(|job| (number(&job["started_ms"]) - number(&job["run_ms"])) / 1_000.0).collect();
    let each = jobs.iter().map(|job| number(&job["done_ms"]) - number(&job["started_ms"])).collect();
    let (late, each) = (percentiles(late), percentiles(each));
    println!("looks a minute: {:.0}, failed: {failures:.0}", looks / took * 60.0);
    println!("begun after their time: p50 {:.2} s, p99 {:.2} s, max {:.2} s", late.0, late.1, late.2);
    println!("one look: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms", each.0, each.1, each.2);
    println!(
        "hub: {:.2} s of processor for 1,000 looks, {:.0} MB, {:.0} connections held",
        used / looks * 1_000.0,
        resident_mb("self")?,
        stats("held")?
    );
    hub.stop();
    Ok(())
}
