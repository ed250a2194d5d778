//! Who may enter: every route by every credential, as the API document says; what ends, ends at
//! once; and nothing secret stands in a log.

use crate::support::{ADMIN, AGENT, Process, TestHub, eventually, now_ms};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const VIEWER: (&str, &str) = ("vera", "nothing but looking");
const OPERATOR: (&str, &str) = ("oscar", "turning the wheels");

pub(crate) fn add_user(hub: &TestHub, (name, password): (&str, &str), role: &str, tags: &[&str]) -> String {
    let body = json!({ "name": name, "password": password, "role": role, "host_tags": tags });
    let made = hub.request("POST", "/api/v1/users", &hub.token, &body);
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].as_str().unwrap().to_owned()
}

fn enrolment(hub: &TestHub, uses: u32) -> String {
    let made = hub.request(
        "POST",
        "/api/v1/enrollment-tokens",
        &hub.token,
        &json!({ "name": "test", "uses": uses }),
    );
    made.body["token"].as_str().unwrap_or_else(|| panic!("{}", made.text)).to_owned()
}

fn enrol(hub: &TestHub, token: &str, host: &str) -> crate::support::TestResponse {
    let body = json!({ "token": token, "host_id": host, "host_name": "enrolled" });
    hub.request("POST", "/api/v1/agents/enroll", "", &body)
}

/// Credentials by name, and the roles they have as numbers; agents and ingest tokens have none.
fn all_credentials(hub: &TestHub) -> Vec<(&'static str, String, Option<usize>)> {
    add_user(hub, VIEWER, "viewer", &[]);
    add_user(hub, OPERATOR, "operator", &[]);
    let token = |who, scope| hub.make_token(who, scope);
    let agent = enrol(hub, &enrolment(hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff753");
    vec![
        ("nobody", String::new(), None),
        ("a wrong token", format!("pwt_{}", "0".repeat(64)), None),
        ("a forged token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".to_owned(), None),
        ("ingest", token(OPERATOR, "ingest"), None),
        ("agent", agent.body["secret"].as_str().unwrap().to_owned(), None),
        ("viewer", token(VIEWER, "viewer"), Some(0)),
        ("operator", token(OPERATOR, "operator"), Some(1)),
        ("an operator's viewer token", token(OPERATOR, "viewer"), Some(0)),
        ("admin", token(ADMIN, "admin"), Some(2)),
        ("an admin's signed token", hub.create_user_and_log_in(ADMIN.0, ADMIN.1), Some(2)),
    ]
}

/// What the document says in words: the roles that are enough, as numbers, or who else.
fn allowed(told: &str, who: &str, role: Option<usize>) -> bool {
    let least = |text: &str| ["viewer", "operator", "admin"].iter().position(|role| text.contains(role));
    let known = !["nobody", "a wrong token", "a forged token"].contains(&who);
    match told.lines().last().unwrap_or_default() {
        "Open to everyone." => true,
        "For everyone who is known." => role.is_some(),
        // None of these.
        "For browsers that are logged in, not for tokens." => false,
        "For agents, tokens with the scope ingest, and operators." => {
            known && (role.is_none() || role >= Some(1))
        }
        text => role.is_some_and(|role| role >= least(text).unwrap()),
    }
}

#[test]
fn every_route_matches_the_openapi_document() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_with_env(
        folder.path(),
        &["hub", "--listen", "127.0.0.1:0"],
        &[("PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND", "10000")],
    );
    let everyone = all_credentials(&hub);
    let document = hub.request("GET", "/api/openapi.json", "", &Value::Null).body;
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let told = operation["description"].as_str().unwrap();
            let real = path.replace("{id}", "none").replace("{file}", "none");
            for (who, token, role) in &everyone {
                let answer = hub.request(&method.to_uppercase(), &real, token, &Value::Null);
                let place = format!("{method} {path} by {who}: {} {}", answer.status, answer.text);
                let documented = &operation["responses"][answer.status.to_string()];
                assert!(documented.is_object(), "{place}: not in the document");
                let refused = [
                    "authentication_required",
                    "not_allowed",
                    "unknown_token",
                    "token_expired",
                    "unknown_agent",
                ]
                .contains(&answer.code());
                // This one asks by itself, for a body or someone lasting.
                if path == "/api/v1/auth/token" {
                    continue;
                }
                assert_eq!(!refused, allowed(told, who, *role), "{place}");
                asked += 1;
            }
        }
    }
    assert!(asked > 300, "{asked}");
    // The live stream: by header, and by an address that only a signed token may stand in.
    let open = |query: String| run(connect_async(format!("ws://{}/api/ws/metrics{query}", hub.address)));
    assert!(open(String::new()).is_err());
    assert!(open(format!("?token={}", hub.token)).is_err(), "a token that lasts");
    assert!(open(format!("?token={}x", hub.create_user_and_log_in(VIEWER.0, VIEWER.1))).is_err());
    let made = hub.request("POST", "/api/v1/auth/token", &everyone[5].1, &Value::Null);
    let signed = made.body["token"].as_str().unwrap();
    assert!(open(format!("?token={signed}")).is_ok());
    assert_eq!(
        hub.request("POST", "/api/v1/auth/token", signed, &Value::Null).status,
        403,
        "it makes no other"
    );
}

