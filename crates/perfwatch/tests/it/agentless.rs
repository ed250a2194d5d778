//! Hosts without an agent, by OpenSSH's own server: they come in or say why not; the queue loses
//! nothing and does nothing twice; secrets stay secret.

use crate::support::{TestHub, eventually, now_ms};
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

pub(crate) fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 8, last)
}

pub(crate) fn me() -> String {
    String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../perfwatch-collect/fixtures/hosts").join(name)
}

pub(crate) fn server_request(name: &str, place: SocketAddr, user: &str, login: &Value) -> Value {
    json!({ "name": name, "address": place.ip().to_string(), "port": place.port(), "user": user, "login": login,
            "interval": "24h", "enabled": true })
}

pub(crate) fn by_key(name: &str, server: &Sshd, kind: &str) -> Value {
    server_request(name, server.address(), &me(), &json!({ "kind": "key", "key": server.key(kind) }))
}

pub(crate) fn create(hub: &TestHub, wish: &Value) -> String {
    let answer = hub.request("POST", "/api/v1/servers", &hub.token, wish);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.body["id"].as_str().unwrap().to_owned()
}

pub(crate) fn server(hub: &TestHub, id: &str) -> Value {
    hub.get(&format!("/api/v1/servers/{id}")).body
}

/// The latest of a host, as JSON.
fn latest(hub: &TestHub, id: &str) -> Value {
    let recent = hub.get(&format!("/api/metrics/recent?host={id}")).body;
    recent["snapshots"].as_array().and_then(|all| all.last().cloned()).unwrap_or_default()
}

fn post(hub: &TestHub, path: &str) -> u16 {
    hub.request("POST", path, &hub.token, &json!({})).status
}

pub(crate) fn comes_in(hub: &TestHub, id: &str) {
    eventually("it was looked at", || !server(hub, id)["last_ok_ms"].is_null());
}

#[test]
fn collection_succeeds_or_reports_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let plain = Sshd::start(local(1), &["MaxSessions 1"]);
    let canned: Vec<(&str, Sshd)> =
        [("raspberry-pi.2.capture", 2), ("kernel-2.6.capture", 3), ("debian12-vm.2.capture", 4)]
            .into_iter()
            .map(|(file, last)| {
                let command = format!("ForceCommand cat {}", capture(file).display());
                (file, Sshd::start(local(last), &[&command]))
            })
            .collect();
    let key = create(&hub, &by_key("key", &plain, "ed25519"));
    let rsa = create(&hub, &by_key("rsa", &plain, "rsa"));
    let others: Vec<String> =
        canned.iter().map(|(file, sshd)| create(&hub, &by_key(file, sshd, "ecdsa"))).collect();
    let nobody = create(
        &hub,
        &server_request("nobody", (local(9), 1).into(), "x", &json!({ "kind": "password", "password": "y" })),
    );
    for id in [&key, &rsa].into_iter().chain(&others) {
        comes_in(&hub, id);
    }
    // With rates, with processes, as one host among others.
    let snapshot = latest(&hub, &key);
    assert!(
        snapshot["cpu"]["usage"].is_number() && snapshot["memory"]["used_percent"].is_number(),
        "{snapshot}"
    );
    let host = hub.get("/api/v1/hosts/key").body;
    assert_eq!((host["id"].as_str(), host["collected"].as_str()), (Some(key.as_str()), Some("ssh")));
    assert_eq!(host["status"], "online");
    assert!(
        hub.get(&format!("/api/v1/hosts/{}", others[0])).body["facts"]["cpu_model"]
            .as_str()
            .unwrap()
            .contains("Raspberry")
    );
    // Pinned on first use, and refused when it is another one.
    assert!(server(&hub, &key)["host_key"].as_str().unwrap().starts_with("ssh-ed25519 SHA256:"));
    let (_, mut moved) = canned.into_iter().next_back().unwrap();
    moved.change_host_key();
    assert_eq!(post(&hub, &format!("/api/v1/servers/{}/collect", others[2])), 202);
    eventually("the key is refused", || server(&hub, &others[2])["refused"]["cause"] == "host_key_changed");
    let refused = server(&hub, &others[2]);
    assert!(
        refused["next_ms"].is_null() && refused["last"]["error"].as_str().unwrap().contains("another key"),
        "{refused}"
    );
    let shown = refused["refused"]["shown_key"].clone();
    let path = format!("/api/v1/servers/{}/host-key", others[2]);
    assert_eq!(
        hub.request("PUT", &path, &hub.token, &json!({ "key": "ssh-ed25519 SHA256:other" })).status,
        409
    );
    assert_eq!(hub.request("PUT", &path, &hub.token, &json!({ "key": shown })).status, 200);
    eventually("it is trusted", || server(&hub, &others[2])["last"]["cause"].is_null());
    tried_four_times(&hub, &nobody);
    rests_and_goes(&hub, &rsa, &plain);
}

