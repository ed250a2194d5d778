//! Operation under unfavorable conditions: foreign environment variables, wrong directories, a corrupt
//! database, output that cannot be written.

use crate::support::{AGENT, BINARY, Process, TestHub, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn run(data: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env("PERFWATCH_DATA", data).output().unwrap()
}

#[test]
fn service_links_are_ignored_and_misspelled_settings_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let links = [
        ("PERFWATCH_PORT", "tcp://10.0.0.1:8000"),
        ("PERFWATCH_SERVICE_HOST", "10.0.0.1"),
        ("PERFWATCH_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("PERFWATCH_HUB_SERVICE_PORT_HTTP", "8000"),
        ("PERFWATCH_HUB_PORT", "tcp://10.0.0.1:8000"),
        ("PERFWATCH_RELEASE", "2026-11"),
    ];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &links);
    let log = hub.process.log();
    assert_eq!(log.matches("PERFWATCH_").count(), 1, "{log}");
    assert_eq!(log.matches("PERFWATCH_RELEASE: unknown setting").count(), 1, "{log}");
    let misspelled = Command::new(BINARY).arg("hub").env("PERFWATCH_HUB_LISTNE", "x").output().unwrap();
    assert!(!misspelled.status.success() && text(&misspelled).contains("PERFWATCH_HUB_LISTEN"));
}

#[test]
fn empty_data_variable_is_the_default_directory() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Command::new(AGENT)
        .args(["--hub", "http://127.0.0.1:9", "--interval", "250ms"])
        .env("PERFWATCH_DATA", "")
        .env("XDG_STATE_HOME", folder.path().join("state"))
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = folder.path().join("state/perfwatch/agent/host-id");
    eventually("the default directory is used", || id.exists());
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(!folder.path().join("agent").exists());
}

#[test]
fn commands_do_not_create_a_database_in_a_wrong_directory() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    for args in [
        &["user", "list"][..],
        &["user", "add", "vera"],
        &["user", "token", "vera"],
        &["backup", "/dev/null/x"],
        &["export", "web"],
        &["rotate-key"],
    ] {
        for data in [folder.path(), &wrong] {
            let output = run(data, args);
            let message = text(&output);
            assert!(
                !output.status.success() && message.contains("pass the data directory"),
                "{args:?}: {message}"
            );
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{args:?} creates nothing");
        }
    }
    let mut add = Command::new(BINARY);
    add.args(["user", "add", "vera", "--create-database"]).env("PERFWATCH_DATA", &wrong);
    let mut add = add.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut add.stdin.take().unwrap(), b"long-password-1\n").unwrap();
    assert!(add.wait().unwrap().success());
    assert!(text(&run(&wrong, &["user", "list"])).contains("vera"));
}

#[test]
fn corrupt_database_is_reported_with_advice_and_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    assert_eq!(hub.post_json(&json!({ "host": "web", "cpu": { "usage": 1 } })).status, 200);
    let (data, copy) = (folder.path().join("hub"), folder.path().join("copy.db"));
    assert!(run(&data, &["backup", copy.to_str().unwrap()]).status.success());
    // The log is written into the database.
    let mut process = hub.process;
    assert_eq!(process.terminate(), 0);
    let database = data.join("history/history.db");
    for length in [100, 40_000] {
        let mut bytes = std::fs::read(&database).unwrap();
        let end = length.min(bytes.len());
        bytes[..end].fill(b'x');
        std::fs::write(&database, bytes).unwrap();
        let _ = std::fs::remove_file(data.join("history/history.db-wal"));
        for args in [&["hub", "--listen", "127.0.0.1:0"][..], &["user", "list"], &["export", "web"]] {
            let output = run(&data, args);
            let message = text(&output);
            assert!(!output.status.success() && message.contains("perfwatch restore"), "{args:?}: {message}");
            assert!(message.contains("history.db"), "{message}");
        }
    }
    let restored = run(&data, &["restore", copy.to_str().unwrap()]);
    assert!(restored.status.success() && text(&restored).contains("renamed to"), "{}", text(&restored));
    assert!(!text(&restored).contains("encryption key"), "the key is there: {}", text(&restored));
    let elsewhere = run(&folder.path().join("elsewhere"), &["restore", copy.to_str().unwrap()]);
    let message = text(&elsewhere);
    assert!(
        message.contains("elsewhere/encryption.key: ") && message.contains("elsewhere/agent: "),
        "{message}"
    );
    let hub = TestHub::start(folder.path());
    assert_eq!(hub.get("/api/v1/hosts/web").status, 200);
}

