//! Incident capsules: content compared with the API, masking, access, limits, and the command.

use crate::access::add_user;
use crate::alerting::{cpu_rule, set_up};
use crate::support::{ADMIN, BINARY, TestHub, eventually, now_ms};
use perfwatch_capsule::Capsule;
use perfwatch_model::{MISSING, unscale};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BOOT: &str = "11111111-2222-4333-8444-555555555555";
const ROWS: i64 = 150;
const PASSWORD: &str = "a-password-of-tests-1";

/// Snapshot of a host that is busy in its last 20 rows, with a gap before them.
fn snapshot(host: &str, index: i64, end_ms: i64) -> Value {
    let is_busy = index >= ROWS - 20;
    let gap_ms = if is_busy { 0 } else { 60_000 };
    json!({
        "host": host, "boot": BOOT, "seq": index, "interval_ms": 2_000,
        "timestamp": end_ms - (ROWS - 1 - index) * 2_000 - gap_ms,
        "cpu": { "usage": if is_busy { 95.5 } else { 5.0 + (index % 7) as f64 } },
        "memory": { "used": 8_000_000_000_i64 + index },
        "network": { "interface": { "eth0": { "rx_bytes": 100.5 * index as f64 } } },
        "processes": { "top": [
            { "pid": 42, "name": "postgres", "user": "alice", "command": format!("postgres -D /srv/{host}"),
              "cpu_percent": if is_busy { 380.5 } else { 3.5 }, "memory_bytes": 1_000_000 + index,
              "started_ms": end_ms - 3_600_000, "parent_pid": 1, "threads": 3 },
            { "pid": 100 + index % 3, "name": "cron", "user": "root", "command": "cron -f", "cpu_percent": 0.5,
              "memory_bytes": 5_000, "started_ms": end_ms - 7_200_000, "read_bytes": 10 * index },
        ] },
    })
}

/// Hub with an incident of `db-1`, beside `web-1`; returns the id of the incident and the time of the last rows.
fn start(folder: &Path) -> (TestHub, String, i64) {
    let hub = TestHub::start(folder);
    set_up(&hub, &cpu_rule(90.0, "0s"), &[]);
    let end_ms = now_ms();
    for host in ["db-1", "web-1"] {
        let rows = if host == "db-1" { ROWS } else { ROWS - 20 };
        let rows: Vec<Value> = (0..rows).map(|index| snapshot(host, index, end_ms)).collect();
        let response = hub.post_json(&Value::Array(rows));
        assert_eq!(response.status, 200, "{}", response.text);
        let tags = json!({ "tags": [format!("host={host}")] });
        assert_eq!(hub.request("PUT", &format!("/api/v1/hosts/{host}/tags"), &hub.token, &tags).status, 200);
    }
    let incident = || hub.get("/api/v1/incidents").body["incidents"][0]["id"].as_str().map(str::to_owned);
    eventually("the rule fires", || incident().is_some());
    let id = incident().unwrap();
    let comment = json!({ "text": "alice restarted a job on db-1" });
    let path = format!("/api/v1/incidents/{id}/comments");
    assert!(hub.request("POST", &path, &hub.token, &comment).status < 300);
    (hub, id, end_ms)
}

fn run(hub: &TestHub, token: &str, args: &[&str]) -> Output {
    let url = hub.url("");
    let url = url.trim_end_matches('/');
    let hub_args = ["capsule", "--hub", url];
    let mut command = Command::new(BINARY);
    command.args(hub_args).args(args).env("PERFWATCH_API_TOKEN", token).output().unwrap()
}

/// Makes a capsule with the command.
fn create(hub: &TestHub, folder: &Path, args: &[&str]) -> Vec<u8> {
    let file: PathBuf = folder.join(format!("{}.pwcap", uuid::Uuid::now_v7()));
    let output = run(hub, &hub.token, &[args, &["--output", file.to_str().unwrap()]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" hosts, ") && text.contains(" created in "), "{text}");
    std::fs::read(file).unwrap()
}

