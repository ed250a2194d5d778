//! Identity of hosts and agents: double names, cloned machines, revoked and deleted hosts. The rules are in
//! docs/IDENTITY.md.

use crate::support::{AGENT, BINARY, Process, TestHub, eventually, now_ms};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Snapshot of a host with an id.
fn snapshot(id: &str, name: &str, at_ms: i64) -> Value {
    json!({ "timestamp": at_ms, "host": name, "host_id": id, "cpu": { "usage": 12.5 } })
}

#[test]
fn name_of_two_hosts_is_rejected_with_both_ids() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let ids = [1_u128, 2].map(|id| uuid::Uuid::from_u128(id).to_string());
    let at = now_ms();
    for id in &ids {
        let response = hub.post_json(&snapshot(id, "web", at));
        assert_eq!(response.status, 200, "{}", response.text);
    }
    assert_eq!(hub.get("/api/v1/hosts").body["total"], 2);
    let assert_ambiguous = |response: crate::support::TestResponse| {
        assert_eq!((response.status, response.code()), (409, "ambiguous_host"), "{}", response.text);
        assert!(ids.iter().all(|id| response.text.contains(id.as_str())), "{}", response.text);
    };
    for path in [
        "/api/v1/hosts/web",
        "/api/v1/hosts/web/series?metric=cpu.usage",
        "/api/v1/hosts/web/snapshot",
        "/api/v1/hosts/web/processes",
        "/api/v1/hosts/web/export",
        "/api/v1/hosts/web/alerts",
        "/api/v1/incidents/history?host=web",
        "/api/metrics/recent?host=web",
    ] {
        assert_ambiguous(hub.get(path));
    }
    let tags = json!({ "tags": ["a"] });
    assert_ambiguous(hub.request("PUT", "/api/v1/hosts/web/tags", &hub.token, &tags));
    assert_ambiguous(hub.request("DELETE", "/api/v1/hosts/web", &hub.token, &Value::Null));
    // Ingestion by name; other hosts of a list are accepted.
    let by_name = json!({ "timestamp": at + 1, "host": "web", "cpu": { "usage": 1 } });
    assert_ambiguous(hub.post_json(&by_name));
    assert_ambiguous(hub.post_json(&json!([by_name])));
    let other = json!({ "timestamp": at, "host": "db", "cpu": { "usage": 1 } });
    let list = hub.post_json(&json!([by_name, other]));
    assert_eq!((list.status, &list.body["accepted"]), (200, &json!(1)), "{}", list.text);
    assert_eq!(list.body["rejected"][0]["code"], "ambiguous_host", "{}", list.text);
    let export = |host: &str| {
        let mut command = Command::new(BINARY);
        command.args(["export", host]).env("PERFWATCH_DATA", folder.path().join("hub")).output().unwrap()
    };
    let output = export("web");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && ids.iter().all(|id| error.contains(id.as_str())), "{error}");
    // The id selects one host everywhere.
    for id in &ids {
        assert_eq!(hub.get(&format!("/api/v1/hosts/{id}")).body["id"], id.as_str());
        assert_eq!(hub.post_json(&snapshot(id, "web", at + 2)).body["accepted"], 1);
        assert!(export(id).status.success());
    }
    // A unique name works again after the other host is deleted.
    let deleted = hub.request("DELETE", &format!("/api/v1/hosts/{}", ids[0]), &hub.token, &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    assert_eq!(hub.get("/api/v1/hosts/web").body["id"], ids[1].as_str());
}

fn enrollment_token(hub: &TestHub, uses: u32) -> String {
    let body = json!({ "name": "test", "uses": uses });
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &body);
    created.body["token"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned()
}

fn start_agent(folder: &Path, hub: &TestHub, token: &str, args: &[&str]) -> Process {
    let url = hub.url("");
    let common = ["--hub", &url, "--interval", "250ms", "--name", "it", "--token", token];
    Process::spawn(AGENT, folder, "agent", &[&common, args].concat())
}

fn hosts(hub: &TestHub) -> Vec<Value> {
    hub.get("/api/v1/hosts").body["hosts"].as_array().cloned().unwrap()
}

