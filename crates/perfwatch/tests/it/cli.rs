//! The command line as a person uses it.

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
    let shown = text(&output.stdout);
    assert!(
        output.status.success() && shown.contains("CPU") && shown.contains("COMMAND"),
        "{shown}{}",
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
fn configuration_errors_are_one_line() {
    for (args, expected) in [
        (&["hub", "--listen", "nonsense"][..], "hub.listen: \"nonsense\" is not ADDRESS:PORT"),
        (&["agent", "--interval", "1ms"], "interval: 1ms is not between 250 ms and 1 h"),
        (&["agent", "--hub", "ftp://x"], "hub: invalid URL \"ftp://x\"; expected one such as"),
        (&["agent", "--hub", "https://x", "--ca", "/nowhere.pem"], "ca: /nowhere.pem: No such file"),
        (&["agent", "--token", "file:/nowhere"], "agent.token: /nowhere: No such file"),
        (&["once", "--config", "/nowhere.yaml"], "/nowhere.yaml: No such file"),
        (&["once", "--log-level", "loud"], "\"loud\" is not a level"),
    ] {
        let output = run(args);
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains(expected) && said.lines().count() == 1,
            "{args:?}: {said}"
        );
    }
}

#[test]
fn all_in_one_shuts_down_gracefully() {
    let folder = tempfile::tempdir().unwrap();
    let mut all =
        Process::spawn(BINARY, folder.path(), "all", &["--listen", "127.0.0.1:0", "--interval", "250ms"]);
    // As a newcomer: the link that it prints makes the first administrator.
    let mut said = std::io::BufReader::new(all.child.stdout.take().unwrap()).lines();
    let mut line = |what: &str| said.by_ref().map(Result::unwrap).find(|line| line.contains(what)).unwrap();
    let url = line(" is at ").trim().rsplit(' ').next().unwrap().to_owned();
    let link = line("/setup#").trim().to_owned();
    let secret = link.rsplit('#').next().unwrap();
    assert!(link.starts_with(&url) && !all.log().contains(secret), "{link}");
    let set_up = |secret: &str| {
        let body = serde_json::json!({ "secret": secret, "name": "Alice", "password": "what a fine day" });
        ureq::post(format!("{url}/api/v1/auth/setup"))
            .header("Content-Type", "application/json")
            .send(body.to_string())
    };
    assert!(set_up("pwu_guessed").is_err());
    let entered = set_up(secret).unwrap();
    let cookie = entered.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(set_up(secret).is_err(), "once");
    let page = |path: &str| {
        let get = ureq::get(format!("{url}{path}")).header("Cookie", &cookie);
        get.call().unwrap().body_mut().read_to_string().unwrap()
    };
    eventually("this machine is there", || page("/api/v1/hosts").contains("\"total\":1"));
    assert!(page("/").contains("PerfWatch"));
    // The port is taken: said, not guessed around.
    let again = run(&["--listen", url.trim_start_matches("http://")]);
    assert!(text(&again.stderr).contains("can't listen on"), "{}", text(&again.stderr));
    assert_eq!(all.terminate(), 0);
    assert!(all.log().contains("agent stopped") && all.log().contains("hub stopped"), "{}", all.log());
    assert!(folder.path().join("all/agent/host-id").exists());
}

#[test]
fn second_agent_on_the_same_state_dir_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let agent = ["agent", "--hub", "http://127.0.0.1:9"];
    let first = Process::spawn(BINARY, folder.path(), "same", &agent);
    eventually("the first runs", || first.log().contains("agent starts"));
    let second =
        Command::new(BINARY).args(agent).env("PERFWATCH_DATA", folder.path().join("same")).output().unwrap();
    assert!(text(&second.stderr).contains("another agent already uses"), "{}", text(&second.stderr));
    first.kill();
    let third = Process::spawn(BINARY, folder.path(), "same", &agent);
    // The log is one for both.
    eventually("the lock goes with its holder", || third.log().matches("agent starts").count() == 2);
}

