//! Front door of a real hub: the address by which browsers know it, and requests of strangers.

use crate::support::{ADMIN, BINARY, Process, TestHub};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

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
