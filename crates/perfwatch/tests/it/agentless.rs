//! Agentless hosts with real OpenSSH servers: collection or a precise cause of failure, a queue that
//! neither loses nor repeats jobs, secrets that never appear in plaintext.

use crate::support::{TestHub, current_user, eventually, holds_for, now_ms, require_root, until_stable};
use futures_util::SinkExt as _;
use perfwatch_testkit::Postgres;
use perfwatch_testkit::redis::Redis;
use perfwatch_testkit::sshd::{FaultScript, FaultyServer, PASSWORD, Sshd, USER};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Loopback address of a test server; distinct per test, so that tests can run in parallel.
pub(crate) fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 8, last)
}

/// Path of a capture fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../perfwatch-collect/fixtures/hosts").join(name)
}

/// Body that creates an enabled server, with an interval longer than any test.
pub(crate) fn server_request(name: &str, address: SocketAddr, user: &str, credentials: &Value) -> Value {
    json!({ "name": name, "address": address.ip().to_string(), "port": address.port(), "user": user,
            "credentials": credentials, "interval": "24h", "enabled": true })
}

pub(crate) fn request_with_key(name: &str, server: &Sshd, kind: &str) -> Value {
    server_request(
        name,
        server.address(),
        &current_user(),
        &json!({ "kind": "key", "key": server.key(kind) }),
    )
}

pub(crate) fn create_server(hub: &TestHub, request: &Value) -> String {
    let response = hub.request("POST", "/api/v1/servers", &hub.token, request);
    assert_eq!(response.status, 201, "{}", response.text);
    response.body["id"].as_str().unwrap().to_owned()
}

pub(crate) fn server(hub: &TestHub, id: &str) -> Value {
    hub.get(&format!("/api/v1/servers/{id}")).body
}

/// Returns the newest snapshot of a host.
fn newest_snapshot(hub: &TestHub, id: &str) -> Value {
    let recent = hub.get(&format!("/api/metrics/recent?host={id}")).body;
    recent["snapshots"].as_array().and_then(|snapshots| snapshots.last().cloned()).unwrap_or_default()
}

fn post(hub: &TestHub, path: &str) -> u16 {
    hub.request("POST", path, &hub.token, &json!({})).status
}

/// Waits for the first successful collection.
pub(crate) fn wait_for_collection(hub: &TestHub, id: &str) {
    eventually("the server is collected", || !server(hub, id)["last_success_ms"].is_null());
}

/// Returns the collections and connection tests of a server, newest first.
fn collections(hub: &TestHub, id: &str) -> Vec<Value> {
    let page = hub.get(&format!("/api/v1/servers/{id}/collections")).body;
    page["collections"].as_array().cloned().unwrap_or_default()
}

pub(crate) fn queue_stats(hub: &TestHub) -> Value {
    hub.get("/api/v1/servers/metrics/queue/stats").body
}