#[test]
fn backup_and_restore_of_a_simulated_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let url = hub.url("");
    let fleet = Process::spawn(
        BINARY,
        folder.path(),
        "fleet",
        &["simulate", "--hosts", "3", "--past", "10m", "--hub", &url, "--token", &hub.token],
    );
    let total = || hub.get("/api/v1/system").body["accepted_snapshots"].as_u64().unwrap();
    eventually("the past is there", || total() >= 900);
    drop(fleet);
    let data = folder.path().join("hub");
    let at = |data: &std::path::Path, args: &[&str]| {
        Command::new(BINARY).args(args).env("PERFWATCH_DATA", data).output().unwrap()
    };
    let name = hub.get("/api/v1/hosts").body["hosts"][0]["name"].as_str().unwrap().to_owned();
    let export = ["export", &name, "--format", "jsonl", "--from", "-1h"];
    // Beside the hub that runs.
    let copy = folder.path().join("copy.db");
    let backup = at(&data, &["backup", copy.to_str().unwrap()]);
    assert!(backup.status.success(), "{}", text(&backup.stderr));
    let there = at(&data, &export);
    assert!(there.status.success(), "{}", text(&there.stderr));
    assert!(text(&there.stdout).lines().count() >= 300, "{}", text(&there.stderr));
    // Not under a hub that runs; into an empty folder it goes.
    let refused = at(&data, &["restore", copy.to_str().unwrap()]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("another hub runs"),
        "{}",
        text(&refused.stderr)
    );
    let other = folder.path().join("other");
    let restored = at(&other, &["restore", copy.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_eq!(text(&at(&other, &export).stdout), text(&there.stdout), "the same to the last row");
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "no database").unwrap();
    let refused = at(&other, &["restore", garbage.to_str().unwrap()]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("garbage"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(text(&at(&other, &export).stdout), text(&there.stdout), "what was there stays");
}

#[test]
fn user_commands_work_beside_a_running_hub() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user = |args: &[&str], said: &str| {
        let mut command = Command::new(BINARY);
        command.arg("user").args(args).env("PERFWATCH_DATA", folder.path().join("hub"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let fails = |args: &[&str], said: &str, why: &str| {
        let (fine, told) = user(args, said);
        assert!(!fine && told.contains(why), "{args:?}: {told}");
    };
    fails(&["add", "vera"], "short\n", "10 characters");
    fails(&["add", "vera", "--role", "queen"], "a long enough one\n", "--role");
    fails(&["add", "admin"], "a long enough one\n", "taken");
    fails(&["token", "nobody"], "", "there is no user");
    let (fine, told) = user(&["add", "Vera", "--role", "operator"], "a long enough one\n");
    assert!(fine, "{told}");
    let (_, list) = user(&["list"], "");
    assert!(list.contains("admin") && list.contains("vera                 operator"), "{list}");
    // The hub that runs sees it by itself.
    let enters = |password: &str| {
        let body = serde_json::json!({ "name": "vera", "password": password });
        hub.request("POST", "/api/v1/auth/token", "", &body).status == 200
    };
    eventually("she may log in", || enters("a long enough one"));
    let (_, token) = user(&["token", "vera", "--scope", "ingest"], "");
    let body = serde_json::json!({ "host": "x", "cpu": { "usage": 1 } });
    eventually("her token sends", || {
        hub.request("POST", "/ingest/metrics", token.trim(), &body).status == 200
    });
    fails(&["token", "vera", "--scope", "admin"], "", "may not do more than its user");
    assert!(user(&["password", "vera"], "quite another one\n").0);
    eventually("with the new one", || enters("quite another one"));
    assert!(user(&["remove", "vera"], "").0);
    eventually("she is gone", || !enters("quite another one"));
    let audit = hub.get("/api/v1/audit?text=command").body;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 4, "{audit}");
    // The last one, too: the next start offers the link again, and somebody may be added by hand.
    assert!(user(&["remove", "admin"], "").0);
    assert!(user(&["add", "root", "--role", "admin"], "the first one again\n").0);
    eventually("somebody is there again", || {
        let body = serde_json::json!({ "name": "root", "password": "the first one again" });
        hub.request("POST", "/api/v1/auth/token", "", &body).status == 200
    });
}

#[test]
fn agent_install_writes_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let script = hub.request("GET", "/install.sh", "", &serde_json::Value::Null).text;
    assert!(script.contains(&format!("hub='{}'", hub.url(""))), "{script}");
    let made =
        hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &serde_json::json!({ "name": "x" }));
    let token = made.body["token"].as_str().unwrap();
    let refused = hub.request("GET", "/download/agent-linux-x86_64", "", &serde_json::Value::Null);
    assert_eq!(refused.status, 401);
    // As the script gets it.
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
    let wrong = install(AGENT, &format!("pwe_{}", "0".repeat(64)));
    assert!(text(&wrong.stderr).contains("does not let this agent in"), "{}", text(&wrong.stderr));
    let done = install(AGENT, token);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let unit = read("etc/systemd/system/perfwatch-agent.service");
    assert!(
        unit.contains("\nExecStart=/usr/local/bin/perfwatch-agent\n") && unit.contains("DynamicUser=yes")
    );
    let settings = read("etc/perfwatch/agent.yaml");
    assert!(settings.contains(&url) && !settings.contains(token), "{settings}");
    // What it says is what runs.
    let config = root.join("etc/perfwatch/agent.yaml");
    let data = root.join("var/lib/perfwatch");
    let mut service = Command::new(root.join("usr/local/bin/perfwatch-agent"))
        .arg("--data")
        .arg(&data)
        .env("PERFWATCH_CONFIG", config)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it sends", || hub.seqs("served").len() > 3);
    service.kill().unwrap();
    service.wait().unwrap();
    // Again, with the whole program and the secret it has: no token is needed.
    let mut again = Command::new(BINARY);
    let output = again.args(["agent", "install", "--hub", &url, "--root"]).arg(&root).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        read("etc/systemd/system/perfwatch-agent.service")
            .contains("ExecStart=/usr/local/bin/perfwatch agent\n")
    );
}
