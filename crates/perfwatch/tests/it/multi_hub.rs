//! Two hubs on one database: who is let in, shut out or changed by one counts at the other.

use crate::support::{ADMIN, TestHub, eventually, now_ms};
use futures_util::StreamExt as _;
use perfwatch_testkit::Postgres;
use perfwatch_testkit::recorder::HttpRecorder;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// What two hubs share, and where each keeps its own.
struct TestInstall {
    _folders: [tempfile::TempDir; 2],
    _database: Postgres,
}

impl TestInstall {
    fn start() -> (Self, TestHub, TestHub) {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let database = Postgres::start();
        let url = database.database("people");
        let start = |folder: &tempfile::TempDir| {
            TestHub::start_with(folder.path(), &["hub", "--listen", "127.0.0.1:0", "--store", &url])
        };
        let (a, b) = (start(&folders[0]), start(&folders[1]));
        (Self { _folders: folders, _database: database }, a, b)
    }
}

#[test]
fn changes_propagate_between_hubs() {
    let (site, a, b) = TestInstall::start();
    // Someone let in by one logs in at the other.
    let body = json!({ "name": "vera", "password": "nothing but looking", "role": "viewer" });
    let vera = a.request("POST", "/api/v1/users", &a.token, &body).body["id"].as_str().unwrap().to_owned();
    let login = json!({ "name": "vera", "password": "nothing but looking" });
    let mut signed = String::new();
    eventually("the other hub knows her", || {
        let answer = b.request("POST", "/api/v1/auth/token", "", &login);
        signed = answer.body["token"].as_str().unwrap_or_default().to_owned();
        answer.status == 200
    });
    assert_eq!(a.request("GET", "/api/v1/hosts", &signed, &Value::Null).status, 200, "one key for both");
    // Shut out by one, her stream at the other ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = format!("ws://{}/api/ws/metrics?token={signed}", b.address);
        let (mut socket, _) = connect_async(stream).await.unwrap();
        let path = format!("/api/v1/users/{vera}");
        assert_eq!(a.request("PATCH", &path, &a.token, &json!({ "enabled": false })).status, 200);
        let began = now_ms();
        let code = loop {
            match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
                Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(code == 4401 && now_ms() - began < 5_000, "{code} after {} ms", now_ms() - began);
    });
    // An agent let in by one sends to the other; revoked by one, it is refused by the other.
    let made = a.request("POST", "/api/v1/enrollment-tokens", &a.token, &json!({ "name": "x" }));
    let host = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let enrol = json!({ "token": made.body["token"], "host_id": host, "host_name": "it" });
    let agent = a.request("POST", "/api/v1/agents/enroll", "", &enrol).body;
    let (id, secret) = (agent["agent_id"].as_str().unwrap(), agent["secret"].as_str().unwrap());
    let sends = || {
        let body = json!({ "host": "it", "host_id": host, "seq": now_ms(), "cpu": { "usage": 1 } });
        let answer = b.request("POST", "/ingest/metrics", secret, &body);
        (answer.status, answer.code().to_owned())
    };
    eventually("it sends to the other", || sends().0 == 200);
    assert_eq!(a.request("POST", &format!("/api/v1/agents/{id}/revoke"), &a.token, &Value::Null).status, 200);
    eventually("the other refuses it", || sends() == (403, "agent_revoked".to_owned()));
    drop(site);
}