#[test]
fn collection_succeeds_or_reports_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let plain = Sshd::start(loopback(1), &["MaxSessions 1"]);
    let fixtures: Vec<(&str, Sshd)> =
        [("raspberry-pi.2.capture", 2), ("kernel-2.6.capture", 3), ("debian12-vm.2.capture", 4)]
            .into_iter()
            .map(|(file, last)| {
                let command = format!("ForceCommand cat {}", fixture(file).display());
                (file, Sshd::start(loopback(last), &[&command]))
            })
            .collect();
    let key = create_server(&hub, &request_with_key("key", &plain, "ed25519"));
    let rsa = create_server(&hub, &request_with_key("rsa", &plain, "rsa"));
    let others: Vec<String> = fixtures
        .iter()
        .map(|(file, sshd)| create_server(&hub, &request_with_key(file, sshd, "ecdsa")))
        .collect();
    let unreachable = create_server(
        &hub,
        &server_request(
            "unreachable",
            (loopback(9), 1).into(),
            "x",
            &json!({ "kind": "password", "password": "y" }),
        ),
    );
    for id in [&key, &rsa].into_iter().chain(&others) {
        wait_for_collection(&hub, id);
    }
    // Snapshots contain rates; the server is a host like any other.
    let snapshot = newest_snapshot(&hub, &key);
    assert!(
        snapshot["cpu"]["usage"].is_number() && snapshot["memory"]["used_percent"].is_number(),
        "{snapshot}"
    );
    let host = hub.get("/api/v1/hosts/key").body;
    assert_eq!((host["id"].as_str(), host["collection_method"].as_str()), (Some(key.as_str()), Some("ssh")));
    assert_eq!(host["status"], "online");
    assert!(
        hub.get(&format!("/api/v1/hosts/{}", others[0])).body["facts"]["cpu_model"]
            .as_str()
            .unwrap()
            .contains("Raspberry")
    );
    // The host key is pinned on first use; another key blocks the server.
    assert!(server(&hub, &key)["host_key"].as_str().unwrap().starts_with("ssh-ed25519 SHA256:"));
    let (_, mut changed) = fixtures.into_iter().next_back().unwrap();
    changed.change_host_key();
    assert_eq!(post(&hub, &format!("/api/v1/servers/{}/collect", others[2])), 202);
    eventually("the server is blocked", || {
        server(&hub, &others[2])["blocked"]["cause"] == "host_key_changed"
    });
    let blocked = server(&hub, &others[2]);
    assert!(
        blocked["next_run_ms"].is_null()
            && blocked["last"]["error"].as_str().unwrap().contains("host key changed"),
        "{blocked}"
    );
    let offered_key = blocked["blocked"]["offered_host_key"].clone();
    let path = format!("/api/v1/servers/{}/host-key", others[2]);
    assert_eq!(
        hub.request("PUT", &path, &hub.token, &json!({ "host_key": "ssh-ed25519 SHA256:other" })).status,
        409
    );
    assert_eq!(hub.request("PUT", &path, &hub.token, &json!({ "host_key": offered_key })).status, 200);
    eventually("the server is collected again", || server(&hub, &others[2])["last"]["cause"].is_null());
    assert_retry_schedule(&hub, &unreachable);
    assert_disable_and_delete(&hub, &rsa, &plain);
}

