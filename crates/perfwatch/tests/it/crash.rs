//! kill -9 of either side: every tick arrives afterwards, in order, once.

use crate::support::{AGENT, Process, TestHub, eventually, has_consecutive_sequences, now_ms, start_agent};
use serde_json::json;
use std::time::Duration;

fn counter(hub: &TestHub, line: &str) -> u64 {
    let text = hub.get("/metrics").text;
    let found = text.lines().find(|l| l.starts_with(line)).and_then(|l| l.rsplit(' ').next()?.parse().ok());
    found.unwrap_or_default()
}

#[test]
fn no_snapshot_is_lost_when_the_hub_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let agent = start_agent(folder.path(), &hub, "250ms");
    eventually("ticks arrive", || hub.seqs("it").len() >= 4);
    // Stopped, so that what the hub has taken in is known for sure when it dies.
    agent.signal("STOP");
    std::thread::sleep(Duration::from_millis(300));
    let before = hub.seqs("it");
    let address = hub.address.clone();
    hub.process.kill();
    agent.signal("CONT");
    // Long enough for the back-off to grow and for 20 ticks to wait.
    std::thread::sleep(Duration::from_secs(6));
    let hub = TestHub::start_at(folder.path(), &address);
    eventually("the past is filled in", || hub.seqs("it").len() >= 24);
    eventually("nothing waits any more", || {
        let recent = hub.get("/api/metrics/recent?host=it&metric=agent.spool.snapshots");
        recent.body["series"][0]["values"]
            .as_array()
            .and_then(|v| v.last()?.as_f64())
            .is_some_and(|waiting| waiting < 1.0)
    });
    let after = hub.seqs("it");
    // Acked before the kill, so still there; then every tick since, once.
    assert_eq!(after[..before.len()], before);
    assert!(has_consecutive_sequences(&after), "{after:?}");
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"duplicate\"}"), 0);
    assert!(agent.log().contains("the hub is back"), "{}", agent.log());
}

#[test]
fn no_snapshot_is_lost_when_the_agent_is_killed() {
    const KILLS: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    // Every second life has no hub to send to, so that the spool holds something each time.
    for life in 0..KILLS {
        let agent = if life % 2 == 0 {
            let nowhere = ["--hub", "http://127.0.0.1:9", "--interval", "250ms", "--name", "it"];
            Process::spawn(AGENT, folder.path(), "agent", &nowhere)
        } else {
            start_agent(folder.path(), &hub, "250ms")
        };
        // A different moment of the agent's life each time.
        std::thread::sleep(Duration::from_millis(300 + (life * 37) % 450));
        agent.kill();
    }
    let mut last = start_agent(folder.path(), &hub, "250ms");
    eventually("the last life sends", || hub.seqs("it").len() > 20);
    assert_eq!(last.terminate(), 0);
    let seqs = hub.seqs("it");
    assert!(has_consecutive_sequences(&seqs), "{seqs:?}");
    // Nothing corrupt was sent, and nothing that was acked came as new: the hub saw each
    // number once. A kill between ack and its note may send one again, as a duplicate.
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"rejected\"}"), 0);
    for code in ["malformed", "invalid_compression", "decompressed_too_large"] {
        assert_eq!(counter(&hub, &format!("perfwatch_ingest_errors_total{{code=\"{code}\"}}")), 0, "{code}");
    }
    assert_eq!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"accepted\"}"), seqs.len() as u64);
    assert!(counter(&hub, "perfwatch_ingest_snapshots_total{outcome=\"duplicate\"}") <= KILLS);
}

#[test]
fn hub_controls_the_agent_interval() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hub.yaml");
    std::fs::write(&config, "hub:\n  listen: 127.0.0.1:0\n  interval: 250ms\n").unwrap();
    let hub = TestHub::start_with(folder.path(), &["hub", "--config", config.to_str().unwrap()]);
    let agent = start_agent(folder.path(), &hub, "2s");
    eventually("the agent ticks faster", || {
        hub.get("/api/v1/hosts/it").body["interval_ms"].as_u64().is_some_and(|ms| ms < 700)
    });
    eventually("the agent says so", || agent.log().contains("collection interval changed by the hub"));
    // Facts came along with the shape.
    assert!(hub.get("/api/v1/hosts/it").body["facts"]["cores"].as_u64().unwrap() > 0);
    let at = now_ms();
    assert_eq!(hub.post_json(&json!({ "host": "x", "timestamp": at })).body["interval_ms"], 250);
}