/// Compares all series of a host with those of the API.
fn assert_series(hub: &TestHub, capsule: &Capsule<'_>, index: usize) {
    let document = capsule.document();
    let (host, decoded) = (&document.hosts[index], capsule.series(index).unwrap());
    let path = format!(
        "/api/v1/hosts/{}/series?metric=*&from={}&to={}&points=10000",
        host.id, document.from_ms, document.to_ms
    );
    let response = hub.get(&path);
    let times: Vec<i64> =
        response.body["t"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
    assert_eq!(decoded.at_ms, times);
    let series = response.body["series"].as_array().unwrap();
    assert_eq!(series.len(), host.series.len(), "{}", response.text);
    for expected in series {
        let (metric, instance) =
            (expected["metric"].as_str().unwrap(), expected["instance"].as_str().unwrap());
        let column = host.series.iter().position(|(name, of, _)| name == metric && of == instance).unwrap();
        let decimals = host.series[column].2;
        for (value, expected) in decoded.columns[column].iter().zip(expected["v"].as_array().unwrap()) {
            let value = Some(*value).filter(|value| *value != MISSING);
            assert_eq!(value.and_then(|value| unscale(value, decimals)), expected.as_f64(), "{metric}");
        }
    }
}

/// Compares the processes of all rows with the snapshots of the API.
fn assert_processes(hub: &TestHub, capsule: &Capsule<'_>, index: usize) {
    let host = &capsule.document().hosts[index];
    let (series, table) = (capsule.series(index).unwrap(), capsule.processes(index).unwrap());
    for at_ms in series.at_ms.iter().step_by(29).chain(series.at_ms.last()) {
        let snapshot = hub.get(&format!("/api/v1/hosts/{}/snapshot?at={at_ms}", host.id));
        let expected = snapshot.body["snapshot"]["processes"]["top"].as_array().unwrap();
        let rows: Vec<_> = table.samples.iter().filter(|sample| sample.at_ms == *at_ms).collect();
        assert_eq!(rows.len(), expected.len(), "{}", snapshot.text);
        for (row, expected) in rows.iter().zip(expected) {
            let row = &row.process;
            assert_eq!(json!(row.pid), expected["pid"]);
            assert_eq!(expected["name"], *row.name);
            assert_eq!(expected["user"], *row.user);
            assert_eq!(expected["command"], *row.command);
            assert_eq!(expected["cpu_percent"].as_f64(), Some(f64::from(row.cpu_tenths) / 10.0));
            assert_eq!(expected["memory_bytes"].as_u64(), Some(row.memory_bytes));
            assert_eq!(expected["read_bytes"].as_u64(), row.read_bytes);
            assert_eq!(expected["started_ms"].as_i64(), Some(row.started_ms));
        }
    }
}

#[test]
fn capsule_of_an_incident_equals_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, id, end_ms) = start(folder.path());
    let from = (end_ms - 400_000).to_string();
    let file = create(&hub, folder.path(), &["--incident", &id, "--from", &from, "db-1", "web-1"]);
    let capsule = Capsule::parse(&file).unwrap();
    let document = capsule.document();
    assert_eq!(document.hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(), ["db-1", "web-1"]);
    assert_eq!(document.hosts[0].rows as i64, ROWS);
    for index in 0..2 {
        assert_series(&hub, &capsule, index);
        assert_processes(&hub, &capsule, index);
    }
    let detail = hub.get(&format!("/api/v1/incidents/{id}")).body;
    assert_eq!(document.title, detail["incident"]["title"].as_str().unwrap());
    assert_eq!(document.incidents[0].incident["alerts"], detail["incident"]["alerts"]);
    assert!(document.incidents[0].incident["alerts"][0]["explanation"]["consumers"].is_array());
    assert_eq!(json!(document.incidents[0].timeline), detail["timeline"]);
    let events = format!("/api/v1/hosts/db-1/events?kinds=alert,gap&from={from}&to={}", document.to_ms);
    let is_compared = |event: &&Value| event["kind"] == "alert" || event["kind"] == "gap";
    let events_of = |events: &[Value]| events.iter().filter(is_compared).cloned().collect::<Vec<_>>();
    assert_eq!(events_of(&document.hosts[0].events), *hub.get(&events).body["events"].as_array().unwrap());
    assert!(document.hosts[0].events.iter().any(|event| event["kind"] == "gap"));
    assert_eq!(document.units["cpu.usage"], "percent");
    let audit = hub.get("/api/v1/audit?text=capsule.").body;
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["object"]),
        (&json!("capsule.create"), &json!("capsule of 2 hosts"))
    );
    assert!(entry["after"].to_string().contains("web-1"), "{audit}");
    // Without hosts, those of the incident; their timeline is complete.
    let file = create(&hub, folder.path(), &["--incident", &id]);
    let capsule = Capsule::parse(&file).unwrap();
    assert_eq!(capsule.document().hosts.len(), 1);
    assert!(!capsule.document().incidents[0].timeline.is_empty());
    // Of another host, nothing of the incident.
    let file = create(&hub, folder.path(), &["web-1", "--title", "Web"]);
    let capsule = Capsule::parse(&file).unwrap();
    assert_eq!((&*capsule.document().title, capsule.document().incidents.len()), ("Web", 0));
    assert!(!format!("{:?}", capsule.document()).contains("db-1"));
}