/// How long until the hub closes it, in milliseconds, and why.
async fn closes(hub: &TestHub, signed: String, end: impl FnOnce()) -> (i64, u16) {
    let address = format!("ws://{}/api/ws/metrics?token={signed}", hub.address);
    let (mut socket, _) = connect_async(address).await.unwrap();
    end();
    let began = now_ms();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(frame)))) => return (now_ms() - began, frame.code.into()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn revoked_credentials_are_rejected_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let vera = add_user(&hub, VIEWER, "viewer", &[]);
    let signed = hub.create_user_and_log_in(VIEWER.0, VIEWER.1);
    // A token of theirs: what was signed for it ends with it.
    let cookie = hub.log_in(VIEWER.0, VIEWER.1);
    let made =
        hub.browser_request("POST", "/api/v1/tokens", &cookie, &json!({ "name": "one", "scope": "viewer" }));
    let (token, id) = (made.body["token"].as_str().unwrap(), made.body["id"].as_str().unwrap());
    let of_token = hub.request("POST", "/api/v1/auth/token", token, &Value::Null).body["token"].clone();
    let (took, code) = run(closes(&hub, of_token.as_str().unwrap().to_owned(), || {
        let gone = hub.browser_request("DELETE", &format!("/api/v1/tokens/{id}"), &cookie, &Value::Null);
        assert_eq!(gone.status, 204, "{}", gone.text);
    }));
    assert!(code == 4401 && took < 5_000, "{code} after {took} ms");
    assert_eq!(hub.request("GET", "/api/v1/hosts", of_token.as_str().unwrap(), &Value::Null).status, 401);
    // The person.
    let path = format!("/api/v1/users/{vera}");
    let (took, code) = run(closes(&hub, signed.clone(), || {
        assert_eq!(hub.request("PATCH", &path, &hub.token, &json!({ "enabled": false })).status, 200);
    }));
    assert!(code == 4401 && took < 5_000, "{code} after {took} ms");
    assert_eq!(hub.request("GET", "/api/v1/hosts", &signed, &Value::Null).status, 401);
    assert_eq!(hub.request("PATCH", &path, &hub.token, &json!({ "enabled": true })).status, 200);
    assert_eq!(
        hub.request("GET", "/api/v1/hosts", &signed, &Value::Null).status,
        401,
        "it does not come back"
    );
    // Somebody must be able to let others in.
    let me = hub.request("GET", "/api/v1/auth/me", &hub.token, &Value::Null).body["id"].clone();
    let me = format!("/api/v1/users/{}", me.as_str().unwrap());
    assert_eq!(hub.request("DELETE", &me, &hub.token, &Value::Null).code(), "last_admin");
    assert_eq!(hub.request("PATCH", &me, &hub.token, &json!({ "role": "viewer" })).code(), "last_admin");
}

