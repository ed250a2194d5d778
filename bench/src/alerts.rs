//! Alerting: evaluation of the rules of a large fleet, latency from a firing snapshot to webhook and
//! mail, backtest over a week.

use crate::fleet::{BenchHub, catalog};
use crate::process::{self, percentiles};
use crate::store::Scratch;
use crate::tiny::{is_tiny, repetitions};
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Clock, Snapshot, SystemClock};
use perfwatch_rules::host_evaluator::HostEvaluator;
use perfwatch_rules::{Condition, Rule, builtin_rules};
use perfwatch_testkit::recorder::{HttpRecorder, SmtpRecorder};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Simulated hosts; further hosts reuse their snapshots.
const SIMULATED_HOSTS: usize = 200;
const TICKS: i64 = 30;
const INTERVAL_MS: u32 = 2_000;

/// Returns the built-in host rules, repeated up to the given number.
fn rules(count: usize) -> Vec<Arc<Rule>> {
    let host_rules = builtin_rules::builtin_rules()
        .into_iter()
        .filter(|rule| !matches!(rule.condition, Condition::Hub { .. }));
    let host_rules: Vec<Rule> = host_rules.map(|rule| Rule { enabled: true, ..rule }).collect();
    let with_new_id =
        |rule: &Rule| Arc::new(Rule { id: perfwatch_model::HostId::generate().0, ..rule.clone() });
    host_rules.iter().cycle().take(count).map(with_new_id).collect()
}

fn resident_mb() -> f64 {
    process::resident_mb("self").unwrap_or(f64::NAN)
}

/// Measures the evaluation of all rules of a fleet; a round is a snapshot of every host.
fn measure_evaluation(hosts: usize, count: usize) {
    let (catalog, clock) = (catalog(), SystemClock::new());
    let mut simulated: Vec<SimHost> =
        (0..SIMULATED_HOSTS.min(hosts)).map(|number| SimHost::new(&catalog, 1, number)).collect();
    let from_ms = clock.wall_ms() - TICKS * i64::from(INTERVAL_MS);
    let ticks: Vec<Vec<Snapshot>> = (0..TICKS)
        .map(|tick| {
            simulated
                .iter_mut()
                .map(|host| host.tick(from_ms + tick * i64::from(INTERVAL_MS), INTERVAL_MS))
                .collect()
        })
        .collect();
    let before_mb = resident_mb();
    let rules = rules(count);
    let (mut transitions, mut evaluators) = (Vec::new(), Vec::with_capacity(hosts));
    for _ in 0..hosts {
        let mut evaluator = HostEvaluator::default();
        evaluator.set_rules(rules.clone(), 0, &mut transitions);
        evaluators.push(evaluator);
    }
    let mut rounds = Vec::new();
    for snapshots in &ticks {
        let started = clock.monotonic();
        for (number, evaluator) in evaluators.iter_mut().enumerate() {
            evaluator.evaluate_snapshot(&snapshots[number % snapshots.len()], Some(3), 0, &mut transitions);
        }
        rounds.push((clock.monotonic() - started).as_secs_f64() / hosts as f64 * 1e6);
    }
    // The first round also resolves the columns of each rule.
    let first = rounds.remove(0);
    let (p50, p99, max) = percentiles(rounds);
    let instances: usize = evaluators.iter().map(|evaluator| evaluator.instances().len()).sum();
    println!(
        "{hosts} hosts × {count} rules = {instances} alert instances; {} transitions in {TICKS} ticks",
        transitions.len()
    );
    println!(
        "  per snapshot: p50 {p50:.2} µs, p99 {p99:.2}, max {max:.2} (of rounds); \
         first {first:.1} µs"
    );
    println!(
        "  at {INTERVAL_MS} ms: {:.1} % of one core",
        p50 * hosts as f64 / f64::from(INTERVAL_MS) / 10.0
    );
    println!("  memory: {:.1} KiB per host", (resident_mb() - before_mb) * 1024.0 / hosts as f64);
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
        let mut response = self.http.run(request.body(body.to_string())?)?;
        let text = response.body_mut().read_to_string()?;
        anyhow::ensure!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Measures the latency from a firing snapshot to its notifications, then a backtest.
fn notification_latency(rounds: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("alerts")?;
    let store = scratch.sqlite(clock.clone())?;
    let hub = BenchHub::start(&runtime, store, &clock, 4 << 30)?;
    let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let api = Api { hub: &hub, http };
    for existing in api.request("GET", "/api/v1/rules", &json!(null))?["rules"].as_array().context("rules")? {
        api.request(
            "DELETE",
            &format!("/api/v1/rules/{}", existing["rule"]["id"].as_str().context("id")?),
            &json!(null),
        )?;
    }
    let condition = json!({ "kind": "threshold", "metric": "cpu.usage", "threshold": 90 });
    let rule = json!({ "name": "busy", "condition": condition });
    api.request("POST", "/api/v1/rules", &rule)?;
    let (webhook, mail) = (HttpRecorder::start(), SmtpRecorder::start());
    api.request(
        "POST",
        "/api/v1/channels",
        &json!({ "name": "hook", "kind": "webhook", "settings": { "url": webhook.url() } }),
    )?;
    let smtp = json!({ "to": "a@example.org", "from": "b@example.org", "server": "127.0.0.1",
                       "port": mail.port().to_string(), "security": "none" });
    api.request("POST", "/api/v1/channels", &json!({ "name": "mail", "kind": "email", "settings": smtp }))?;
    let (mut by_http, mut by_mail) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let post = |usage: f64| {
            let snapshot = json!({ "host": format!("host-{number}"), "cpu": { "usage": usage } });
            api.request("POST", "/ingest/metrics", &snapshot)
        };
        post(10.0)?;
        // Elapsed time between two snapshots.
        std::thread::sleep(Duration::from_millis(120));
        let started = clock.monotonic();
        post(99.0)?;
        webhook.next_request_within(Duration::from_secs(20)).context("the webhook received nothing")?;
        by_http.push((clock.monotonic() - started).as_secs_f64() * 1e3);
        let _ = mail.next();
        by_mail.push((clock.monotonic() - started).as_secs_f64() * 1e3);
    }
    let print = |receiver: &str, latencies: Vec<f64>| {
        let (p50, p99, max) = percentiles(latencies);
        println!("  snapshot sent → {receiver}: p50 {p50:.0} ms, p99 {p99:.0}, max {max:.0}");
    };
    println!("notification latency, {rounds} incidents:");
    print("webhook", by_http);
    print("mail", by_mail);
    backtest(&api, &clock)?;
    drop(api);
    hub.stop();
    Ok(())
}