#[test]
fn agent_of_a_deleted_host_enrolls_with_a_new_token_only() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let first = enrollment_token(&hub, 5);
    let mut agent = start_agent(folder.path(), &hub, &first, &[]);
    eventually("the agent sends", || hub.seqs("it").len() > 1);
    let id = hosts(&hub)[0]["id"].clone();
    assert_eq!(hub.request("DELETE", "/api/v1/hosts/it", &hub.token, &Value::Null).status, 204);
    assert_eq!(agent.child.wait().unwrap().code(), Some(78));
    // The token of the first enrollment would undo the revocation, although it has uses left.
    let mut same = start_agent(folder.path(), &hub, &first, &[]);
    assert_eq!(same.child.wait().unwrap().code(), Some(78));
    assert_eq!(same.log().matches("agent revoked by the hub").count(), 2, "{}", same.log());
    assert!(hosts(&hub).is_empty());
    let mut wrong = start_agent(folder.path(), &hub, "pwe_unknown", &[]);
    assert_eq!(wrong.child.wait().unwrap().code(), Some(78));
    assert!(wrong.log().contains("its new token is not accepted"), "{}", wrong.log());
    // The host returns with its id.
    let returned = start_agent(folder.path(), &hub, &enrollment_token(&hub, 1), &[]);
    eventually("the host returns", || hosts(&hub).len() == 1);
    assert_eq!(hosts(&hub)[0]["id"], id);
    eventually("snapshots arrive", || hub.seqs("it").len() > 3);
    let log = returned.log();
    assert_eq!(log.matches("agent enrolled").count(), 2, "{log}");
}

#[test]
fn changed_token_file_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let path = folder.path().join("token");
    let setting = format!("file:{}", path.display());
    for (name, first, second) in [
        ("enrollment", "pwe_expired".to_owned(), enrollment_token(&hub, 1)),
        ("secret", "pwt_deleted".to_owned(), hub.token.clone()),
    ] {
        std::fs::write(&path, first).unwrap();
        let (args, before) = (["--name", name], hosts(&hub).len());
        let agent = Process::spawn(
            AGENT,
            folder.path(),
            name,
            &[&["--hub", &hub.url(""), "--interval", "250ms", "--token", &setting][..], &args].concat(),
        );
        eventually("the failure is logged", || agent.log().contains("hub unreachable"));
        std::fs::write(&path, format!("{second}\n")).unwrap();
        eventually("the agent sends", || hosts(&hub).len() > before);
        let log = agent.log();
        assert!(log.contains("agent token changed"), "{log}");
        assert!(log.lines().filter(|line| line.contains("WARN")).count() < 3, "{log}");
    }
}

/// Root directory of a machine with an id, for `--rootfs`.
fn machine(folder: &Path, name: &str, machine_id: &str) -> String {
    let root = folder.join(name);
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/machine-id"), machine_id).unwrap();
    root.to_str().unwrap().to_owned()
}

