//! SIGKILL of hub and agent: every tick arrives afterwards, in order, exactly once.

use crate::support::{
    AGENT, Process, TestHub, eventually, has_consecutive_sequences, now_ms, start_agent, until_stable,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Returns the value of a self-metric; 0 if it is absent.
fn counter(hub: &TestHub, name: &str) -> u64 {
    let text = hub.get("/metrics").text;
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[test]
fn no_snapshot_is_lost_when_the_hub_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let agent = start_agent(folder.path(), &hub, "250ms");
    eventually("ticks arrive", || hub.seqs("it").len() >= 4);
    // The agent is stopped so that the set of accepted snapshots is known when the hub is killed.
    agent.signal("STOP");
    let before = until_stable(Duration::from_millis(300), || hub.seqs("it"));
    let address = hub.address.clone();
    hub.process.kill();
    agent.signal("CONT");
    // Elapsed time for the agent: 20 ticks are spooled and the backoff grows.
    std::thread::sleep(Duration::from_secs(6));
    let hub = TestHub::start_at(folder.path(), &address);
    eventually("the spooled ticks arrive", || hub.seqs("it").len() >= 24);
    eventually("the spool is empty", || {
        let recent = hub.get("/api/metrics/recent?host=it&metric=agent.spool.snapshots");
        recent.body["series"][0]["values"]
            .as_array()
            .and_then(|v| v.last()?.as_f64())
            .is_some_and(|spooled| spooled < 1.0)
    });
    let after = hub.seqs("it");
    // Acknowledged snapshots survive the kill, followed by every later tick exactly once.
    assert_eq!(after[..before.len()], before);
    assert!(has_consecutive_sequences(&after), "{after:?}");
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"duplicate\"}"), 0);
    assert!(agent.log().contains("connection to the hub restored"), "{}", agent.log());
}

#[test]
fn no_snapshot_is_lost_when_the_agent_is_killed() {
    const KILLS: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    // Every second run has no hub, so that snapshots are spooled each time.
    for run in 0..KILLS {
        let agent = if run % 2 == 0 {
            let unreachable = ["--hub", "http://127.0.0.1:9", "--interval", "250ms", "--name", "it"];
            Process::spawn(AGENT, folder.path(), "agent", &unreachable)
        } else {
            start_agent(folder.path(), &hub, "250ms")
        };
        // Elapsed time for the agent: each run is killed at a different point of its interval.
        std::thread::sleep(Duration::from_millis(300 + (run * 37) % 450));
        agent.kill();
    }
    let mut last = start_agent(folder.path(), &hub, "250ms");
    eventually("the last run sends", || hub.seqs("it").len() > 20);
    assert_eq!(last.terminate(), 0);
    let seqs = hub.seqs("it");
    assert!(has_consecutive_sequences(&seqs), "{seqs:?}");
    // No snapshot was corrupted, and no acknowledged snapshot was accepted twice. A kill between the
    // acknowledgment and its record in the spool may cause a duplicate.
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"rejected\"}"), 0);
    for code in ["malformed_batch", "invalid_compression", "decompressed_too_large"] {
        assert_eq!(counter(&hub, &format!("perfwatch_ingest_errors_total{{code=\"{code}\"}}")), 0, "{code}");
    }
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"accepted\"}"), seqs.len() as u64);
    assert!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"duplicate\"}") <= KILLS);
}

#[test]
fn hub_slows_agents_down() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hub.yaml");
    std::fs::write(&config, "hub:\n  listen: 127.0.0.1:0\n  interval: 1s\n").unwrap();
    let hub = TestHub::start_with(folder.path(), &["hub", "--config", config.to_str().unwrap()]);
    let agent = start_agent(folder.path(), &hub, "250ms");
    let interval_ms = || hub.get("/api/v1/hosts/it").body["interval_ms"].as_u64().unwrap_or_default();
    eventually("the agent ticks slower", || interval_ms() > 900);
    eventually("the agent logs the change", || {
        agent.log().contains("collection interval changed by the hub")
    });
    // The facts are sent with the shape.
    assert!(hub.get("/api/v1/hosts/it").body["facts"]["cores"].as_u64().unwrap() > 0);
    let at = now_ms();
    assert_eq!(hub.post_json(&json!({ "host": "x", "timestamp": at })).body["interval_ms"], 1_000);
    // What the configuration sets is locked while the hub runs.
    let change = |version: i64, value: Value| {
        let body = json!({ "version": version, "values": { "agent_interval_ms": value } });
        hub.admin_request("PUT", "/api/v1/settings", &body)
    };
    assert_eq!(change(0, json!(2_000)).code(), "setting_locked");
}

/// The setting applies without a restart, and its removal returns the agent to its own interval.
#[test]
fn interval_setting_applies_at_run_time() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let _agent = start_agent(folder.path(), &hub, "250ms");
    let interval_ms = || hub.get("/api/v1/hosts/it").body["interval_ms"].as_u64().unwrap_or_default();
    eventually("the agent sends", || (1..700).contains(&interval_ms()));
    let change = |version: i64, value: Value| {
        let body = json!({ "version": version, "values": { "agent_interval_ms": value } });
        hub.admin_request("PUT", "/api/v1/settings", &body)
    };
    assert_eq!(change(0, json!(1_000)).body["version"], 1);
    eventually("the agent ticks slower", || interval_ms() > 900);
    assert_eq!(change(0, json!(2_000)).code(), "conflict");
    assert_eq!(change(1, json!(10)).code(), "invalid_setting");
    assert_eq!(change(1, Value::Null).body["version"], 2);
    eventually("the agent ticks as configured", || interval_ms() < 700);
    // A credential that can be found must not change settings.
    let body = json!({ "version": 2, "values": {} });
    assert_eq!(hub.request("PUT", "/api/v1/settings", &hub.token, &body).code(), "forbidden");
    let series = hub.get("/api/v1/system/series?metric=hub.cpu.usage&from=-5m");
    assert_eq!(series.status, 200);
}
