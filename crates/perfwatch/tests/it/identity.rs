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
