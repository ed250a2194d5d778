//! Installation: notifications to the service manager, `doctor`, completions and manual pages.

use crate::support::{AGENT, BINARY, Process, TestHub, eventually, start_agent};
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

/// Notification that the process sends next.
fn next_notification(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1_024];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn service_manager_is_notified() {
    for (binary, args) in [
        (BINARY, &["hub", "--listen", "127.0.0.1:0"][..]),
        (BINARY, &["--listen", "127.0.0.1:0"]),
        (AGENT, &["--hub", "http://127.0.0.1:9"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // A test that fails must not wait forever.
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
        let mut process = Process::spawn_with(binary, folder.path(), "service", args, &variables);
        assert_eq!(next_notification(&socket), "READY=1\n", "{args:?}");
        assert_eq!(process.terminate(), 0);
        assert_eq!(next_notification(&socket), "STOPPING=1\n", "{args:?}");
    }
}

fn doctor(binary: &str, data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary);
    command.args(args).arg("--json").env("PERFWATCH_DATA", data).env_remove("PERFWATCH_CONFIG");
    command.output().unwrap()
}

/// Status and message of the last result of a check.
fn result(output: &Output, check: &str) -> (String, String) {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = report["checks"].as_array().unwrap();
    let result = results.iter().rev().find(|result| result["check"] == check);
    let result = result.unwrap_or_else(|| panic!("no check {check}: {report:#}"));
    let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

fn status(output: &Output, check: &str) -> String {
    result(output, check).0
}

#[test]
fn doctor_checks_a_hub_before_and_after_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let fresh = doctor(BINARY, &data, &["doctor", "--listen", "127.0.0.1:1"]);
    for check in ["configuration", "data", "store", "encryption key", "collectors"] {
        assert_eq!(status(&fresh, check), "ok", "{check}");
    }
    assert!(!data.exists(), "doctor creates nothing");
    let hub = TestHub::start(folder.path());
    let _agent = start_agent(folder.path(), &hub, "250ms");
    eventually("the host appears", || hub.get("/api/v1/hosts").text.contains("\"total\":1"));
    let listen = ["doctor", "--listen", &hub.address];
    let running = doctor(BINARY, &data, &listen);
    assert!(running.status.success(), "{}", String::from_utf8_lossy(&running.stdout));
    let (port, store) = (result(&running, "port"), result(&running, "store"));
    assert!(port.1.starts_with("a hub runs at http://"), "{port:?}");
    assert!(store.0 == "ok" && store.1.contains("1 hosts"), "{store:?}");
    assert_eq!((status(&running, "ingestion"), status(&running, "agents")), ("ok".into(), "ok".into()));
    // A key that is lost while there is a database.
    std::fs::remove_file(data.join("encryption.key")).unwrap();
    let lost = doctor(BINARY, &data, &listen);
    assert_eq!((lost.status.code(), status(&lost, "encryption key")), (Some(1), "error".into()));
    let error = String::from_utf8(lost.stderr).unwrap();
    assert_eq!(error, "perfwatch: 1 check failed\n");
    assert!(!data.join("encryption.key").exists());
}

#[test]
fn doctor_reports_an_invalid_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.yaml");
    for (text, expected) in
        [("hub:\n  listne: x\n", "hub.yaml, line 2"), ("log: {level: loud}\n", "invalid level")]
    {
        std::fs::write(&file, text).unwrap();
        for (binary, command) in [(BINARY, "doctor"), (AGENT, "doctor")] {
            let output = doctor(binary, folder.path(), &[command, "--config", file.to_str().unwrap()]);
            let (status, message) = result(&output, "configuration");
            assert!(status == "error" && message.contains(expected), "{message}");
            assert_eq!(output.status.code(), Some(1));
        }
    }
    let output = Command::new(BINARY)
        .args(["doctor", "--listen", "127.0.0.1:1"])
        .env("PERFWATCH_DATA", folder.path().join("data"))
        .env("PERFWATCH_SOMETHING_ELSE", "x")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("warning  configuration") && text.contains("PERFWATCH_SOMETHING_ELSE"), "{text}");
}

#[test]
fn doctor_checks_a_running_agent() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let mut agent = start_agent(folder.path(), &hub, "250ms");
    eventually("the host appears", || hub.get("/api/v1/hosts").text.contains("\"total\":1"));
    let data = folder.path().join("agent");
    let url = hub.url("");
    let token = folder.path().join("token");
    std::fs::write(&token, &hub.token).unwrap();
    let token = format!("file:{}", token.display());
    let args = ["doctor", "--hub", &url, "--token", &token];
    let running = doctor(AGENT, &data, &args);
    for check in ["configuration", "data", "spool", "process", "hub", "clock", "credential"] {
        assert_eq!(status(&running, check), "ok", "{check}: {}", String::from_utf8_lossy(&running.stdout));
    }
    // The large program has the same command.
    let large = doctor(BINARY, &data, &["agent", "doctor", "--hub", &url, "--token", &token]);
    assert_eq!(status(&large, "credential"), "ok");
    let rejected = doctor(AGENT, &data, &["doctor", "--hub", &url, "--token", "pwa_unknown"]);
    assert_eq!((rejected.status.code(), status(&rejected, "credential")), (Some(1), "error".into()));
    assert_eq!(agent.terminate(), 0);
    let address = hub.address.clone();
    hub.process.kill();
    let unreachable = doctor(AGENT, &data, &args);
    let (status, message) = result(&unreachable, "hub");
    assert!(status == "error" && message.contains(&address), "{message}");
}

/// Hub and agent are installed together, with a token that exists before the hub does.
#[test]
fn configured_enrollment_token_enrolls_agents() {
    let folder = tempfile::tempdir().unwrap();
    let token = format!("pwe_{}", "0123456789abcdef".repeat(4));
    let start = |token: &str| {
        let variables = [("PERFWATCH_HUB_ENROLLMENT_TOKEN", token)];
        TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &variables)
    };
    let hub = start(&token);
    let address = hub.url("");
    let args = ["--hub", &address, "--token", &token, "--interval", "250ms"];
    let _agent = Process::spawn(AGENT, folder.path(), "agent", &args);
    eventually("the host appears", || hub.get("/api/v1/hosts").text.contains("\"total\":1"));
    let audit = hub.get("/api/v1/audit?text=enrollment_token.create").text;
    assert!(audit.contains("\"actor\":\"configuration\"") && !audit.contains(&token), "{audit}");
    hub.process.kill();
    // The next start finds the token with one use less.
    let hub = start(&token);
    let tokens = hub.get("/api/v1/enrollment-tokens").body["enrollment_tokens"].clone();
    assert_eq!(
        (tokens.as_array().unwrap().len(), &tokens[0]["uses_left"]),
        (1, &Value::from(9_999)),
        "{tokens}"
    );
    hub.process.kill();
    let variables = [("PERFWATCH_HUB_ENROLLMENT_TOKEN", "pwe_short")];
    let mut refused = Process::spawn_with(BINARY, folder.path(), "refused", &["hub"], &variables);
    assert!(!refused.child.wait().unwrap().success());
    assert!(refused.log().contains("enrollment_token: expected pwe_"), "{}", refused.log());
}

#[test]
fn completions_are_valid_scripts() {
    for (program, word) in [("perfwatch", "doctor"), ("perfwatch-agent", "install")] {
        let output =
            Command::new(BINARY).args(["completions", "bash", "--program", program]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(word) && script.contains(&format!(" -o default {program}\n")), "{script}");
        let check = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}
