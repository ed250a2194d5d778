//! Two hubs on one database: changes of accounts, agents, rules and alerts propagate.

use crate::support::{ADMIN, TestHub, eventually, holds_for, now_ms};
use futures_util::StreamExt as _;
use perfwatch_testkit::Postgres;
use perfwatch_testkit::recorder::HttpRecorder;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Two hubs with separate data directories and a shared database.
struct TestInstall {
    _folders: [tempfile::TempDir; 2],
    _database: Postgres,
}

impl TestInstall {
    fn start() -> (Self, TestHub, TestHub) {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let database = Postgres::start();
        let url = database.database("shared");
        let start = |folder: &tempfile::TempDir| {
            TestHub::start_with(folder.path(), &["hub", "--listen", "127.0.0.1:0", "--store", &url])
        };
        let (a, b) = (start(&folders[0]), start(&folders[1]));
        (Self { _folders: folders, _database: database }, a, b)
    }
}

/// A hub whose database does not respond must not receive agents that another hub could serve.
#[test]
fn hub_is_not_ready_while_the_database_hangs() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Postgres::start());
    let url = server.database("hanging");
    let hub = TestHub::start_with(folder.path(), &["hub", "--listen", "127.0.0.1:0", "--store", &url]);
    let has_status = |status| hub.get("/readyz").status == status;
    eventually("the hub is ready", || has_status(200));
    std::thread::scope(|scope| {
        scope.spawn(|| server.query("hanging", "BEGIN; LOCK TABLE lease; SELECT pg_sleep(9); COMMIT"));
        eventually("the hub is not ready", || has_status(503));
        eventually("the hub is ready again", || has_status(200));
    });
}

#[test]
fn changes_propagate_between_hubs() {
    let (install, a, b) = TestInstall::start();
    // A user created at one hub logs in at the other.
    let body = json!({ "name": "vera", "password": "viewer-password-1", "role": "viewer" });
    let user_id = a.admin_request("POST", "/api/v1/users", &body).body["id"].as_str().unwrap().to_owned();
    let login = json!({ "name": "vera", "password": "viewer-password-1" });
    let mut signed = String::new();
    eventually("the other hub knows the user", || {
        let response = b.request("POST", "/api/v1/auth/token", "", &login);
        signed = response.body["token"].as_str().unwrap_or_default().to_owned();
        response.status == 200
    });
    assert_eq!(
        a.request("GET", "/api/v1/hosts", &signed, &Value::Null).status,
        200,
        "both hubs use the same signing keys"
    );
    // Disabling the user at one hub closes their stream at the other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut socket, _) = connect_async(b.websocket_url(&signed)).await.unwrap();
        let path = format!("/api/v1/users/{user_id}");
        assert_eq!(a.admin_request("PATCH", &path, &json!({ "enabled": false })).status, 200);
        let started = now_ms();
        let code = loop {
            match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
                Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(code == 4401 && now_ms() - started < 5_000, "{code} after {} ms", now_ms() - started);
    });
    // An agent enrolled at one hub sends to the other, until it is revoked at the first.
    let created = a.request("POST", "/api/v1/enrollment-tokens", &a.token, &json!({ "name": "x" }));
    let host = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let enrollment = json!({ "token": created.body["token"], "host_id": host, "host_name": "it" });
    let agent = a.request("POST", "/api/v1/agents/enroll", "", &enrollment).body;
    let (id, secret) = (agent["agent_id"].as_str().unwrap(), agent["secret"].as_str().unwrap());
    let send = || {
        let body = json!({ "host": "it", "host_id": host, "seq": now_ms(), "cpu": { "usage": 1 } });
        let response = b.request("POST", "/ingest/metrics", secret, &body);
        (response.status, response.code().to_owned())
    };
    eventually("the other hub accepts snapshots", || send().0 == 200);
    assert_eq!(a.request("POST", &format!("/api/v1/agents/{id}/revoke"), &a.token, &Value::Null).status, 200);
    eventually("the other hub rejects snapshots", || send() == (403, "agent_revoked".to_owned()));
    // A new name that both hubs receive at once is a single host.
    let by_name = |name: &str| json!({ "host": name, "timestamp": now_ms(), "cpu": { "usage": 1 } });
    let send_to_both = |name: &str| {
        std::thread::scope(|scope| {
            let (first, second) =
                (scope.spawn(|| a.post_json(&by_name(name))), scope.spawn(|| b.post_json(&by_name(name))));
            [first.join().unwrap().status, second.join().unwrap().status]
        })
    };
    let names: Vec<String> = (0..20).map(|number| format!("script-{number}")).collect();
    for name in &names {
        assert_eq!(send_to_both(name), [200, 200]);
    }
    eventually("both hubs know all hosts once", || {
        [&a, &b].iter().all(|hub| hub.get("/api/v1/hosts").body["total"] == names.len() + 1)
    });
    assert!(names.iter().all(|name| send_to_both(name) == [200, 200]));
    drop(install);
}