/// A failed job is attempted four times, at 0, 5, 15 and 35 s; the next job is scheduled.
fn assert_retry_schedule(hub: &TestHub, id: &str) {
    eventually("all attempts were made", || collections(hub, id).len() == 4);
    let attempts = collections(hub, id);
    let numbers: Vec<i64> = attempts.iter().map(|attempt| attempt["attempt"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    let finished_ms = |attempt: &Value| attempt["finished_ms"].as_i64().unwrap();
    let first_ms = finished_ms(&attempts[3]);
    let delays: Vec<i64> = attempts.iter().rev().map(|attempt| finished_ms(attempt) - first_ms).collect();
    for (delay, expected) in delays.iter().zip([0, 5_000, 15_000, 35_000]) {
        assert!((expected..expected + 4_000).contains(delay), "{delays:?}");
    }
    assert_eq!(attempts[0]["cause"], "unreachable");
    assert!(!server(hub, id)["next_run_ms"].is_null());
    let stats = queue_stats(hub);
    assert_eq!((stats["failed"].as_i64(), stats["active"].as_i64()), (Some(2), Some(0)), "{stats}");
}

fn assert_disable_and_delete(hub: &TestHub, rsa: &str, plain: &Sshd) {
    let change = json!({ "name": "rsa", "address": plain.address().ip().to_string(),
                         "port": plain.address().port(),
                         "user": current_user(), "credentials": { "kind": "key" }, "enabled": false });
    assert_eq!(hub.request("PUT", &format!("/api/v1/servers/{rsa}"), &hub.token, &change).status, 200);
    eventually("the host is disabled", || hub.get("/api/v1/hosts/rsa").body["status"] == "disabled");
    assert!(server(hub, rsa)["next_run_ms"].is_null());
    assert_eq!(
        hub.request("DELETE", &format!("/api/v1/servers/{rsa}"), &hub.token, &Value::Null).status,
        204
    );
    assert_eq!(
        (hub.get(&format!("/api/v1/servers/{rsa}")).status, hub.get("/api/v1/hosts/rsa").status),
        (404, 404)
    );
}

#[test]
fn connection_test_reports_each_stage() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let sshd = Sshd::start(loopback(11), &[]);
    let mut request = request_with_key("tested", &sshd, "ed25519");
    request["enabled"] = false.into();
    let test = |body: &Value| hub.request("POST", "/api/v1/servers/test", &hub.token, body);
    let response = test(&json!({ "server": request }));
    assert_eq!(response.body["ok"], true, "{}", response.text);
    let steps: Vec<&str> = response.body["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["stage"].as_str().unwrap())
        .collect();
    assert_eq!(steps[..5], ["resolve", "connect", "handshake", "authenticate", "shell"]);
    // The test of an unsaved server stores nothing.
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    let id = create_server(&hub, &request);
    assert_eq!(post(&hub, &format!("/api/v1/servers/{id}/test")), 200);
    let tests = collections(&hub, &id);
    assert_eq!((tests[0]["trigger"].as_str(), tests.len()), (Some("test"), 1));
    // Stored credentials are used if the request has none, but only for the same address and user.
    request["credentials"] = json!({ "kind": "key" });
    assert_eq!(test(&json!({ "id": id, "server": request })).body["ok"], true);
    request["user"] = "someone".into();
    assert_eq!(test(&json!({ "id": id, "server": request })).code(), "invalid_server");
    let faulty = FaultyServer::start(FaultScript::Reset);
    let credentials = json!({ "kind": "password", "password": "y" });
    let response = test(&json!({ "server": server_request("bad", faulty.address(), "x", &credentials) }));
    assert_eq!(
        (response.body["stage"].as_str(), response.body["cause"].as_str()),
        (Some("handshake"), Some("connection_closed"))
    );
    // Validation errors name the field.
    for (field, value) in
        [("interval", json!("30s")), ("address", json!("a b")), ("port", json!(0)), ("name", json!(""))]
    {
        let mut bad = request_with_key("bad", &sshd, "ed25519");
        bad[field] = value;
        let response = hub.request("POST", "/api/v1/servers", &hub.token, &bad);
        assert!(response.status == 422 && response.text.contains(field), "{}", response.text);
    }
    let response =
        hub.request("POST", "/api/v1/servers", &hub.token, &request_with_key("tested", &sshd, "ed25519"));
    assert_eq!(response.code(), "name_taken");
}

#[test]
fn wrong_password_is_tried_once_and_never_logged() {
    require_root("sshd can check passwords as root only");
    let folder = tempfile::tempdir().unwrap();
    let env = [("PERFWATCH_LOG_LEVEL", "trace")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    let sshd = Sshd::start_with_passwords(loopback(21), &[]);
    let (wrong, passphrase) = ("a-wrong-password", "a-key-passphrase");
    let mut request =
        server_request("locked", sshd.address(), USER, &json!({ "kind": "password", "password": wrong }));
    request["interval"] = "1m".into();
    let id = create_server(&hub, &request);
    eventually("the server is blocked", || server(&hub, &id)["blocked"]["cause"] == "authentication_failed");
    assert_eq!(post(&hub, &format!("/api/v1/servers/{id}/collect")), 409);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/collect-all"), 202);
    // A restart does not unblock it.
    let address = hub.address.clone();
    let log = hub.process.log();
    hub.process.kill();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", &address], &env);
    // Longer than the first retry delay of 5 s.
    let failures = || sshd.log().matches("Failed password").count();
    holds_for(Duration::from_secs(7), "the password was tried once", || failures() == 1);
    // New credentials unblock the server.
    request["credentials"]["password"] = PASSWORD.into();
    let response = hub.request("PUT", &format!("/api/v1/servers/{id}"), &hub.token, &request);
    assert!(response.status == 200 && response.body["blocked"].is_null(), "{}", response.text);
    wait_for_collection(&hub, &id);
    // A stored password is never sent to another address.
    let mut moved = server_request("locked", (loopback(22), 22).into(), USER, &json!({ "kind": "password" }));
    moved["tags"] = json!(["a=b"]);
    let response = hub.request("PUT", &format!("/api/v1/servers/{id}"), &hub.token, &moved);
    assert!(response.status == 422 && response.text.contains("credentials.password"), "{}", response.text);
    let mut keyed = request_with_key("keyed", &sshd, "ed25519");
    keyed["credentials"]["passphrase"] = passphrase.into();
    keyed["enabled"] = false.into();
    create_server(&hub, &keyed);
    // No secret in responses, logs, database and backup.
    let responses = [
        hub.get("/api/v1/servers").text,
        hub.get("/api/v1/audit").text,
        hub.get(&format!("/api/v1/servers/{id}/collections")).text,
    ];
    let backup = folder.path().join("backup.db");
    let data = folder.path().join("hub");
    let arguments = ["backup", backup.to_str().unwrap()];
    let mut command = std::process::Command::new(crate::support::BINARY);
    assert!(command.args(arguments).env("PERFWATCH_DATA", &data).status().unwrap().success());
    let mut texts: Vec<(String, Vec<u8>)> =
        responses.into_iter().map(|text| ("api".to_owned(), text.into_bytes())).collect();
    texts.extend([("log".to_owned(), (log + &hub.process.log()).into_bytes())]);
    texts.push(("backup".to_owned(), std::fs::read(&backup).unwrap()));
    for entry in std::fs::read_dir(data.join("history")).unwrap().flatten() {
        texts.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap_or_default()));
    }
    let private: String = keyed["credentials"]["key"].as_str().unwrap().lines().nth(1).unwrap().to_owned();
    for secret in [wrong, PASSWORD, passphrase, &private] {
        for (source, text) in &texts {
            assert!(
                !text.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()),
                "{source} contains {secret:?}"
            );
        }
    }
    assert!(hub.get("/api/v1/audit").text.contains("server.update_credentials"));
}