#[test]
fn masked_names_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, id, _) = start(folder.path());
    let file = create(&hub, folder.path(), &["--incident", &id, "--mask", "users,hosts"]);
    let capsule = Capsule::parse(&file).unwrap();
    let text = format!("{:?} {:?}", capsule.document(), capsule.processes(0).unwrap());
    for name in ["alice", "db-1", ADMIN.0, "postgres -D", "root"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("host-1") && text.contains("user-1"), "{text}");
    let check = |path: &Path| Command::new(BINARY).args(["capsule", "--check"]).arg(path).output().unwrap();
    let absent = check(&folder.path().join("absent.pwcap"));
    assert!(!absent.status.success() && String::from_utf8_lossy(&absent.stderr).contains("absent.pwcap"));
    let path = folder.path().join("masked.pwcap");
    std::fs::write(&path, &file).unwrap();
    let text = String::from_utf8_lossy(&check(&path).stdout).into_owned();
    assert!(text.contains("masked: commands, users, hosts"), "{text}");
    let mut damaged = file;
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert!(String::from_utf8_lossy(&check(&path).stderr).contains("checksum mismatch"));
}

#[test]
fn callers_with_limits_get_their_hosts_only() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, id, _) = start(folder.path());
    add_user(&hub, ("vera", PASSWORD), "viewer", &["host=web-1"]);
    let token = hub.create_token(("vera", PASSWORD), "viewer");
    let post = |token: &str, body: &Value| hub.request("POST", "/api/v1/capsules", token, body);
    let path = folder.path().join("web.pwcap");
    let output = run(&hub, &token, &["web-1", "--output", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (body, status, code) in [
        (json!({ "hosts": ["db-1"] }), 404, "not_found"),
        (json!({ "hosts": ["web-1", "db-1"] }), 404, "not_found"),
        (json!({ "incident": id }), 404, "not_found"),
        (json!({ "incident": id, "hosts": ["web-1"] }), 404, "not_found"),
    ] {
        let response = post(&token, &body);
        assert_eq!((response.status, response.code()), (status, code), "{body}: {}", response.text);
        assert!(!response.text.contains("CPU"), "{}", response.text);
    }
    assert_eq!(post("", &json!({ "hosts": ["web-1"] })).status, 401);
    let many: Vec<String> = (0..51).map(|index| format!("h{index}")).collect();
    for (body, status, code) in [
        (json!({}), 422, "invalid_capsule"),
        (json!({ "hosts": many }), 422, "invalid_capsule"),
        (json!({ "hosts": ["web-1"], "note": "x".repeat(5_000) }), 422, "invalid_capsule"),
        (json!({ "hosts": ["web-1"], "from": "-25h" }), 400, "invalid_range"),
        (json!({ "hosts": ["web-1"], "from": "now", "to": "-1h" }), 400, "invalid_range"),
        (json!({ "hosts": ["web-1"], "color": "red" }), 400, "invalid_body"),
        (json!({ "hosts": ["web-1"], "mask": { "all": true } }), 400, "invalid_body"),
    ] {
        let response = post(&hub.token, &body);
        assert_eq!((response.status, response.code()), (status, code), "{body}: {}", response.text);
    }
    let output = run(&hub, &token, &["db-1", "--output", "/nowhere/x.pwcap"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("host \"db-1\" not found"), "{error}");
}