#[test]
fn host_tags_limit_visible_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    for host in ["ours", "theirs"] {
        assert_eq!(hub.post_json(&json!({ "host": host, "cpu": { "usage": 1 } })).status, 200);
    }
    let tags = hub.request("PUT", "/api/v1/hosts/ours/tags", &hub.token, &json!({ "tags": ["team=a"] }));
    assert_eq!(tags.body["tags"], json!(["team=a"]), "{}", tags.text);
    add_user(&hub, VIEWER, "viewer", &["team=a", "team=b"]);
    let token = hub.make_token(VIEWER, "viewer");
    let get = |path: &str| hub.request("GET", path, &token, &Value::Null);
    assert_eq!(get("/api/v1/hosts").body["total"], 1);
    for (path, status) in [
        ("/api/v1/hosts/ours", 200),
        ("/api/v1/hosts/theirs", 404),
        ("/api/v1/hosts/theirs/series?metric=cpu.usage", 404),
        ("/api/v1/hosts/theirs/snapshot", 404),
        ("/api/v1/hosts/theirs/processes", 404),
        ("/api/v1/hosts/theirs/export", 404),
        ("/api/metrics/recent?host=theirs", 404),
        ("/api/metrics/recent", 200),
    ] {
        assert_eq!(get(path).status, status, "{path}");
    }
    let signed = hub.create_user_and_log_in(VIEWER.0, VIEWER.1);
    run(async {
        let address = format!("ws://{}/api/ws/metrics?token={signed}", hub.address);
        let (mut socket, _) = connect_async(address).await.unwrap();
        for (host, seq) in [("theirs", 5), ("ours", 6)] {
            let at = now_ms() + seq;
            hub.post_json(&json!({ "host": host, "timestamp": at, "seq": seq, "cpu": { "usage": 2 } }));
        }
        let first = socket.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(first.contains("\"ours\"") && !first.contains("theirs"), "{first}");
    });
}

#[test]
fn failed_logins_are_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let guess = |name: &str, password: &str| {
        hub.request("POST", "/api/v1/auth/login", "", &json!({ "name": name, "password": password }))
    };
    for _ in 0..5 {
        assert_eq!(guess("admin", "wrong wrong").code(), "invalid_credentials");
    }
    let late = guess("admin", ADMIN.1);
    assert_eq!((late.status, late.code()), (429, "too_many_requests"), "also the right one");
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(guess("admin", ADMIN.1).status, 200);
    assert_eq!(guess("nobody here", "wrong wrong").code(), "invalid_credentials", "the same answer");
    let audit = hub.get("/api/v1/audit?text=login.failed").body;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 6, "{audit}");
    assert_eq!(audit["entries"][0]["object"], "user ?", "a name that nobody has may be a password");
}

#[test]
fn cookie_requests_require_same_origin() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let login = ureq::post(hub.url("/api/v1/auth/login"))
        .header("Content-Type", "application/json")
        .send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string())
        .unwrap();
    let set = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    let post = |headers: &[(&str, &str)], cookie: &str| {
        let mut request = ureq::post(hub.url("/api/v1/auth/logout"))
            .config()
            .http_status_as_error(false)
            .build()
            .header("Cookie", cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send_empty().unwrap().status().as_u16()
    };
    let own = hub.url("");
    assert_eq!(post(&[], &cookie), 403, "no page");
    assert_eq!(post(&[("Origin", "http://evil.example")], &cookie), 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")], &cookie), 403);
    assert_eq!(post(&[("Origin", &own)], &cookie), 204);
    assert_eq!(post(&[("Origin", &own)], &cookie), 401, "it is over");
    // And what the page may load.
    let page = ureq::get(hub.url("/")).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && !policy.contains("script-src"), "{policy}");
}