#[test]
fn concurrent_changes_conflict_or_apply_once() {
    let (install, a, b) = TestInstall::start();
    let body = json!({ "name": "vera", "password": "viewer-password-1", "role": "viewer" });
    let user_id = a.admin_request("POST", "/api/v1/users", &body).body["id"].as_str().unwrap().to_owned();
    eventually("the other hub knows the user", || b.get("/api/v1/users").text.contains("vera"));
    // Concurrent changes of a user are applied or rejected as a whole.
    let path = format!("/api/v1/users/{user_id}");
    for round in 0..10 {
        let tags = |hub: &str| json!({ "host_tags": [format!("{hub}{round}")], "enabled": true });
        let change = |hub: &TestHub, name: &str| hub.admin_request("PATCH", &path, &tags(name)).status;
        let codes = std::thread::scope(|scope| {
            let (first, second) = (scope.spawn(|| change(&a, "a")), scope.spawn(|| change(&b, "b")));
            [first.join().unwrap(), second.join().unwrap()]
        });
        assert!(codes.iter().all(|code| [200, 409].contains(code)) && codes.contains(&200), "{codes:?}");
    }
    // If two administrators delete each other at the same time, exactly one remains.
    let body = json!({ "name": "root", "password": "initial-password-2", "role": "admin" });
    let root_id = a.admin_request("POST", "/api/v1/users", &body).body["id"].as_str().unwrap().to_owned();
    let admin_id =
        a.request("GET", "/api/v1/auth/me", &a.token, &Value::Null).body["id"].as_str().unwrap().to_owned();
    eventually("root logs in at the other hub", || {
        let login = json!({ "name": "root", "password": "initial-password-2" });
        b.request("POST", "/api/v1/auth/token", "", &login).status == 200
    });
    let root = b.log_in_confirmed("root", "initial-password-2");
    std::thread::scope(|scope| {
        let (b, root) = (&b, &root);
        scope.spawn(|| a.admin_request("DELETE", &format!("/api/v1/users/{root_id}"), &Value::Null));
        let path = format!("/api/v1/users/{admin_id}");
        scope.spawn(move || b.browser_request("DELETE", &path, root, &Value::Null));
    });
    eventually("one administrator remains", || {
        let can_log_in = |name: &str, password: &str| {
            let body = json!({ "name": name, "password": password });
            b.request("POST", "/api/v1/auth/token", "", &body).status == 200
        };
        can_log_in(ADMIN.0, ADMIN.1) != can_log_in("root", "initial-password-2")
    });
    drop(install);
}

