//! Command line of the built binaries.

use crate::support::{AGENT, BINARY, Process, TestHub, eventually};
use std::io::BufRead as _;
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(BINARY).args(args).env("PERFWATCH_DATA", folder.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn once_prints_this_machine() {
    let output = run(&["once", "--interval", "250ms"]);
    let screen = text(&output.stdout);
    assert!(
        output.status.success() && screen.contains("CPU") && screen.contains("COMMAND"),
        "{screen}{}",
        text(&output.stderr)
    );
    let json = run(&["once", "--json", "--interval", "250ms"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(value["memory"]["total"].as_u64().unwrap() > 1 << 20);
    assert!(value["cpu"]["usage"].is_number(), "{value}");
    assert!(value["processes"]["top"].as_array().unwrap().len() > 1);
}

#[test]
fn capture_round_trips_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("this.capture");
    let secret = "hunter2-in-a-test";
    let mut child = Command::new("sh").args(["-c", "sleep 30; :", "--password", secret]).spawn().unwrap();
    let output = run(&["capture", file.to_str().unwrap()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = std::fs::read(file).unwrap();
    assert!(text(&bytes).contains("--password ***") && !text(&bytes).contains(secret));
    let capture = perfwatch_collect::Capture::parse(&bytes).unwrap();
    let set = perfwatch_collect::CollectorSet::new(&[], perfwatch_collect::CollectorOptions::default());
    let clock = perfwatch_model::SystemClock::new();
    let reading = perfwatch_collect::read_all(
        &capture,
        &set,
        &mut perfwatch_collect::CollectorCache::default(),
        &clock,
    );
    let derived = perfwatch_collect::Deriver::default().derive(&reading, &set.options);
    assert!(derived.samples.len() > 60 && derived.errors.is_empty(), "{:?}", derived.errors);
}

#[test]
fn redis_url_is_checked_at_the_start() {
    let output = run(&["hub", "--redis", "redis+sentinel://:hunter2@a:26379"]);
    let error = text(&output.stderr);
    assert!(
        !output.status.success() && error.contains("redis: invalid Redis URL: no name of a service"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn configuration_errors_are_one_line() {
    for (args, expected) in [
        (
            &["hub", "--listen", "nonsense"][..],
            "hub.listen: invalid address \"nonsense\"; expected ADDRESS:PORT",
        ),
        (&["agent", "--interval", "1ms"], "interval: 1ms is not between 250 ms and 1 h"),
        (&["agent", "--hub", "ftp://x"], "hub: invalid URL \"ftp://x\"; expected one such as"),
        (&["agent", "--hub", "https://x", "--ca", "/nowhere.pem"], "ca: /nowhere.pem: No such file"),
        (&["agent", "--token", "file:/nowhere"], "agent.token: /nowhere: No such file"),
        (&["once", "--config", "/nowhere.yaml"], "/nowhere.yaml: No such file"),
        (&["once", "--log-level", "loud"], "invalid level \"loud\""),
    ] {
        let output = run(args);
        let error = text(&output.stderr);
        assert!(
            !output.status.success() && error.contains(expected) && error.lines().count() == 1,
            "{args:?}: {error}"
        );
    }
}

#[test]
fn hub_with_embedded_agent_shuts_down_gracefully() {
    let folder = tempfile::tempdir().unwrap();
    let mut all =
        Process::spawn(BINARY, folder.path(), "all", &["--listen", "127.0.0.1:0", "--interval", "250ms"]);
    // First start: the printed link creates the first administrator.
    let mut lines = std::io::BufReader::new(all.child.stdout.take().unwrap()).lines();
    let mut line = |part: &str| lines.by_ref().map(Result::unwrap).find(|line| line.contains(part)).unwrap();
    let url = line(" is listening on ").trim().rsplit(' ').next().unwrap().to_owned();
    let link = line("/setup#").trim().to_owned();
    let secret = link.rsplit('#').next().unwrap();
    assert!(link.starts_with(&url) && !all.log().contains(secret), "{link}");
    let create_admin = |secret: &str| {
        let body = serde_json::json!({ "secret": secret, "name": "Alice", "password": "initial-password-1" });
        ureq::post(format!("{url}/api/v1/auth/setup"))
            .header("Content-Type", "application/json")
            .send(body.to_string())
    };
    assert!(create_admin("pwu_guessed").is_err());
    let created = create_admin(secret).unwrap();
    let cookie = created.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(create_admin(secret).is_err(), "the link is valid once");
    let get = |path: &str| {
        let request = ureq::get(format!("{url}{path}")).header("Cookie", &cookie);
        request.call().unwrap().body_mut().read_to_string().unwrap()
    };
    eventually("this machine is a host", || get("/api/v1/hosts").contains("\"total\":1"));
    assert!(get("/").contains("PerfWatch"));
    // A used port is an error.
    let second = run(&["--listen", url.trim_start_matches("http://")]);
    assert!(text(&second.stderr).contains("cannot listen on"), "{}", text(&second.stderr));
    assert_eq!(all.terminate(), 0);
    assert!(all.log().contains("agent stopped") && all.log().contains("hub stopped"), "{}", all.log());
    assert!(folder.path().join("all/agent/host-id").exists());
}

/// A hub that listens on all addresses prints a link for other machines, too.
#[test]
fn setup_link_for_other_machines_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["hub", "--listen", "0.0.0.0:0"];
    let mut hub = Process::spawn(BINARY, folder.path(), "open", &args);
    eventually("the hub runs", || hub.log().contains("hub started"));
    let stdout = hub.child.stdout.take().unwrap();
    assert_eq!(hub.terminate(), 0);
    let printed: Vec<String> = std::io::BufReader::new(stdout).lines().map(Result::unwrap).collect();
    let links: Vec<&str> =
        printed.iter().map(|line| line.trim()).filter(|line| line.contains("/setup#")).collect();
    // The source address of the default route; a machine without network has none.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let is_connected = socket.connect("192.0.2.1:9").is_ok();
    let own = is_connected.then(|| format!("http://{}:", socket.local_addr().unwrap().ip()));
    assert!(links[0].starts_with("http://127.0.0.1:"), "{printed:?}");
    assert_eq!(links.len(), 1 + usize::from(own.is_some()), "{printed:?}");
    assert!(own.is_none_or(|own| links[1].starts_with(&own)), "{printed:?}");
}

#[test]
fn second_agent_on_the_same_state_dir_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let agent = ["agent", "--hub", "http://127.0.0.1:9"];
    let first = Process::spawn(BINARY, folder.path(), "same", &agent);
    eventually("the first agent runs", || first.log().contains("agent started"));
    let second =
        Command::new(BINARY).args(agent).env("PERFWATCH_DATA", folder.path().join("same")).output().unwrap();
    assert!(text(&second.stderr).contains("another agent already uses"), "{}", text(&second.stderr));
    first.kill();
    let third = Process::spawn(BINARY, folder.path(), "same", &agent);
    // First and third agent write to the same log.
    eventually("the lock is released", || third.log().matches("agent started").count() == 2);
}

#[test]
fn backup_and_restore_of_a_simulated_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let url = hub.url("");
    let mut fleet = Process::spawn(
        BINARY,
        folder.path(),
        "fleet",
        &["simulate", "--hosts", "3", "--backfill", "10m", "--hub", &url, "--token", &hub.token],
    );
    let total = || hub.get("/api/v1/system").body["accepted_snapshots"].as_u64().unwrap();
    eventually("the backfill is complete", || total() >= 900);
    // SIGTERM, not SIGKILL: a request in flight is answered before the simulation exits, so nothing is
    // appended between the backup and the export.
    assert_eq!(fleet.terminate(), 0);
    let data = folder.path().join("hub");
    let run_with = |data: &std::path::Path, args: &[&str]| {
        Command::new(BINARY).args(args).env("PERFWATCH_DATA", data).output().unwrap()
    };
    let name = hub.get("/api/v1/hosts").body["hosts"][0]["name"].as_str().unwrap().to_owned();
    let export = ["export", &name, "--format", "jsonl", "--from", "-1h"];
    // While the hub runs.
    let copy = folder.path().join("copy.db");
    let backup = run_with(&data, &["backup", copy.to_str().unwrap()]);
    assert!(backup.status.success(), "{}", text(&backup.stderr));
    let exported = run_with(&data, &export);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    assert!(text(&exported.stdout).lines().count() >= 300, "{}", text(&exported.stderr));
    // Restoring is rejected while the hub runs, and works into an empty directory.
    let rejected = run_with(&data, &["restore", copy.to_str().unwrap()]);
    assert!(
        !rejected.status.success() && text(&rejected.stderr).contains("in use by another hub"),
        "{}",
        text(&rejected.stderr)
    );
    let other = folder.path().join("other");
    let restored = run_with(&other, &["restore", copy.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_eq!(
        text(&run_with(&other, &export).stdout),
        text(&exported.stdout),
        "the restored history is equal"
    );
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "no database").unwrap();
    let rejected = run_with(&other, &["restore", garbage.to_str().unwrap()]);
    assert!(
        !rejected.status.success() && text(&rejected.stderr).contains("garbage"),
        "{}",
        text(&rejected.stderr)
    );
    assert_eq!(
        text(&run_with(&other, &export).stdout),
        text(&exported.stdout),
        "a failed restore changes nothing"
    );
}

#[test]
fn user_commands_work_beside_a_running_hub() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user = |args: &[&str], input: &str| {
        let mut command = Command::new(BINARY);
        command.arg("user").args(args).env("PERFWATCH_DATA", folder.path().join("hub"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let assert_fails = |args: &[&str], input: &str, expected: &str| {
        let (success, output) = user(args, input);
        assert!(!success && output.contains(expected), "{args:?}: {output}");
    };
    assert_fails(&["add", "vera"], "short\n", "10 characters");
    assert_fails(&["add", "vera", "--role", "owner"], "long-password-1\n", "--role");
    assert_fails(&["add", "admin"], "long-password-1\n", "taken");
    assert_fails(&["token", "unknown"], "", "unknown user");
    let (success, output) = user(&["add", "Vera", "--role", "operator"], "long-password-1\n");
    assert!(success, "{output}");
    let (_, list) = user(&["list"], "");
    assert!(list.contains("admin") && list.contains("vera                 operator"), "{list}");
    // The running hub picks up each change.
    let can_log_in = |password: &str| {
        let body = serde_json::json!({ "name": "vera", "password": password });
        hub.request("POST", "/api/v1/auth/token", "", &body).status == 200
    };
    eventually("the user can log in", || can_log_in("long-password-1"));
    let (_, token) = user(&["token", "vera", "--scope", "ingest"], "");
    let body = serde_json::json!({ "host": "x", "cpu": { "usage": 1 } });
    eventually("the token is accepted", || {
        hub.request("POST", "/ingest/metrics", token.trim(), &body).status == 200
    });
    assert_fails(&["token", "vera", "--scope", "admin"], "", "exceed");
    assert!(user(&["password", "vera"], "other-password-1\n").0);
    eventually("the new password is accepted", || can_log_in("other-password-1"));
    assert!(user(&["remove", "vera"], "").0);
    eventually("the user is deleted", || !can_log_in("other-password-1"));
    let audit = hub.get("/api/v1/audit?text=cli").body;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 4, "{audit}");
    // The last administrator can be deleted too, and a new administrator can be created.
    assert!(user(&["remove", "admin"], "").0);
    assert!(user(&["add", "root", "--role", "admin"], "initial-password-2\n").0);
    eventually("the new administrator can log in", || {
        let body = serde_json::json!({ "name": "root", "password": "initial-password-2" });
        hub.request("POST", "/api/v1/auth/token", "", &body).status == 200
    });
}

#[test]
fn agent_install_writes_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let script = hub.request("GET", "/install.sh", "", &serde_json::Value::Null).text;
    assert!(script.contains(&format!("hub='{}'", hub.url(""))), "{script}");
    let created =
        hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &serde_json::json!({ "name": "x" }));
    let token = created.body["token"].as_str().unwrap();
    let anonymous = hub.request("GET", "/download/agent-linux-x86_64", "", &serde_json::Value::Null);
    assert_eq!(anonymous.status, 401);
    // The download of the install script.
    let path = format!("/download/agent-linux-{}", std::env::consts::ARCH);
    let mut program =
        ureq::get(hub.url(&path)).header("Authorization", format!("Bearer {token}")).call().unwrap();
    let program = program.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    assert!(program.starts_with(b"\x7fELF"));
    let (root, url) = (folder.path().join("root"), hub.url(""));
    let install = |binary: &str, token: &str| {
        let mut command = Command::new(binary);
        if binary == BINARY {
            command.arg("agent");
        }
        command.args(["install", "--hub", &url, "--name", "served", "--token", token, "--interval", "250ms"]);
        command.arg("--root").arg(&root).output().unwrap()
    };
    let rejected = install(AGENT, &format!("pwe_{}", "0".repeat(64)));
    assert!(text(&rejected.stderr).contains("enrollment rejected"), "{}", text(&rejected.stderr));
    let installed = install(AGENT, token);
    assert!(installed.status.success(), "{}", text(&installed.stderr));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let unit = read("etc/systemd/system/perfwatch-agent.service");
    assert!(
        unit.contains("\nExecStart=/usr/local/bin/perfwatch-agent\n") && unit.contains("DynamicUser=yes")
    );
    let settings = read("etc/perfwatch/agent.yaml");
    assert!(settings.contains(&url) && !settings.contains(token), "{settings}");
    // Run the installed program with the installed configuration.
    let config = root.join("etc/perfwatch/agent.yaml");
    let data = root.join("var/lib/perfwatch");
    let mut service = Command::new(root.join("usr/local/bin/perfwatch-agent"))
        .arg("--data")
        .arg(&data)
        .env("PERFWATCH_CONFIG", config)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the installed agent sends", || hub.seqs("served").len() > 3);
    service.kill().unwrap();
    service.wait().unwrap();
    // Upgrade to the full binary: the stored secret is valid, no token is needed.
    let mut upgrade = Command::new(BINARY);
    let output = upgrade.args(["agent", "install", "--hub", &url, "--root"]).arg(&root).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        read("etc/systemd/system/perfwatch-agent.service")
            .contains("ExecStart=/usr/local/bin/perfwatch agent\n")
    );
}

#[test]
fn health_reports_a_running_hub() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let check = |args: &[&str]| {
        // The configured listen address is that of the hub in its container.
        let mut command = Command::new(BINARY);
        command.arg("health").args(args).env("PERFWATCH_HUB_LISTEN", &hub.address).output().unwrap()
    };
    for args in [&[][..], &["--ready"], &["--hub", &hub.url("")]] {
        let output = check(args);
        assert!(output.status.success() && text(&output.stdout) == "ok\n", "{}", text(&output.stderr));
    }
    for (url, expected) in [
        ("http://127.0.0.1:9", "http://127.0.0.1:9: "),
        ("127.0.0.1:9", "hub: invalid URL \"127.0.0.1:9\""),
        (&hub.url("/missing"), "/missing/healthz: the response is not from a PerfWatch hub"),
    ] {
        let output = check(&["--hub", url]);
        assert!(
            !output.status.success() && text(&output.stderr).contains(expected),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn health_reports_a_ticking_agent() {
    let folder = tempfile::tempdir().unwrap();
    let check = || Command::new(AGENT).arg("health").env("PERFWATCH_DATA", folder.path()).output().unwrap();
    let missing = check();
    let expected = format!("no agent runs with the state directory {}/agent", folder.path().display());
    assert!(
        !missing.status.success() && text(&missing.stderr).contains(&expected),
        "{}",
        text(&missing.stderr)
    );
    let args = ["--hub", "http://127.0.0.1:9", "--interval", "250ms"];
    let mut command = Command::new(AGENT);
    command.args(args).env("PERFWATCH_DATA", folder.path()).stderr(std::process::Stdio::null());
    let mut agent = command.spawn().unwrap();
    eventually("the agent is healthy", || check().status.success());
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(text(&check().stdout).starts_with("ok: last tick "));
}