#[test]
fn clone_of_an_agent_becomes_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let token = enrollment_token(&hub, 5);
    let original = machine(folder.path(), "original", "11111111111111111111111111111111\n");
    let clone = machine(folder.path(), "clone", "22222222222222222222222222222222\n");
    let mut agent = start_agent(folder.path(), &hub, &token, &["--rootfs", &original]);
    eventually("the original sends", || hub.seqs("it").len() > 1);
    let first = hosts(&hub)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(agent.terminate(), 0);
    // Offline snapshots of the original stay in its spool.
    let offline = ["--hub", "http://127.0.0.1:9", "--interval", "250ms", "--rootfs", &original];
    let mut spooling = Process::spawn(AGENT, folder.path(), "agent", &offline);
    eventually("the outage is logged", || spooling.log().contains("hub unreachable"));
    assert_eq!(spooling.terminate(), 0);
    // Without a token: an error that changes nothing.
    let state = folder.path().join("agent/agent");
    let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();
    let before = (read("host-id"), read("secret"));
    let without_token = ["--hub", &hub.url(""), "--rootfs", &clone];
    let mut refused = Process::spawn(AGENT, folder.path(), "agent", &without_token);
    assert_eq!(refused.child.wait().unwrap().code(), Some(78));
    assert!(refused.log().contains("belongs to another machine (machine-id differs)"), "{}", refused.log());
    assert_eq!((read("host-id"), read("secret")), before);
    // With a token: a new host without the snapshots of the original.
    let args = ["--rootfs", &clone, "--name", "clone"];
    let url = hub.url("");
    let common = ["--hub", &url, "--interval", "250ms", "--token", &token];
    let mut cloned = Process::spawn(AGENT, folder.path(), "agent", &[&common[..], &args].concat());
    eventually("the clone sends", || hub.seqs("clone").len() > 3);
    let ids: Vec<String> = hosts(&hub).iter().map(|host| host["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((ids.len(), ids.contains(&first)), (2, true), "{ids:?}");
    let started = cloned.log();
    assert_eq!(started.matches("starting as a new host").count(), 1, "{started}");
    assert_eq!(cloned.terminate(), 0);
    // The new identity persists, also under another name, and without a readable machine-id.
    for (machine_id, name) in
        [("22222222222222222222222222222222\n", "renamed"), ("uninitialized\n", "again"), ("", "empty")]
    {
        let root = machine(folder.path(), "clone", machine_id);
        let args = ["--rootfs", &root, "--name", name, "--hub", &url, "--interval", "250ms"];
        let mut agent = Process::spawn(AGENT, folder.path(), "agent", &args);
        eventually("the host is renamed", || hosts(&hub).iter().any(|host| host["name"] == name));
        assert_eq!(hosts(&hub).len(), 2);
        assert_eq!(agent.terminate(), 0);
    }
    // The operator decides that the machine replaces the original.
    std::fs::remove_file(state.join("machine")).unwrap();
    let args = ["--rootfs", &original, "--name", "replaced", "--hub", &url, "--interval", "250ms"];
    let _replaced = Process::spawn(AGENT, folder.path(), "agent", &args);
    eventually("the host is kept", || hosts(&hub).iter().any(|host| host["name"] == "replaced"));
    assert_eq!(hosts(&hub).len(), 2);
}

#[test]
fn pages_of_hosts_neither_skip_nor_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let post = |names: &[String]| {
        let snapshots: Vec<Value> = names
            .iter()
            .map(|name| json!({ "host": name, "timestamp": now_ms(), "cpu": { "usage": 1 } }))
            .collect();
        assert_eq!(hub.post_json(&json!(snapshots)).body["accepted"], names.len());
    };
    let names: Vec<String> = (0..90).map(|number| format!("host ü/{number:03}")).collect();
    post(&names);
    // Two hosts of one name on a page border.
    for id in [1_u128, 2] {
        let id = uuid::Uuid::from_u128(id).to_string();
        assert_eq!(hub.post_json(&snapshot(&id, "host ü/009x", now_ms())).status, 200);
    }
    let (mut found, mut after, mut page) = (Vec::new(), String::new(), 0);
    loop {
        let response = hub.get(&format!("/api/v1/hosts?limit=11{after}"));
        assert_eq!(response.status, 200, "{}", response.text);
        let hosts = response.body["hosts"].as_array().unwrap().clone();
        found.extend(hosts.iter().map(|host| host["name"].as_str().unwrap().to_owned()));
        let Some(next) = response.body["next"].as_str() else { break };
        assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{next}");
        after = format!("&after={next}");
        // Hosts are added and removed on earlier pages, the last host of the page among them.
        post(&[format!("a-{page}"), format!("host ü/000-{page}")]);
        let last = hosts.last().unwrap()["id"].as_str().unwrap().to_owned();
        for id in [hosts[0]["id"].as_str().unwrap(), &last] {
            assert_eq!(
                hub.request("DELETE", &format!("/api/v1/hosts/{id}"), &hub.token, &Value::Null).status,
                204
            );
        }
        page += 1;
    }
    assert_eq!((found.len(), page), (92, 8));
    assert!(names.iter().all(|name| found.iter().filter(|found| *found == name).count() == 1));
    assert_eq!(hub.get("/api/v1/hosts?after=11").code(), "invalid_query");
}

#[test]
fn machines_with_one_host_id_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let id = uuid::Uuid::from_u128(7).to_string();
    let at = now_ms() - 60_000;
    let send = |boot: u128, seq: u64, at_ms: i64| {
        let mut snapshot = snapshot(&id, "web", at_ms);
        snapshot["boot"] = json!(uuid::Uuid::from_u128(boot).to_string());
        snapshot["seq"] = json!(seq);
        assert_eq!(hub.post_json(&snapshot).body["accepted"], 1);
    };
    // A reboot with snapshots that arrive late.
    send(1, 1, at);
    send(2, 1, at + 2_000);
    send(1, 2, at + 1_000);
    send(2, 2, at + 3_000);
    assert_eq!(hub.get("/api/v1/hosts/web").body["sender_conflict_ms"], Value::Null);
    // Another machine with the same host id.
    for seq in 3..8 {
        send(1, seq, at + 10_000 + i64::try_from(seq).unwrap() * 1_000);
        send(2, seq, at + 10_500 + i64::try_from(seq).unwrap() * 1_000);
    }
    assert!(hub.get("/api/v1/hosts/web").body["sender_conflict_ms"].is_i64());
    let log = hub.process.log();
    assert_eq!(log.matches("several machines are sending with one host id").count(), 1, "{log}");
    eventually("an alert fires", || {
        hub.get("/api/v1/incidents").text.contains("Several machines with one host id")
    });
}