#[test]
fn two_hubs_notify_once_and_share_last_seen() {
    let (install, a, b) = TestInstall::start();
    let recorder = HttpRecorder::start();
    for existing in a.get("/api/v1/rules").body["rules"].as_array().unwrap() {
        let path = format!("/api/v1/rules/{}", existing["rule"]["id"].as_str().unwrap());
        assert_eq!(a.request("DELETE", &path, &a.token, &Value::Null).status, 204);
    }
    let condition = json!({ "kind": "threshold", "metric": "cpu.usage", "threshold": 90 });
    let busy = json!({ "name": "busy", "condition": condition });
    let down = json!({ "name": "down", "condition": { "kind": "no_data", "grace": "5s" } });
    for rule in [busy, down] {
        assert_eq!(a.request("POST", "/api/v1/rules", &a.token, &rule).status, 201);
    }
    let hook = json!({ "name": "hook", "kind": "webhook", "settings": { "url": recorder.url() } });
    assert_eq!(b.request("POST", "/api/v1/channels", &b.token, &hook).status, 201);
    // A load balancer may alternate the ticks of a host between the hubs.
    let send = |usage: f64| {
        for hub in [&a, &b] {
            let body =
                json!({ "host": "it", "seq": now_ms(), "interval_ms": 1_000, "cpu": { "usage": usage } });
            assert_eq!(hub.post_json(&body).status, 200);
            // Elapsed time between two ticks.
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let reasons = || {
        let page = a.get("/api/v1/notifications?limit=50").body;
        let newest_first = page["notifications"].as_array().cloned().unwrap_or_default();
        let reason = |notification: &Value| notification["reason"].as_str().unwrap().to_owned();
        newest_first.iter().rev().map(reason).collect::<Vec<_>>()
    };
    // The host receives its id at one hub, and the other hub reads it from the database.
    eventually("both know the host", || {
        a.post_json(&json!({ "host": "it", "cpu": { "usage": 10 } }));
        b.get("/api/v1/hosts/it").status == 200
    });
    for _ in 0..8 {
        send(99.0);
    }
    eventually("a notification is created", || reasons().len() == 1);
    for hub in [&a, &b] {
        eventually("both hubs know the incident", || {
            hub.get("/api/v1/incidents").body["incidents"].as_array().unwrap().len() == 1
        });
    }
    // One hub receives all ticks: it resolves the alert, and no hub reports missing data.
    for _ in 0..25 {
        a.post_json(&json!({ "host": "it", "interval_ms": 1_000, "cpu": { "usage": 10 } }));
        // Elapsed time between two ticks; 25 ticks are several grace periods.
        std::thread::sleep(Duration::from_millis(1_000));
    }
    assert_eq!(reasons(), ["opened", "resolved"]);
    // The other hub knows that the alert is resolved, and fires it again.
    eventually("a third notification is created", || {
        b.post_json(&json!({ "host": "it", "interval_ms": 1_000, "cpu": { "usage": 99 } }));
        reasons().len() == 3
    });
    assert_eq!(reasons()[2], "reopened");
    drop(install);
}

/// Hubs that hold leases of tasks now, without the number of their process.
const LEASE_HOLDERS: &str = "SELECT DISTINCT split_part(holder, ' ', 1) FROM lease WHERE name NOT LIKE 'hub %' \
     AND until_ms > extract(epoch FROM clock_timestamp()) * 1000";

#[test]
fn leases_move_when_a_hub_stops_or_hangs() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let database = Postgres::start();
    let url = database.database("shared");
    let start = |index: usize, id: &str| {
        let args = ["hub", "--listen", "127.0.0.1:0", "--store", &url];
        TestHub::start_with_env(folders[index].path(), &args, &[("PERFWATCH_HUB_ID", id)])
    };
    let holder = || database.query("shared", LEASE_HOLDERS);
    let a = start(0, "a");
    assert_eq!(holder(), "a");
    let mut b = start(1, "b");
    a.process.signal("STOP");
    eventually("another hub runs the tasks of a suspended hub", || holder() == "b");
    a.process.signal("CONT");
    holds_for(Duration::from_secs(3), "the hub that runs again leaves them there", || holder() == "b");
    assert_eq!(b.process.terminate(), 0);
    // The leases of a hub that stopped are free; those of a killed hub end with time.
    let free =
        "SELECT count(*) FROM lease WHERE holder LIKE 'b %' AND name NOT LIKE 'hub %' AND until_ms > 0";
    assert_eq!(database.query("shared", free), "0");
    eventually("the first hub continues", || holder() == "a");
    let _b = start(1, "b");
    a.process.kill();
    eventually("another hub runs the tasks of a killed hub", || holder() == "b");
}
