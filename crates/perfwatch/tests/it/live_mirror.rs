//! Hubs that share live data through Redis: each shows every host, whichever hub the host reports to.

use crate::support::{ADMIN, TestHub, TestResponse, eventually, now_ms};
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch_testkit::Postgres;
use perfwatch_testkit::redis::Redis;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

fn start(folder: &Path, store: &str, redis: &Redis) -> TestHub {
    let url = redis.url();
    TestHub::start_with(folder, &["hub", "--listen", "127.0.0.1:0", "--store", store, "--redis", &url])
}

pub(crate) fn send(hub: &TestHub, usage: f64) {
    let body = json!({ "host": "web", "timestamp": now_ms(), "interval_ms": 1_000, "cpu": { "usage": usage },
                       "processes": { "top": [{ "pid": 1, "name": "init" }] } });
    let response = hub.post_json(&body);
    assert_eq!(response.body["accepted"], 1, "{}", response.text);
    // Snapshots with one time would be one.
    std::thread::sleep(Duration::from_millis(5));
}

/// Values of the recent window of a hub.
pub(crate) fn recent(hub: &TestHub) -> Vec<f64> {
    let response = hub.get("/api/metrics/recent?host=web&metric=cpu.usage");
    values(&response, "/series/0/values")
}

/// Values of the history as a hub reads it.
fn history(hub: &TestHub) -> Vec<f64> {
    let response = hub.get("/api/v1/hosts/web/export?format=csv&metric=cpu.usage&tier=raw&from=-1h");
    let lines = response.text.lines().skip(1);
    lines.filter_map(|line| line.split(',').nth(3)?.parse().ok()).collect()
}

fn values(response: &TestResponse, pointer: &str) -> Vec<f64> {
    let list = response.body.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_f64).collect()
}

#[test]
fn every_hub_shows_the_hosts_of_all_hubs() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (database, mut redis) = (Postgres::start(), Redis::start());
    let store = database.database("mirror");
    let (a, b) = (start(folders[0].path(), &store, &redis), start(folders[1].path(), &store, &redis));
    send(&a, 1.0);
    eventually("the other hub knows the host", || b.get("/api/v1/hosts/web").status == 200);
    // Live: a page at the other hub receives each snapshot.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut socket, _) = connect_async(b.websocket_url(&b.sign_token(ADMIN.0, ADMIN.1))).await.unwrap();
        let subscribe = json!({ "id": 1, "hosts": ["web"], "metrics": ["cpu.usage"], "backfill_s": 300 });
        socket.send(Message::Text(json!({ "subscribe": subscribe }).to_string().into())).await.unwrap();
        let mut wait_for = async |kind: &str| {
            let kind = format!("\"type\":\"{kind}\"");
            let is_kind = |message: &Message| message.to_text().is_ok_and(|text| text.contains(&kind));
            let wait = async { while !is_kind(&socket.next().await.unwrap().unwrap()) {} };
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect(&kind);
        };
        wait_for("backfill").await;
        send(&a, 2.0);
        wait_for("tick").await;
    });
    send(&b, 3.0);
    for hub in [&a, &b] {
        eventually("both hubs have all snapshots", || recent(hub) == [1.0, 2.0, 3.0]);
        assert_eq!(history(hub), [1.0, 2.0, 3.0]);
        assert_eq!(hub.get("/api/v1/hosts/web").body["status"], "online");
    }
    // A hub that starts has the recent window.
    let c = start(folders[2].path(), &store, &redis);
    eventually("the new hub has the recent window", || recent(&c) == [1.0, 2.0, 3.0]);
    assert_eq!(history(&c), [1.0, 2.0, 3.0]);
    // So has a hub that was killed: its rows are in its head, those of the others in Redis.
    drop(a);
    let a = start(folders[0].path(), &store, &redis);
    for hub in [&a, &b, &c] {
        eventually("each row is read once", || {
            recent(hub) == [1.0, 2.0, 3.0] && history(hub) == [1.0, 2.0, 3.0]
        });
    }
    // Redis hangs, and restarts empty: nothing is refused, each hub has its own snapshots at once, and the others
    // once Redis is back.
    redis.signal("STOP");
    send(&a, 4.0);
    assert_eq!(recent(&a), [1.0, 2.0, 3.0, 4.0]);
    redis.restart();
    send(&a, 5.0);
    for hub in [&b, &c] {
        eventually("the outage is made up for", || recent(hub) == [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(history(hub), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn alerts_continue_when_a_host_moves_to_another_hub() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (database, redis) = (Postgres::start(), Redis::start());
    let store = database.database("moves");
    let [a, b] = [0, 1].map(|index| start(folders[index].path(), &store, &redis));
    for existing in a.get("/api/v1/rules").body["rules"].as_array().unwrap() {
        let path = format!("/api/v1/rules/{}", existing["rule"]["id"].as_str().unwrap());
        assert_eq!(a.request("DELETE", &path, &a.token, &Value::Null).status, 204);
    }
    let condition = json!({ "kind": "threshold", "metric": "cpu.usage", "threshold": 90 });
    let rule = json!({ "name": "busy", "condition": condition, "for": "2m" });
    assert_eq!(a.request("POST", "/api/v1/rules", &a.token, &rule).status, 201);
    // Both hubs have evaluated the host.
    let start_ms = now_ms();
    let send_at = |hub: &TestHub, before_ms: i64, usage: f64| {
        let body = json!({ "host": "web", "timestamp": start_ms - before_ms, "interval_ms": 10_000,
                           "cpu": { "usage": usage } });
        assert_eq!(hub.post_json(&body).body["accepted"], 1);
    };
    send_at(&b, 200_000, 10.0);
    eventually("the first hub knows the host", || a.get("/api/v1/hosts/web").status == 200);
    for before_s in (20..=150).rev().step_by(10) {
        send_at(&a, before_s * 1_000, 99.0);
    }
    let firing =
        |hub: &TestHub| hub.get("/api/v1/incidents").body["incidents"].as_array().map_or(0, Vec::len);
    eventually("the other hub has the snapshots", || recent(&b).len() == 15);
    send_at(&b, 0, 99.0);
    eventually("the alert fires", || firing(&b) == 1);
}
