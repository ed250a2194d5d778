//! What alerts cost, and how soon they are told: rules stepped for a large fleet; the time from a
//! snapshot that fires until a program and a mailbox heard of it; a back-test over a week.

use crate::fleet::{BenchHub, catalog};
use crate::process::{self, percentiles};
use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Clock, Snapshot, SystemClock};
use perfwatch_rules::host_evaluator::HostEvaluator;
use perfwatch_rules::{Condition, Rule, builtin_rules};
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Made-up hosts whose snapshots all others share.
const SAMPLES: usize = 200;
const TICKS: i64 = 30;
const INTERVAL_MS: u32 = 2_000;

/// The built-in rules, and more of their kind up to a number.
fn rules(count: usize) -> Vec<Arc<Rule>> {
    let all = builtin_rules::builtin_rules()
        .into_iter()
        .filter(|rule| !matches!(rule.condition, Condition::Hub { .. }));
    let all: Vec<Rule> = all.map(|rule| Rule { enabled: true, ..rule }).collect();
    let fresh = |rule: &Rule| Arc::new(Rule { id: perfwatch_model::HostId::generate().0, ..rule.clone() });
    all.iter().cycle().take(count).map(fresh).collect()
}

fn resident_mb() -> f64 {
    process::resident_mb("self").unwrap_or(f64::NAN)
}

/// Steps of a fleet's rules, one snapshot of each host after another.
fn evaluation(hosts: usize, count: usize) {
    let (catalog, clock) = (catalog(), SystemClock::new());
    let mut samples: Vec<SimHost> =
        (0..SAMPLES.min(hosts)).map(|number| SimHost::new(&catalog, 1, number)).collect();
    let from_ms = clock.wall_ms() - TICKS * i64::from(INTERVAL_MS);
    let ticks: Vec<Vec<Snapshot>> = (0..TICKS)
        .map(|tick| {
            samples
                .iter_mut()
                .map(|host| host.tick(from_ms + tick * i64::from(INTERVAL_MS), INTERVAL_MS))
                .collect()
        })
        .collect();
    let before_mb = resident_mb();
    let rules = rules(count);
    let (mut told, mut watches) = (Vec::new(), Vec::with_capacity(hosts));
    for _ in 0..hosts {
        let mut watch = HostEvaluator::default();
        watch.set_rules(rules.clone(), 0, &mut told);
        watches.push(watch);
    }
    let mut steady = Vec::new();
    for snapshots in &ticks {
        let began = clock.monotonic();
        for (number, watch) in watches.iter_mut().enumerate() {
            watch.observe(&snapshots[number % snapshots.len()], Some(3), 0, &mut told);
        }
        steady.push((clock.monotonic() - began).as_secs_f64() / hosts as f64 * 1e6);
    }
    // The first tick also works out which columns each rule looks at.
    let first = steady.remove(0);
    let (p50, p99, most) = percentiles(steady);
    let tracks: usize = watches.iter().map(|watch| watch.instances().len()).sum();
    println!(
        "{hosts} hosts × {count} rules = {tracks} alerts that may fire; {} transitions in {TICKS} ticks",
        told.len()
    );
    println!(
        "  a snapshot: p50 {p50:.2} µs, p99 {p99:.2}, max {most:.2} (of whole rounds); first {first:.1} µs"
    );
    println!(
        "  at {INTERVAL_MS} ms: {:.1} % of one core",
        p50 * hosts as f64 / f64::from(INTERVAL_MS) / 10.0
    );
    println!("  memory: {:.1} KiB a host", (resident_mb() - before_mb) * 1024.0 / hosts as f64);
}

struct Api<'a> {
    hub: &'a BenchHub<'a>,
    http: ureq::Agent,
}