#[test]
fn concurrent_changes_conflict_or_apply_once() {
    let (site, a, b) = TestInstall::start();
    let body = json!({ "name": "vera", "password": "nothing but looking", "role": "viewer" });
    let vera = a.request("POST", "/api/v1/users", &a.token, &body).body["id"].as_str().unwrap().to_owned();
    eventually("the other hub knows her", || b.get("/api/v1/users").text.contains("vera"));
    // Both change the same at one moment: each says what became of it, and nothing is half done.
    let path = format!("/api/v1/users/{vera}");
    for turn in 0..10 {
        let tags = |hub: &str| json!({ "host_tags": [format!("{hub}{turn}")], "enabled": true });
        let ask = |hub: &TestHub, name: &str| hub.request("PATCH", &path, &hub.token, &tags(name)).status;
        let codes = std::thread::scope(|scope| {
            let (first, second) = (scope.spawn(|| ask(&a, "a")), scope.spawn(|| ask(&b, "b")));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert!(codes.iter().all(|code| [200, 409].contains(code)) && codes.contains(&200), "{codes:?}");
    }
    // Two administrators can't remove each other, one on each hub.
    let body = json!({ "name": "root", "password": "another one of them", "role": "admin" });
    let root = a.request("POST", "/api/v1/users", &a.token, &body).body["id"].as_str().unwrap().to_owned();
    let me =
        a.request("GET", "/api/v1/auth/me", &a.token, &Value::Null).body["id"].as_str().unwrap().to_owned();
    let mut by_root = String::new();
    eventually("the other hub knows root", || {
        let login = json!({ "name": "root", "password": "another one of them" });
        by_root = b.request("POST", "/api/v1/auth/token", "", &login).body["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        !by_root.is_empty()
    });
    std::thread::scope(|scope| {
        scope.spawn(|| a.request("DELETE", &format!("/api/v1/users/{root}"), &a.token, &Value::Null));
        scope.spawn(|| b.request("DELETE", &format!("/api/v1/users/{me}"), &by_root, &Value::Null));
    });
    eventually("one of them is left", || {
        let enters = |name: &str, password: &str| {
            let body = json!({ "name": name, "password": password });
            b.request("POST", "/api/v1/auth/token", "", &body).status == 200
        };
        enters(ADMIN.0, ADMIN.1) != enters("root", "another one of them")
    });
    drop(site);
}

#[test]
fn two_hubs_notify_once_and_share_last_seen() {
    let (site, a, b) = TestInstall::start();
    let sink = HttpRecorder::start();
    for row in a.get("/api/v1/rules").body["rules"].as_array().unwrap() {
        let path = format!("/api/v1/rules/{}", row["rule"]["id"].as_str().unwrap());
        assert_eq!(a.request("DELETE", &path, &a.token, &Value::Null).status, 204);
    }
    let busy = json!({ "name": "busy", "when": { "kind": "value", "metric": "cpu.usage", "threshold": 90 } });
    let down = json!({ "name": "down", "when": { "kind": "silent", "grace": "5s" } });
    for rule in [busy, down] {
        assert_eq!(a.request("POST", "/api/v1/rules", &a.token, &rule).status, 201);
    }
    let hook = json!({ "name": "hook", "kind": "webhook", "settings": { "url": sink.url() } });
    assert_eq!(b.request("POST", "/api/v1/channels", &b.token, &hook).status, 201);
    // Each tick to the other hub, as a load balancer may do.
    let send = |usage: f64| {
        for hub in [&a, &b] {
            let body =
                json!({ "host": "it", "seq": now_ms(), "interval_ms": 1_000, "cpu": { "usage": usage } });
            assert_eq!(hub.post_json(&body).status, 200);
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let notices = || {
        let all =
            a.get("/api/v1/notifications?limit=50").body["messages"].as_array().cloned().unwrap_or_default();
        all.iter().rev().map(|one| one["notice"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The host gets its id at one of them and is learnt by the other.
    eventually("both know the host", || {
        a.post_json(&json!({ "host": "it", "cpu": { "usage": 10 } }));
        b.get("/api/v1/hosts/it").status == 200
    });
    for _ in 0..8 {
        send(99.0);
    }
    eventually("it is told", || notices().len() == 1);
    for hub in [&a, &b] {
        eventually("both know of it", || {
            hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 1
        });
    }
    // It goes to one of them alone now, which sees the end of it; nobody calls it silent meanwhile.
    for _ in 0..25 {
        a.post_json(&json!({ "host": "it", "interval_ms": 1_000, "cpu": { "usage": 10 } }));
        std::thread::sleep(Duration::from_millis(1_000));
    }
    assert_eq!(notices(), ["opened", "resolved"]);
    // And again at the other: an alert that it thought to fire still would say nothing.
    for _ in 0..3 {
        b.post_json(&json!({ "host": "it", "interval_ms": 1_000, "cpu": { "usage": 99 } }));
        std::thread::sleep(Duration::from_millis(500));
    }
    eventually("it is told again", || notices().len() == 3);
    assert_eq!(notices()[2], "reopened");
    drop(site);
}