/// Measures backtests over seven days of a host at 2 s.
fn backtest(api: &Api<'_>, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let catalog = catalog();
    let mut host = SimHost::new(&catalog, 1, 0);
    let mut send = api.hub.sender(&**clock);
    // An hour in a tiny run.
    let (week, step) = (if is_tiny() { 3_600_000 } else { 7 * 86_400_000_i64 }, i64::from(INTERVAL_MS));
    let now_ms = clock.wall_ms();
    let mut at_ms = now_ms - week;
    while at_ms < now_ms {
        let ticks: Vec<Snapshot> = (0..500).map(|tick| host.tick(at_ms + tick * step, INTERVAL_MS)).collect();
        send(&host, &ticks)?;
        at_ms += 500 * step;
    }
    println!("backtest of a week at {INTERVAL_MS} ms, one host:");
    for (label, condition, hold_for) in [
        (
            "latest value for 10 s",
            json!({ "kind": "threshold", "metric": "cpu.usage", "threshold": 90, "clear_threshold": 80 }),
            "10s",
        ),
        (
            "average of 5 min",
            json!({ "kind": "threshold", "metric": "cpu.usage", "aggregate": "mean", "window": "5m",
                    "threshold": 60 }),
            "0s",
        ),
        (
            "95th percentile of 30 min",
            json!({ "kind": "threshold", "metric": "cpu.usage", "aggregate": "p95", "window": "30m",
                    "threshold": 60 }),
            "0s",
        ),
        (
            "each of three mounts, forecast",
            json!({ "kind": "forecast", "metric": "filesystem.used_percent", "lookback": "6h",
                    "horizon": "24h", "target": 100 }),
            "0s",
        ),
    ] {
        let rule = json!({ "name": "x", "for": hold_for, "condition": condition,
                           "hosts": { "hosts": [host.id.0] } });
        let response =
            api.request("POST", "/api/v1/rules/backtest", &json!({ "rule": rule, "from": "-7d" }))?;
        let host = &response["hosts"][0];
        println!(
            "  {label}: {} values, fired {} times, {} ms{}",
            host["value_count"],
            response["firing_count"],
            response["duration_ms"],
            if host["downsampled"] == true { ", from 1-minute roll-ups" } else { "" }
        );
    }
    Ok(())
}

/// Runs evaluation, latency and backtest.
pub(crate) fn run(hosts: u64, rules: u64) -> anyhow::Result<()> {
    measure_evaluation(usize::try_from(hosts)?, usize::try_from(rules)?);
    notification_latency(repetitions(30))
}