fn tried_four_times(hub: &TestHub, nobody: &str) {
    // Tried four times, at 0, 5, 15 and 35 s, and then at its next turn.
    let tries =
        || hub.get(&format!("/api/v1/servers/{nobody}/tests")).body["looks"].as_array().map_or(0, Vec::len);
    eventually("it was tried four times", || tries() == 4);
    let looks = hub.get(&format!("/api/v1/servers/{nobody}/tests")).body;
    let looks = looks["looks"].as_array().unwrap();
    assert_eq!(looks.iter().map(|look| look["tries"].as_i64().unwrap()).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let times: Vec<i64> = looks
        .iter()
        .rev()
        .map(|look| look["at_ms"].as_i64().unwrap() - looks[3]["at_ms"].as_i64().unwrap())
        .collect();
    for (time, expected) in times.iter().zip([0, 5_000, 15_000, 35_000]) {
        assert!((expected..expected + 4_000).contains(time), "{times:?}");
    }
    assert_eq!(looks[0]["cause"], "unreachable");
    assert!(!server(hub, nobody)["next_ms"].is_null());
    let stats = hub.get("/api/v1/servers/metrics/queue/stats").body;
    assert_eq!((stats["failed"].as_i64(), stats["active"].as_i64()), (Some(2), Some(0)), "{stats}");
}

fn rests_and_goes(hub: &TestHub, rsa: &str, plain: &Sshd) {
    // Switched off, it rests; gone, it is gone.
    let change = json!({ "name": "rsa", "address": plain.address().ip().to_string(), "port": plain.address().port(), "user": me(),
                         "login": { "kind": "key" }, "enabled": false });
    assert_eq!(hub.request("PUT", &format!("/api/v1/servers/{rsa}"), &hub.token, &change).status, 200);
    eventually("it rests", || hub.get("/api/v1/hosts/rsa").body["status"] == "resting");
    assert!(server(hub, rsa)["next_ms"].is_null());
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
    let sshd = Sshd::start(local(11), &[]);
    let mut asked = by_key("tried", &sshd, "ed25519");
    asked["enabled"] = false.into();
    let test = |body: &Value| hub.request("POST", "/api/v1/servers/test", &hub.token, body);
    let answer = test(&json!({ "server": asked }));
    assert_eq!(answer.body["ok"], true, "{}", answer.text);
    let steps: Vec<&str> =
        answer.body["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps[..5], ["resolve", "connect", "handshake", "login", "shell"]);
    // Nothing was kept by that.
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    let id = create(&hub, &asked);
    assert_eq!(post(&hub, &format!("/api/v1/servers/{id}/test")), 200);
    let looks = hub.get(&format!("/api/v1/servers/{id}/tests")).body["looks"].clone();
    assert_eq!((looks[0]["kind"].as_str(), looks.as_array().unwrap().len()), (Some("test"), 1));
    // What is kept is used where nothing else is said, and only at the same door.
    asked["login"] = json!({ "kind": "key" });
    assert_eq!(test(&json!({ "id": id, "server": asked })).body["ok"], true);
    asked["user"] = "someone".into();
    assert_eq!(test(&json!({ "id": id, "server": asked })).code(), "invalid_server");
    let hostile = FaultyServer::start(FaultScript::Reset);
    let answer = test(
        &json!({ "server": server_request("bad", hostile.address(), "x", &json!({ "kind": "password", "password": "y" })) }),
    );
    assert_eq!(
        (answer.body["stage"].as_str(), answer.body["cause"].as_str()),
        (Some("handshake"), Some("closed"))
    );
    // What can't be is said by its field.
    for (field, value) in
        [("interval", json!("30s")), ("address", json!("a b")), ("port", json!(0)), ("name", json!(""))]
    {
        let mut bad = by_key("bad", &sshd, "ed25519");
        bad[field] = value;
        let answer = hub.request("POST", "/api/v1/servers", &hub.token, &bad);
        assert!(answer.status == 422 && answer.text.contains(field), "{}", answer.text);
    }
    let answer = hub.request("POST", "/api/v1/servers", &hub.token, &by_key("tried", &sshd, "ed25519"));
    assert_eq!(answer.code(), "name_taken");
}

#[test]
fn wrong_password_is_tried_once_and_never_logged() {
    if me() != "root" {
        eprintln!("skipped: servers with passwords need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let told = [("PERFWATCH_LOG_LEVEL", "trace")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &told);
    let sshd = Sshd::start_with_passwords(local(21), &[]);
    let (wrong, passphrase) = ("quite wrong indeed", "a passphrase of mine");
    let mut asked =
        server_request("locked", sshd.address(), USER, &json!({ "kind": "password", "password": wrong }));
    asked["interval"] = "1m".into();
    let id = create(&hub, &asked);
    eventually("it is refused", || server(&hub, &id)["refused"]["cause"] == "login_refused");
    assert_eq!(post(&hub, &format!("/api/v1/servers/{id}/collect")), 409);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/collect-all"), 202);
    // Not by a restart either.
    let address = hub.address.clone();
    let Some(log) = Some(hub.process.log()) else { return };
    hub.process.kill();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", &address], &told);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(sshd.log().matches("Failed password").count(), 1, "{}", sshd.log());
    // Changed, it comes in.
    asked["login"]["password"] = PASSWORD.into();
    let answer = hub.request("PUT", &format!("/api/v1/servers/{id}"), &hub.token, &asked);
    assert!(answer.status == 200 && answer.body["refused"].is_null(), "{}", answer.text);
    comes_in(&hub, &id);
    // A password is not told to another host than the one it was given for.
    let mut elsewhere =
        server_request("locked", (local(22), 22).into(), USER, &json!({ "kind": "password" }));
    elsewhere["tags"] = json!(["a=b"]);
    let answer = hub.request("PUT", &format!("/api/v1/servers/{id}"), &hub.token, &elsewhere);
    assert!(answer.status == 422 && answer.text.contains("login.password"), "{}", answer.text);
    let mut keyed = by_key("keyed", &sshd, "ed25519");
    keyed["login"]["passphrase"] = passphrase.into();
    keyed["enabled"] = false.into();
    create(&hub, &keyed);
    // Nowhere in what is kept, said or logged.
    let shown = [
        hub.get("/api/v1/servers").text,
        hub.get("/api/v1/audit").text,
        hub.get(&format!("/api/v1/servers/{id}/tests")).text,
    ];
    let backup = folder.path().join("backup.db");
    let data = folder.path().join("hub");
    let arguments = ["backup", backup.to_str().unwrap()];
    let mut command = std::process::Command::new(crate::support::BINARY);
    assert!(command.args(arguments).env("PERFWATCH_DATA", &data).status().unwrap().success());
    let mut texts: Vec<(String, Vec<u8>)> =
        shown.into_iter().map(|text| ("api".to_owned(), text.into_bytes())).collect();
    texts.extend([("log".to_owned(), (log + &hub.process.log()).into_bytes())]);
    texts.push(("backup".to_owned(), std::fs::read(&backup).unwrap()));
    for entry in std::fs::read_dir(data.join("history")).unwrap().flatten() {
        texts.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap_or_default()));
    }
    let private: String = keyed["login"]["key"].as_str().unwrap().lines().nth(1).unwrap().to_owned();
    for secret in [wrong, PASSWORD, passphrase, &private] {
        for (place, text) in &texts {
            assert!(
                !text.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()),
                "{place} holds {secret:?}"
            );
        }
    }
    assert!(hub.get("/api/v1/audit").text.contains("server.update_credentials"));
}

/// These tests ask more often than people may.
pub(crate) const OFTEN: (&str, &str) = ("PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND", "100000");

fn manual_collections(hub: &TestHub, ids: &[String]) -> BTreeMap<String, usize> {
    let count = |id: &String| {
        let looks = hub.get(&format!("/api/v1/servers/{id}/tests")).body["looks"].clone();
        let done = looks
            .as_array()
            .unwrap()
            .iter()
            .filter(|look| look["kind"] == "asked" && look["cause"].is_null())
            .count();
        (id.clone(), done)
    };
    ids.iter().map(count).collect()
}

/// As many as there are, off at first.
fn fleet(hub: &TestHub, sshd: &Sshd, count: usize) -> Vec<String> {
    let ids: Vec<String> =
        (0..count).map(|at| create(hub, &by_key(&format!("host-{at:02}"), sshd, "ed25519"))).collect();
    for id in &ids {
        comes_in(hub, id);
    }
    ids
}

#[test]
fn crashed_hub_runs_each_job_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &[OFTEN]);
    let command = format!("ForceCommand sleep 1; cat {}", capture("raspberry-pi.2.capture").display());
    let sshd = Sshd::start(local(31), &[&command]);
    let ids = fleet(&hub, &sshd, 12);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/queue/pause"), 204);
    assert_eq!(post(&hub, "/api/v1/servers/metrics/collect-all"), 202);
    std::thread::sleep(Duration::from_secs(2));
    let stats = hub.get("/api/v1/servers/metrics/queue/stats").body;
    assert_eq!(
        (stats["paused"].as_bool(), stats["waiting"].as_i64(), stats["active"].as_i64()),
        (Some(true), Some(12), Some(0))
    );
    assert_eq!(post(&hub, "/api/v1/servers/metrics/queue/resume"), 204);
    eventually("some are done, some are being done", || {
        let stats = hub.get("/api/v1/servers/metrics/queue/stats").body;
        stats["active"].as_i64() > Some(0) && manual_collections(&hub, &ids).values().any(|looks| *looks > 0)
    });
    let address = hub.address.clone();
    hub.process.kill();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", &address], &[OFTEN]);
    eventually("all are done", || manual_collections(&hub, &ids).values().all(|looks| *looks > 0));
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        manual_collections(&hub, &ids).values().all(|looks| *looks == 1),
        "{:?}",
        manual_collections(&hub, &ids)
    );
    let stats = hub.get("/api/v1/servers/metrics/queue/stats").body;
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
        TestHub::start_with_env(folder.path(), &args, &[("PERFWATCH_HUB_ENCRYPTION_KEY", &key), OFTEN])
    };
    let (a, b) = (start(&folders[0]), start(&folders[1]));
    let command = format!("ForceCommand sleep 0.3; cat {}", capture("raspberry-pi.2.capture").display());
    let sshd = Sshd::start(local(41), &[&command]);
    let ids = fleet(&a, &sshd, 16);
    for round in 1..=2 {
        assert_eq!(post(if round == 1 { &a } else { &b }, "/api/v1/servers/metrics/collect-all"), 202);
        eventually("all are done", || manual_collections(&b, &ids).values().all(|looks| *looks >= round));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        manual_collections(&a, &ids).values().all(|looks| *looks == 2),
        "{:?}",
        manual_collections(&a, &ids)
    );
    let made = |hub: &TestHub| {
        let text = hub.get("/metrics").text;
        let line = text.lines().find(|line| line.starts_with("perfwatch_looks_total ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
    };
    assert!(made(&a) > 0 && made(&b) > 0 && made(&a) + made(&b) == 48, "{} and {}", made(&a), made(&b));
    // What one saw, the other one shows; without Redis, what it saw itself.
    let shown = |hub: &TestHub| {
        let list = hub.get("/api/v1/servers").body["servers"].clone();
        list.as_array().unwrap().iter().filter(|server| server["latest"]["memory"].is_f64()).count()
    };
    assert_eq!((shown(&a), shown(&b)), (16, 16));
    let total = b.get("/api/v1/servers/summary").body;
    assert!(total["servers"] == 16 && total["top_memory"].as_array().unwrap().len() == 3, "{total}");
    let mine = ("vera", "sees her own alone");
    crate::access::add_user(&b, mine, "viewer", &["of=vera"]);
    let hers =
        b.request("GET", "/api/v1/servers/summary", &b.create_user_and_log_in(mine.0, mine.1), &Value::Null);
    assert!(hers.body["servers"] == 0 && hers.body["top_cpu"] == json!([]), "{}", hers.text);
    redis.kill();
    assert!(shown(&a) > 0 && shown(&b) > 0, "{} {}", shown(&a), shown(&b));
    // One leaves for good: the other one goes on with what it had begun.
    a.process.kill();
    assert_eq!(post(&b, "/api/v1/servers/metrics/collect-all"), 202);
    eventually("all are done by one", || manual_collections(&b, &ids).values().all(|looks| *looks >= 3));
}

#[test]
fn on_demand_polling_uses_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let sshd = Sshd::start(local(51), &["MaxSessions 1"]);
    let mut asked = by_key("watched", &sshd, "ed25519");
    asked["thresholds"] = json!({ "cpu": null, "memory": 1, "disk": null });
    let id = create(&hub, &asked);
    comes_in(&hub, &id);
    let connections = || sshd.log().matches("Accepted publickey").count();
    assert_eq!(connections(), 1);
    let before = hub.seqs(&id).len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = format!("ws://{}/api/ws/metrics", hub.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", hub.token).parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        let wish = json!({ "subscribe": { "id": 1, "hosts": [id] } });
        socket.send(Message::Text(wish.to_string().into())).await.unwrap();
        let began = now_ms();
        while hub.seqs(&id).len() < before + 3 {
            assert!(now_ms() - began < 40_000, "{:?}", hub.seqs(&id));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(
            (connections(), hub.get("/api/v1/servers/metrics/queue/stats").body["held"].as_i64()),
            (2, Some(1))
        );
        socket.close(None).await.unwrap();
    });
    // Not longer than that.
    eventually("it is left alone", || {
        hub.get("/api/v1/servers/metrics/queue/stats").body["held"].as_i64() == Some(0)
    });
    let after = hub.seqs(&id).len();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!((hub.seqs(&id).len(), connections()), (after, 2));
    // Its threshold is a rule, which nobody changes but by the server, and who is beyond it is told of.
    let active = || hub.get("/api/v1/incidents").text;
    eventually("the alert fires", || active().contains("Memory above 1 % (without agent)"));
    assert!(hub.get("/api/v1/audit").text.contains("server.threshold_exceeded"));
    let rules = hub.get("/api/v1/rules").body["rules"].clone();
    let of_servers: Vec<&Value> =
        rules.as_array().unwrap().iter().filter(|rule| rule["managed_rule"] == true).collect();
    assert_eq!(of_servers.len(), 1);
    let path = format!("/api/v1/rules/{}", of_servers[0]["rule"]["id"].as_str().unwrap());
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).code(), "managed_rule");
    // Its rhythm is still the one it has by itself: it is not missed.
    assert_eq!(hub.get("/api/v1/hosts/watched").body["interval_ms"], 86_400_000);
}