/// Disables the API rate limit in practice: tests poll often.
pub(crate) const NO_RATE_LIMIT: (&str, &str) = ("PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND", "100000");

/// Counts the successful manual collections of each server.
fn manual_collections(hub: &TestHub, ids: &[String]) -> BTreeMap<String, usize> {
    let is_success = |collection: &&Value| collection["trigger"] == "manual" && collection["cause"].is_null();
    let count = |id: &String| (id.clone(), collections(hub, id).iter().filter(is_success).count());
    ids.iter().map(count).collect()
}

/// Creates servers and waits for their first collection.
fn create_fleet(hub: &TestHub, sshd: &Sshd, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count)
        .map(|number| create_server(hub, &request_with_key(&format!("host-{number:02}"), sshd, "ed25519")))
        .collect();
    for id in &ids {
        wait_for_collection(hub, id);
    }
    ids
}

#[test]
fn crashed_hub_runs_each_job_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &[NO_RATE_LIMIT]);
    let command = format!("ForceCommand sleep 1; cat {}", fixture("raspberry-pi.2.capture").display());
    let sshd = Sshd::start(loopback(31), &[&command]);
    let ids = create_fleet(&hub, &sshd, 12);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/queue/pause"), 204);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/collect-all"), 202);
    // A paused queue keeps its jobs.
    holds_for(Duration::from_secs(2), "all jobs wait in the paused queue", || {
        let stats = queue_stats(&hub);
        stats["paused"] == true && stats["waiting"] == 12 && stats["active"] == 0
    });
    assert_eq!(post(&hub, "/api/v1/servers/metrics/queue/resume"), 204);
    eventually("some jobs are completed and some are active", || {
        let completed = manual_collections(&hub, &ids).values().any(|count| *count > 0);
        completed && queue_stats(&hub)["active"].as_i64() > Some(0)
    });
    let address = hub.address.clone();
    hub.process.kill();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", &address], &[NO_RATE_LIMIT]);
    eventually("all jobs are completed", || manual_collections(&hub, &ids).values().all(|count| *count > 0));
    // Longer than one collection, so that a repeated job would be counted.
    let counts = until_stable(Duration::from_secs(3), || manual_collections(&hub, &ids));
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let stats = queue_stats(&hub);
    assert_eq!(
        (stats["waiting"].as_i64(), stats["active"].as_i64(), stats["delayed"].as_i64()),
        (Some(0), Some(0), Some(12)),
        "{stats}"
    );
}

