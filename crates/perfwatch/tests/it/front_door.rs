//! Front door of a real hub: the address by which browsers know it, and requests of strangers.

use crate::support::{ADMIN, AGENT, BINARY, Process, TestHub, eventually};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Sends a request over plain HTTP as a proxy without forwarding headers does; returns the whole response.
fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> String {
    let body = body.to_string();
    let length = body.len().to_string();
    let common = [("Host", address), ("Connection", "close"), ("Content-Length", &length)];
    let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
    for (name, value) in common.iter().chain(headers) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{head}\r\n{body}").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// M10: an `https` public URL alone makes cookies secure and sends the configured policy of HSTS.
/// L10: pages with the scheme `http` are another origin.
#[test]
fn https_public_url_alone_secures_cookies_and_origins() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("PERFWATCH_HUB_PUBLIC_URL", "https://watch.example"), ("PERFWATCH_HUB_HSTS", "365d")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &variables);
    let credentials = json!({ "name": ADMIN.0, "password": ADMIN.1 });
    let log_in = |origin: &str| {
        let headers = [("Origin", origin)];
        send(&hub.address, "POST", "/api/v1/auth/login", &headers, &credentials).to_lowercase()
    };
    let response = log_in("https://watch.example");
    assert!(response.starts_with("http/1.1 200"), "{response}");
    let cookie = response.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.contains("; secure"), "{cookie}");
    assert!(response.contains("strict-transport-security: max-age=31536000"), "{response}");
    for origin in ["http://watch.example", "http://watch.example:443", "https://evil.example"] {
        let response = log_in(origin);
        assert!(response.contains("\"code\":\"cross_origin\""), "{origin}: {response}");
    }
}

/// L4: strangers with wrong setup links, also behind the administrator's own address, do not keep the real link
/// from working.
#[test]
fn wrong_setup_links_do_not_block_the_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Process::spawn(BINARY, folder.path(), "hub", &["hub", "--listen", "127.0.0.1:0"]);
    let mut lines = BufReader::new(hub.child.stdout.take().unwrap()).lines();
    let mut line = |part: &str| lines.by_ref().map(Result::unwrap).find(|line| line.contains(part)).unwrap();
    let address = line(" is listening on ").trim().rsplit("://").next().unwrap().to_owned();
    let secret = line("/setup#").trim().rsplit('#').next().unwrap().to_owned();
    let set_up = |secret: &str| {
        let body = json!({ "secret": secret, "name": "alice", "password": "initial-password-1" });
        let response = send(&address, "POST", "/api/v1/auth/setup", &[], &body);
        response.split(' ').nth(1).unwrap().to_owned()
    };
    let wrong: Vec<String> = (0..40).map(|n| set_up(&format!("pwu_{n}"))).collect();
    assert_eq!(wrong.iter().filter(|status| *status == "401").count(), 20, "{wrong:?}");
    assert_eq!(wrong[39], "429");
    assert_eq!(set_up(&secret), "200");
}

/// M7: wrong enrollment tokens are audited, and slowed down for their address, while valid ones work.
#[test]
fn wrong_enrollments_are_audited_and_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let enroll = |token: &str| {
        let host = "01a1ffe1-afde-72f9-853f-a45c90cff753";
        let body = json!({ "token": token, "host_id": host, "host_name": "enrolled" });
        hub.request("POST", "/api/v1/agents/enroll", "", &body)
    };
    let download = |token: &str| hub.request("GET", "/download/agent-linux-none", token, &Value::Null);
    assert_eq!(download("pwe_wrong").status, 401);
    for n in 0..19 {
        assert_eq!(enroll(&format!("pwe_{n}")).code(), "invalid_enrollment_token");
    }
    assert_eq!(enroll("pwe_20").status, 429);
    assert_eq!(download("pwe_wrong").status, 429);
    let audit = |text: &str| {
        let path = format!("/api/v1/audit?text={text}");
        hub.get(&path).body["entries"].as_array().unwrap().len()
    };
    assert_eq!((audit("agent.enroll_failed"), audit("agent.download_failed")), (19, 1));
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &json!({ "name": "x" }));
    let token = created.body["token"].as_str().unwrap();
    assert_eq!(download(token).status, 404, "no binary for this architecture");
    assert_eq!(enroll(token).status, 201);
    assert!(!hub.log_in(ADMIN.0, ADMIN.1).is_empty(), "logins are counted separately");
}