#[test]
fn import_from_ssh_config_and_csv() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let import = |form: &str, text: &str, dry: bool, more: Value| {
        let mut wish = json!({ "form": form, "text": text, "dry_run": dry, "tags": ["env=lab"] });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hub.request("POST", "/api/v1/servers/import", &hub.token, &wish)
    };
    let config = "Host gate\n HostName 192.0.2.1\nHost *.lab\n User lab\nHost a.lab b.lab\n ProxyJump gate\nHost gate\n User late\n";
    let login = json!({ "login": { "kind": "password", "password": "p" } });
    // Said first, nothing kept.
    let answer = import("ssh_config", config, true, login.clone());
    assert_eq!((answer.status, answer.body["created"].as_i64()), (200, Some(3)), "{}", answer.text);
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    // All or none: a line that can't be stops it.
    let bad = format!("{config}Host bad\n Port many\n");
    let answer = import("ssh_config", &bad, false, login.clone());
    assert!(answer.code() == "invalid_import" && answer.text.contains("bad"), "{}", answer.text);
    assert_eq!(import("ssh_config", config, false, login).body["created"], 3);
    let servers = hub.get("/api/v1/servers").body["servers"].clone();
    let gate = servers.as_array().unwrap().iter().find(|server| server["name"] == "gate").unwrap();
    assert_eq!((gate["user"].as_str(), gate["tags"].clone()), (Some("late"), json!(["env=lab"])));
    let behind = servers.as_array().unwrap().iter().filter(|server| server["jump"] == gate["id"]).count();
    assert_eq!(behind, 2);
    // What is there stays, and can't go while others lead through it.
    let table = "name,address,user,password,interval\ngate,192.0.2.9,x,y,\nnew,192.0.2.3,x,y,5m\n";
    let answer = import("csv", table, false, json!({}));
    assert_eq!(
        (answer.body["created"].as_i64(), answer.body["servers"][0]["known"].as_bool()),
        (Some(1), Some(true))
    );
    let path = format!("/api/v1/servers/{}", gate["id"].as_str().unwrap());
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).code(), "server_in_use");
    assert_eq!(import("csv", "colour\nred\n", true, json!({})).code(), "invalid_import");
}