#[test]
fn token_and_user_of_the_command_line_are_accepted_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let data = folder.path().join("hub");
    for _ in 0..5 {
        let token = String::from_utf8(run(&data, &["user", "token", "admin"]).stdout).unwrap();
        assert_eq!(hub.request("GET", "/api/v1/hosts", token.trim(), &Value::Null).status, 200);
    }
    let user = |args: &[&str], password: &str| {
        let mut command = Command::new(BINARY);
        command.arg("user").args(args).env("PERFWATCH_DATA", &data).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), password.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    user(&["add", "vera"], "long-password-1\n");
    hub.log_in("vera", "long-password-1");
    user(&["password", "vera"], "long-password-2\n");
    hub.log_in("vera", "long-password-2");
}

#[test]
fn processes_run_without_a_writable_output() {
    let folder = tempfile::tempdir().unwrap();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut all = Command::new(BINARY)
        .args(["--listen", &port.to_string(), "--interval", "250ms"])
        .env("PERFWATCH_DATA", folder.path().join("all"))
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    eventually("the hub runs", || ureq::get(format!("http://{port}/healthz")).call().is_ok());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(all.try_wait().unwrap().is_none());
    all.kill().unwrap();
    all.wait().unwrap();
    for args in [&["probe"][..], &["once", "--interval", "250ms"], &["user", "unknown"]] {
        let mut command = Command::new(BINARY);
        command.args(args).env("PERFWATCH_DATA", folder.path().join("all"));
        let output = command.stdout(full()).output().unwrap();
        assert!(
            !output.status.success() && !text(&output).contains("panicked"),
            "{args:?}: {}",
            text(&output)
        );
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert!(matches!(status.code(), Some(1 | 2)), "{args:?}: {status}");
    }
}

#[test]
fn secrets_of_settings_are_not_logged() {
    let folder = tempfile::tempdir().unwrap();
    let url = "http://alice:hunter2secret@127.0.0.1:9/?token=hunter2secret";
    let agent = Process::spawn(AGENT, folder.path(), "agent", &["--hub", url, "--interval", "250ms"]);
    eventually("the outage is logged", || agent.log().contains("hub unreachable"));
    assert!(
        agent.log().contains("http://***@127.0.0.1:9") && !agent.log().contains("hunter2"),
        "{}",
        agent.log()
    );
    let config = folder.path().join("config.yaml");
    for content in ["agent: {token: 12345678901}", "hub: {admin: {password: 12345678901}}"] {
        std::fs::write(&config, content).unwrap();
        let output = run(folder.path(), &["hub", "--config", config.to_str().unwrap()]);
        assert!(!output.status.success() && !text(&output).contains("12345678901"), "{}", text(&output));
    }
    let output = run(folder.path(), &["agent", "--hub", "htp://alice:hunter2secret@hub"]);
    assert!(text(&output).contains("invalid URL") && !text(&output).contains("hunter2"), "{}", text(&output));
}

#[test]
fn signals_reload_or_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "log: {level: warn}\n").unwrap();
    let config = config.to_str().unwrap();
    let hub_args = ["hub", "--listen", "127.0.0.1:0", "--config", config];
    let hub = TestHub::start_with_env(folder.path(), &hub_args, &[("PERFWATCH_LOG_LEVEL", "")]);
    let url = hub.url("");
    let agent_args =
        ["--hub", &url, "--interval", "250ms", "--token", &hub.token, "--name", "it", "--config", config];
    let variables = [("PERFWATCH_LOG_LEVEL", "")];
    let agent = Process::spawn_with(AGENT, folder.path(), "agent", &agent_args, &variables);
    eventually("the agent sends", || hub.seqs("it").len() > 1);
    std::fs::write(config, "log: {level: info}\n").unwrap();
    for process in [&hub.process, &agent] {
        assert!(!process.log().contains("INFO"), "{}", process.log());
        process.signal("HUP");
        eventually("the level is reloaded", || process.log().contains("log level reloaded level=\"info\""));
        for signal in ["USR1", "USR2", "PIPE"] {
            process.signal(signal);
        }
        eventually("the signals are logged", || process.log().contains("signal ignored signal=\"SIGUSR2\""));
    }
    std::fs::write(config, "log: {level: loud}\n").unwrap();
    hub.process.signal("HUP");
    eventually("an invalid file is reported", || hub.process.log().contains("keeping the current level"));
    std::fs::write(config, "log: [\n").unwrap();
    hub.process.signal("HUP");
    eventually("an invalid file is reported", || hub.process.log().contains("keeping the current settings"));
    let sent = hub.seqs("it").len();
    eventually("both still run", || hub.seqs("it").len() > sent + 2);
    let (mut agent, mut hub) = (agent, hub.process);
    assert_eq!((agent.terminate(), hub.terminate()), (0, 0));
}