/// Information: an agent whose hub is `http://` on another machine says so, and the hub lists it.
#[test]
fn unencrypted_agents_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("PERFWATCH_HUB_TRUSTED_PROXIES", "127.0.0.1")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &variables);
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &json!({ "name": "x" }));
    let body = json!({
        "token": created.body["token"],
        "host_id": "01a1ffe1-afde-72f9-853f-a45c90cff753",
        "host_name": "enrolled",
    });
    let enrolled = hub.request("POST", "/api/v1/agents/enroll", "", &body);
    let secret = format!("Bearer {}", enrolled.body["secret"].as_str().unwrap());
    for (client, scheme, unencrypted) in [
        ("192.0.2.1", "http", true),
        ("192.0.2.1", "https", false),
        ("192.0.2.1", "http", true),
        ("127.0.0.1", "http", false),
    ] {
        let headers =
            [("Authorization", &*secret), ("X-Forwarded-For", client), ("X-Forwarded-Proto", scheme)];
        let response = send(&hub.address, "POST", "/ingest/metrics", &headers, &json!([]));
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let agents = hub.get("/api/v1/agents").body;
        assert_eq!(agents["agents"][0]["unencrypted"], unencrypted, "{client} {scheme}");
    }
    for (url, is_reported) in [("http://192.0.2.1:9", true), ("http://127.0.0.1:9", false)] {
        let name = format!("agent-{is_reported}");
        let agent = Process::spawn(BINARY, folder.path(), &name, &["agent", "--hub", url]);
        eventually("the agent starts", || agent.log().contains("agent started"));
        let log = || agent.log().contains("connection to the hub is not encrypted");
        if is_reported {
            eventually("the agent warns", log);
        } else {
            assert!(!log());
        }
    }
}

/// Information: the verified install command runs only the script and the agent of the hub.
#[test]
fn verified_install_command_rejects_changed_files() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let hub = TestHub::start(folder.path());
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, &json!({ "name": "x" }));
    let command = created.body["verified_command"].as_str().unwrap().to_owned();
    // Instead of `sudo sh`: the script is only parsed.
    let run = |command: &str| {
        let command = command.replace("sudo sh", "sh -n");
        Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).output().unwrap().status.success()
    };
    assert!(run(&command), "{command}");
    // Another agent in the downloads directory changes the script, as another machine in between does.
    std::fs::create_dir_all(data.join("downloads")).unwrap();
    let binary = data.join("downloads").join(format!("perfwatch-agent-{}", std::env::consts::ARCH));
    std::fs::write(&binary, "#!/bin/sh\nexit 1\n").unwrap();
    assert!(!run(&command), "{command}");
    // The script itself checks the agent.
    let script = hub.request("GET", "/install.sh", "", &Value::Null).text;
    std::fs::copy(AGENT, &binary).unwrap();
    let path = folder.path().join("install.sh");
    std::fs::write(&path, script.replace("[ \"$(id -u)\" = 0 ]", "true")).unwrap();
    let token = created.body["token"].as_str().unwrap();
    let mut child = Command::new("sh")
        .arg(&path)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("SHA-256 mismatch"), "{error}");
}

#[test]
fn answers_that_depend_on_the_caller_are_not_cached() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let authorization = format!("Bearer {}", hub.token);
    for path in ["/metrics", "/api/v1/hosts", "/api/v1/unknown", "/api/metrics/recent?host=x"] {
        let response = send(&hub.address, "GET", path, &[("Authorization", &authorization)], &Value::Null);
        assert!(response.to_lowercase().contains("\r\ncache-control: no-store\r\n"), "{path}: {response}");
    }
}