#[test]
fn agent_enrolls_once_and_is_revoked_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let token = enrolment(&hub, 1);
    let url = hub.url("");
    let arguments = ["--hub", &url, "--interval", "250ms", "--name", "it"];
    let told = [("PERFWATCH_AGENT_TOKEN", token.as_str())];
    let agent = Process::spawn_with(AGENT, folder.path(), "agent", &arguments, &told);
    eventually("it sends", || hub.seqs("it").len() > 4);
    agent.kill();
    assert_eq!(enrol(&hub, &token, "01a1ffe1-afde-72f9-853f-a45c90cff753").status, 401, "used up");
    // It has a secret of its own, and needs no token any more.
    let before = hub.seqs("it").len();
    let mut agent = Process::spawn(AGENT, folder.path(), "agent", &arguments);
    eventually("it goes on", || hub.seqs("it").len() > before + 4);
    let agents = hub.get("/api/v1/agents").body["agents"].clone();
    assert_eq!(agents.as_array().unwrap().len(), 1, "{agents}");
    let id = agents[0]["id"].as_str().unwrap();
    // Another can't take its place while it is there, nor send for it.
    let host = agents[0]["host"].as_str().unwrap();
    assert_eq!(enrol(&hub, &enrolment(&hub, 1), host).code(), "host_already_enrolled");
    let other = enrol(&hub, &enrolment(&hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff754");
    let secret = other.body["secret"].as_str().unwrap();
    let foreign = json!({ "host": "it", "host_id": host, "cpu": { "usage": 1 } });
    assert_eq!(hub.request("POST", "/ingest/metrics", secret, &foreign).code(), "host_mismatch");
    let revoked = hub.request("POST", &format!("/api/v1/agents/{id}/revoke"), &hub.token, &Value::Null);
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(agent.child.wait().unwrap().code(), Some(78));
    assert!(agent.log().contains("revoked"), "{}", agent.log());
    let kept = std::fs::read_to_string(folder.path().join("agent/agent/secret")).unwrap();
    assert!(!agent.log().contains(kept.trim()) && !agent.log().contains(&token));
}

#[test]
fn logs_and_database_contain_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let trace = [("PERFWATCH_LOG_LEVEL", "trace")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &trace);
    let signed = hub.create_user_and_log_in(ADMIN.0, ADMIN.1);
    let (_, _) = run(connect_async(format!("ws://{}/api/ws/metrics?token={signed}", hub.address))).unwrap();
    let enrolment = enrolment(&hub, 1);
    let agent = enrol(&hub, &enrolment, "01a1ffe1-afde-72f9-853f-a45c90cff753");
    let agent = agent.body["secret"].as_str().unwrap().to_owned();
    hub.request("GET", "/api/v1/hosts", &agent, &Value::Null);
    hub.request("POST", "/api/v1/auth/login", "", &json!({ "name": "admin", "password": 5 }));
    hub.request("POST", "/api/v1/auth/login", "", &json!({ "name": "admin", "password": "a guess of mine" }));
    let secrets =
        [&hub.token, &signed, &enrolment, &agent, &ADMIN.1.to_owned(), &"a guess of mine".to_owned()];
    let audit = hub.get("/api/v1/audit").text;
    let log = hub.process.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    hub.process.kill();
    let files = std::fs::read_dir(folder.path().join("hub/history")).unwrap();
    let database: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let database = String::from_utf8_lossy(&database);
    assert!(database.contains("$argon2id$"));
    for secret in secrets {
        assert!(!log.contains(secret), "in the log: {secret}");
        assert!(!audit.contains(secret), "in the audit log: {secret}");
        assert!(!database.contains(secret), "in the database: {secret}");
    }
}