#[test]
fn two_hubs_share_the_queue() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let database = Postgres::start();
    let url = database.database("servers");
    let (key, mut redis) = ("ab".repeat(32), Redis::start());
    let start = |folder: &tempfile::TempDir| {
        let args = ["hub", "--listen", "127.0.0.1:0", "--store", &url, "--redis", &redis.url()];
        TestHub::start_with_env(
            folder.path(),
            &args,
            &[("PERFWATCH_HUB_ENCRYPTION_KEY", &key), NO_RATE_LIMIT],
        )
    };
    let (a, b) = (start(&folders[0]), start(&folders[1]));
    let command = format!("ForceCommand sleep 0.3; cat {}", fixture("raspberry-pi.2.capture").display());
    let sshd = Sshd::start(loopback(41), &[&command]);
    let ids = create_fleet(&a, &sshd, 16);
    for round in 1..=2 {
        assert_eq!(post(if round == 1 { &a } else { &b }, "/api/v1/servers/metrics/collect-all"), 202);
        eventually("all jobs are completed", || {
            manual_collections(&b, &ids).values().all(|count| *count >= round)
        });
    }
    // Longer than one collection, so that a repeated job would be counted.
    let counts = until_stable(Duration::from_secs(2), || manual_collections(&a, &ids));
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    let total = |hub: &TestHub| {
        let text = hub.get("/metrics").text;
        let success = "perfwatch_ssh_collections_total{outcome=\"success\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(success));
        line.map_or(0, |count| count.parse::<i64>().unwrap())
    };
    let (of_a, of_b) = (total(&a), total(&b));
    assert!(of_a > 0 && of_b > 0 && of_a + of_b == 48, "{of_a} and {of_b}");
    // With Redis, both hubs have the summaries of all servers.
    let summaries = |hub: &TestHub| {
        let servers = hub.get("/api/v1/servers").body["servers"].clone();
        servers.as_array().unwrap().iter().filter(|server| server["summary"]["memory"].is_f64()).count()
    };
    assert_eq!((summaries(&a), summaries(&b)), (16, 16));
    let total = b.get("/api/v1/servers/summary").body;
    assert!(total["servers"] == 16 && total["top_memory"].as_array().unwrap().len() == 3, "{total}");
    let viewer = ("vera", "viewer-password-1");
    crate::access::add_user(&b, viewer, "viewer", &["team=none"]);
    let signed = b.sign_token(viewer.0, viewer.1);
    let limited = b.request("GET", "/api/v1/servers/summary", &signed, &Value::Null);
    assert!(limited.body["servers"] == 0 && limited.body["top_cpu"] == json!([]), "{}", limited.text);
    // Without Redis, a hub has the summaries of the collections that it ran.
    redis.kill();
    assert!(summaries(&a) > 0 && summaries(&b) > 0, "{} {}", summaries(&a), summaries(&b));
    // The remaining hub takes over the jobs of a killed hub.
    a.process.kill();
    assert_eq!(post(&b, "/api/v1/servers/metrics/collect-all"), 202);
    eventually("all jobs are completed by the remaining hub", || {
        manual_collections(&b, &ids).values().all(|count| *count >= 3)
    });
}