impl Api<'_> {
    fn request(
        &self,
        method: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.hub.url));
        let request =
            request.header("Authorization", self.hub.bearer()).header("Content-Type", "application/json");
        let mut answer = self.http.run(request.body(body.to_string())?)?;
        let text = answer.body_mut().read_to_string()?;
        anyhow::ensure!(answer.status().is_success(), "{method} {path}: {} {text}", answer.status());
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// From the snapshot that fires until somebody heard of it; then a week's back-test.
fn notification_latency(tries: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("alerts")?;
    let store = scratch.sqlite(clock.clone())?;
    let hub = BenchHub::start(&runtime, store, &clock, 4 << 30)?;
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let api = Api { hub: &hub, http };
    for row in api.request("GET", "/api/v1/rules", &json!(null))?["rules"].as_array().context("rules")? {
        api.request(
            "DELETE",
            &format!("/api/v1/rules/{}", row["rule"]["id"].as_str().context("id")?),
            &json!(null),
        )?;
    }
    let rule = json!({ "name": "busy", "when": { "kind": "value", "metric": "cpu.usage", "threshold": 90 } });
    api.request("POST", "/api/v1/rules", &rule)?;
    let (hook, mail) = (HttpRecorder::start(), SmtpRecorder::start());
    api.request(
        "POST",
        "/api/v1/channels",
        &json!({ "name": "hook", "kind": "webhook", "settings": { "url": hook.url() } }),
    )?;
    let smtp = json!({ "to": "a@example.org", "from": "b@example.org", "server": "127.0.0.1", "port": mail.port().to_string(), "security": "none" });
    api.request("POST", "/api/v1/channels", &json!({ "name": "mail", "kind": "email", "settings": smtp }))?;
    let (mut by_http, mut by_mail) = (Vec::new(), Vec::new());
    for number in 0..tries {
        let post = |usage: f64| {
            let snapshot = json!({ "host": format!("host-{number}"), "cpu": { "usage": usage } });
            api.request("POST", "/ingest/metrics", &snapshot)
        };
        post(10.0)?;
        std::thread::sleep(Duration::from_millis(120));
        let began = clock.monotonic();
        post(99.0)?;
        hook.next_request_within(Duration::from_secs(20)).context("the program heard nothing")?;
        by_http.push((clock.monotonic() - began).as_secs_f64() * 1e3);
        let _ = mail.next();
        by_mail.push((clock.monotonic() - began).as_secs_f64() * 1e3);
    }
    let show = |what: &str, values: Vec<f64>| {
        let (p50, p99, most) = percentiles(values);
        println!("  snapshot sent → {what}: p50 {p50:.0} ms, p99 {p99:.0}, max {most:.0}");
    };
    println!("told, {tries} times:");
    show("HTTP sink", by_http);
    show("SMTP sink", by_mail);
    backtest(&api, &clock)?;
    drop(api);
    hub.stop();
    Ok(())
}

/// Seven days of one host at 2 s, looked at tick by tick.
fn backtest(api: &Api<'_>, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let catalog = catalog();
    let mut host = SimHost::new(&catalog, 1, 0);
    let mut send = api.hub.sender(&**clock);
    let (week, step) = (7 * 86_400_000_i64, i64::from(INTERVAL_MS));
    let now_ms = clock.wall_ms();
    let mut at_ms = now_ms - week;
    while at_ms < now_ms {
        let ticks: Vec<Snapshot> = (0..500).map(|tick| host.tick(at_ms + tick * step, INTERVAL_MS)).collect();
        send(&host, &ticks)?;
        at_ms += 500 * step;
    }
    println!("back-test of a week at {INTERVAL_MS} ms, one host:");
    for (what, when, patience) in [
        (
            "latest value for 10 s",
            json!({ "kind": "value", "metric": "cpu.usage", "threshold": 90, "clear": 80 }),
            "10s",
        ),
        (
            "average of 5 min",
            json!({ "kind": "value", "metric": "cpu.usage", "aggregate": "mean", "window": "5m", "threshold": 60 }),
            "0s",
        ),
        (
            "95th percentile of 30 min",
            json!({ "kind": "value", "metric": "cpu.usage", "aggregate": "p95", "window": "30m", "threshold": 60 }),
            "0s",
        ),
        (
            "each of three mounts, forecast",
            json!({ "kind": "forecast", "metric": "filesystem.used_percent", "look_back": "6h", "within": "24h", "reaches": 100 }),
            "0s",
        ),
    ] {
        let rule = json!({ "name": "x", "for": patience, "when": when, "hosts": { "hosts": [host.id.0] } });
        let answer =
            api.request("POST", "/api/v1/rules/backtest", &json!({ "rule": rule, "from": "-7d" }))?;
        let one = &answer["hosts"][0];
        println!(
            "  {what}: {} values, fired {} times, {} ms{}",
            one["points"],
            answer["fires"],
            answer["took_ms"],
            if one["coarse"] == true { ", by the minute" } else { "" }
        );
    }
    Ok(())
}

/// All of it.
pub(crate) fn run(hosts: u64, rules: u64) -> anyhow::Result<()> {
    evaluation(usize::try_from(hosts)?, usize::try_from(rules)?);
    notification_latency(30)
}