#[test]
fn scoped_operator_cannot_change_other_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let foreign = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let agent = enrol(&hub, &enrolment(&hub, 1), foreign).body["agent_id"].as_str().unwrap().to_owned();
    assert_eq!(hub.post_json(&json!({ "host": "known", "cpu": { "usage": 1 } })).status, 200);
    let known = hub.get("/api/v1/hosts/known").body["id"].as_str().unwrap().to_owned();
    add_user(&hub, OPERATOR, "operator", &["team=a"]);
    let token = hub.make_token(OPERATOR, "operator");
    let ask = |method: &str, path: &str, body: Value| hub.request(method, path, &token, &body);
    assert_eq!(ask("GET", "/api/v1/agents", Value::Null).body["agents"], json!([]));
    assert_eq!(ask("POST", &format!("/api/v1/agents/{agent}/revoke"), Value::Null).status, 404);
    assert_eq!(ask("PUT", "/api/v1/hosts/known/tags", json!({ "tags": ["team=a"] })).status, 404);
    for tags in [json!([]), json!(["team=b"]), json!(["team=a", "team=b"])] {
        let made = ask("POST", "/api/v1/enrollment-tokens", json!({ "name": "x", "tags": tags }));
        assert_eq!(made.code(), "invalid_enrollment_request", "{tags}");
    }
    let made =
        ask("POST", "/api/v1/enrollment-tokens", json!({ "name": "x", "tags": ["team=a"], "uses": 9 }));
    let own = made.body["token"].as_str().unwrap().to_owned();
    // A host that is there can't be taken, nor be made theirs; a new one can be let in.
    assert_eq!(enrol(&hub, &own, &known).code(), "host_already_enrolled", "it was heard just now");
    assert_eq!(enrol(&hub, &own, "01a1ffe1-afde-72f9-853f-a45c90cff755").status, 201);
    assert_eq!(ask("GET", "/api/v1/agents", Value::Null).body["agents"].as_array().unwrap().len(), 1);
    // What they send is for their hosts alone, also by a token that only sends.
    for scope in ["operator", "ingest"] {
        let token = hub.make_token(OPERATOR, scope);
        for host in ["known", "new"] {
            let sent = hub.request(
                "POST",
                "/ingest/metrics",
                &token,
                &json!({ "host": host, "cpu": { "usage": 1 } }),
            );
            assert_eq!(sent.code(), "host_mismatch", "{scope} {host}");
        }
    }
}

#[test]
fn agent_reenrolls_after_a_lost_response() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let (token, host) = (enrolment(&hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff753");
    assert_eq!(enrol(&hub, &token, host).status, 201);
    let again = enrol(&hub, &token, host);
    assert_eq!(again.status, 201, "{}", again.text);
    let secret = again.body["secret"].as_str().unwrap();
    let sent = json!({ "host": "it", "host_id": host, "cpu": { "usage": 1 } });
    assert_eq!(hub.request("POST", "/ingest/metrics", secret, &sent).status, 200);
    assert_eq!(enrol(&hub, &token, host).status, 401, "it sends: the token is used");
    assert_eq!(hub.get("/api/v1/agents").body["agents"].as_array().unwrap().len(), 1);
}

#[test]
fn concurrent_account_change_survives_login() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let vera = add_user(&hub, VIEWER, "operator", &[]);
    let path = format!("/api/v1/users/{vera}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let going = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        // Logins all the while, each of which writes its account down.
        for _ in 0..4 {
            scope.spawn(|| {
                while going() {
                    let body = json!({ "name": VIEWER.0, "password": VIEWER.1 });
                    let login = hub.request("POST", "/api/v1/auth/login", "", &body);
                    assert!([200, 409].contains(&login.status), "{}", login.text);
                }
            });
        }
        for turn in 0..30 {
            let role = ["viewer", "operator"][turn % 2];
            let changed = hub.request(
                "PATCH",
                &path,
                &hub.token,
                &json!({ "role": role, "host_tags": [format!("t{turn}")] }),
            );
            assert_eq!(changed.status, 200, "{}", changed.text);
            std::thread::sleep(Duration::from_millis(20));
            let users = hub.get("/api/v1/users").body;
            let now =
                users["users"].as_array().unwrap().iter().find(|user| user["id"] == vera.as_str()).unwrap();
            assert_eq!((&now["role"], &now["host_tags"]), (&json!(role), &json!([format!("t{turn}")])));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn password_change_requires_throttled_reauthentication() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let cookie = hub.log_in(ADMIN.0, ADMIN.1);
    let body = json!({ "password": "a guess of mine", "new_password": "something quite new" });
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let guess = || hub.browser_request("PUT", "/api/v1/auth/password", &cookie, &body).status;
        let all: Vec<_> = (0..40).map(|_| scope.spawn(guess)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let tried = codes.iter().filter(|code| **code == 422).count();
    assert!(tried <= 10, "{codes:?}");
    assert!(codes.contains(&429), "{codes:?}");
}