#[test]
fn on_demand_polling_uses_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let sshd = Sshd::start(loopback(51), &["MaxSessions 1"]);
    let mut request = request_with_key("watched", &sshd, "ed25519");
    request["thresholds"] = json!({ "cpu": null, "memory": 1, "disk": null });
    let id = create_server(&hub, &request);
    wait_for_collection(&hub, &id);
    let connections = || sshd.log().matches("Accepted publickey").count();
    assert_eq!(connections(), 1);
    let before = hub.seqs(&id).len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = format!("ws://{}/api/ws/metrics", hub.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", hub.token).parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        let message = json!({ "subscribe": { "id": 1, "hosts": [id] } });
        socket.send(Message::Text(message.to_string().into())).await.unwrap();
        let started = now_ms();
        while hub.seqs(&id).len() < before + 3 {
            assert!(now_ms() - started < 40_000, "{:?}", hub.seqs(&id));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!((connections(), queue_stats(&hub)["open_connections"].as_i64()), (2, Some(1)));
        socket.close(None).await.unwrap();
    });
    // Polling ends with the last viewer.
    eventually("the connection is closed", || queue_stats(&hub)["open_connections"] == 0);
    let after = hub.seqs(&id).len();
    // Longer than the polling interval.
    holds_for(Duration::from_secs(7), "the host is not polled any more", || hub.seqs(&id).len() == after);
    assert_eq!(connections(), 2);
    // The server's threshold is a managed rule: it fires, and can be changed through the server only.
    let active = || hub.get("/api/v1/incidents").text;
    eventually("the alert fires", || active().contains("Memory above 1% (agentless)"));
    assert!(hub.get("/api/v1/audit").text.contains("server.threshold_exceeded"));
    let rules = hub.get("/api/v1/rules").body["rules"].clone();
    let managed: Vec<&Value> =
        rules.as_array().unwrap().iter().filter(|rule| rule["managed"] == true).collect();
    assert_eq!(managed.len(), 1);
    let path = format!("/api/v1/rules/{}", managed[0]["rule"]["id"].as_str().unwrap());
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).code(), "managed_rule");
    // On-demand polling does not change the interval of the host.
    assert_eq!(hub.get("/api/v1/hosts/watched").body["interval_ms"], 86_400_000);
}

#[test]
fn import_from_ssh_config_and_csv() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let import = |format: &str, text: &str, dry_run: bool, options: Value| {
        let mut request = json!({ "format": format, "text": text, "dry_run": dry_run, "tags": ["env=lab"],
            "enabled": false });
        request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        hub.request("POST", "/api/v1/servers/import", &hub.token, &request)
    };
    let config = "Host gate\n HostName 192.0.2.1\nHost *.lab\n User lab\n\
                  Host a.lab b.lab\n ProxyJump gate\nHost gate\n User late\n";
    let credentials = json!({ "credentials": { "kind": "password", "password": "p" } });
    // A dry run stores nothing.
    let response = import("ssh_config", config, true, credentials.clone());
    assert_eq!((response.status, response.body["created"].as_i64()), (200, Some(3)), "{}", response.text);
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    // The import is atomic: one invalid entry rejects all.
    let invalid = format!("{config}Host bad\n Port many\n");
    let response = import("ssh_config", &invalid, false, credentials.clone());
    assert!(response.code() == "invalid_import" && response.text.contains("bad"), "{}", response.text);
    assert_eq!(import("ssh_config", config, false, credentials).body["created"], 3);
    let servers = hub.get("/api/v1/servers").body["servers"].clone();
    let gate = servers.as_array().unwrap().iter().find(|server| server["name"] == "gate").unwrap();
    assert_eq!((gate["user"].as_str(), gate["tags"].clone()), (Some("late"), json!(["env=lab"])));
    let behind = servers.as_array().unwrap().iter().filter(|server| server["jump"] == gate["id"]).count();
    assert_eq!(behind, 2);
    // Existing servers are left unchanged; a jump host in use cannot be deleted.
    let table = "name,address,user,password,interval\ngate,192.0.2.9,x,y,\nnew,192.0.2.3,x,y,5m\n";
    let response = import("csv", table, false, json!({}));
    assert_eq!(
        (response.body["created"].as_i64(), response.body["servers"][0]["exists"].as_bool()),
        (Some(1), Some(true))
    );
    let path = format!("/api/v1/servers/{}", gate["id"].as_str().unwrap());
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).code(), "server_in_use");
    assert_eq!(import("csv", "unknown\nvalue\n", true, json!({})).code(), "invalid_import");
}
