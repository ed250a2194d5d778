//! Access control: every route with every credential compared with the OpenAPI document,
//! immediate revocation, no secrets in logs and database.

use crate::support::{ADMIN, AGENT, Process, TestHub, TestResponse, eventually, now_ms};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const VIEWER: (&str, &str) = ("vera", "viewer-password-1");
const OPERATOR: (&str, &str) = ("oscar", "operator-password-1");

pub(crate) fn add_user(hub: &TestHub, (name, password): (&str, &str), role: &str, tags: &[&str]) -> String {
    let body = json!({ "name": name, "password": password, "role": role, "host_tags": tags });
    let created = hub.admin_request("POST", "/api/v1/users", &body);
    assert_eq!(created.status, 201, "{}", created.text);
    created.body["id"].as_str().unwrap().to_owned()
}

fn create_enrollment_token(hub: &TestHub, uses: u32) -> String {
    let created = hub.request(
        "POST",
        "/api/v1/enrollment-tokens",
        &hub.token,
        &json!({ "name": "test", "uses": uses }),
    );
    created.body["token"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned()
}

fn enroll(hub: &TestHub, token: &str, host: &str) -> TestResponse {
    let body = json!({ "token": token, "host_id": host, "host_name": "enrolled" });
    hub.request("POST", "/api/v1/agents/enroll", "", &body)
}

/// Returns credentials with their labels and role numbers; agents and ingest tokens have no role.
fn all_credentials(hub: &TestHub) -> Vec<(&'static str, String, Option<usize>)> {
    add_user(hub, VIEWER, "viewer", &[]);
    add_user(hub, OPERATOR, "operator", &[]);
    let token = |account, scope| hub.create_token(account, scope);
    let agent = enroll(hub, &create_enrollment_token(hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff753");
    vec![
        ("anonymous", String::new(), None),
        ("a wrong token", format!("pwt_{}", "0".repeat(64)), None),
        ("a forged token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".to_owned(), None),
        ("ingest", token(OPERATOR, "ingest"), None),
        ("agent", agent.body["secret"].as_str().unwrap().to_owned(), None),
        ("viewer", token(VIEWER, "viewer"), Some(0)),
        ("operator", token(OPERATOR, "operator"), Some(1)),
        ("an operator's viewer token", token(OPERATOR, "viewer"), Some(0)),
        ("admin", token(ADMIN, "admin"), Some(2)),
        ("an admin's signed token", hub.sign_token(ADMIN.0, ADMIN.1), Some(2)),
    ]
}

/// Evaluates the access note at the end of an operation description.
fn is_allowed(description: &str, credential: &str, role: Option<usize>) -> bool {
    let min_role = |text: &str| ["viewer", "operator", "admin"].iter().position(|role| text.contains(role));
    let authenticated = !["anonymous", "a wrong token", "a forged token"].contains(&credential);
    match description.lines().last().unwrap_or_default() {
        "No authentication." => true,
        // No credential of this test is a session.
        text if text.contains("Browser session only") => false,
        text if text.contains("API token, or a session") && credential.contains("signed") => false,
        "Any authenticated caller." => role.is_some(),
        "Agents, tokens with the scope `ingest`, and operators." => {
            authenticated && (role.is_none() || role >= Some(1))
        }
        text => role.is_some_and(|role| role >= min_role(text).unwrap()),
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
    let credentials = all_credentials(&hub);
    let document = hub.request("GET", "/api/openapi.json", "", &Value::Null).body;
    let mut checked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let description = operation["description"].as_str().unwrap();
            let concrete_path = path.replace("{id}", "none").replace("{file}", "none");
            for (credential, token, role) in &credentials {
                let response = hub.request(&method.to_uppercase(), &concrete_path, token, &Value::Null);
                let label =
                    format!("{method} {path} with {credential}: {} {}", response.status, response.text);
                let documented = &operation["responses"][response.status.to_string()];
                assert!(documented.is_object(), "{label}: status is not documented");
                let is_denied = [
                    "authentication_required",
                    "forbidden",
                    "unknown_token",
                    "token_expired",
                    "unknown_agent",
                ]
                .contains(&response.code());
                // Authenticates from its body, or needs a long-lived credential.
                if path == "/api/v1/auth/token" {
                    continue;
                }
                assert_eq!(!is_denied, is_allowed(description, credential, *role), "{label}");
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
    // The live stream accepts a WebSocket token in the query, but no API token.
    let connect = |query: String| run(connect_async(format!("ws://{}/api/ws/metrics{query}", hub.address)));
    assert!(connect(String::new()).is_err());
    assert!(connect(format!("?token={}", hub.token)).is_err(), "API token in the query");
    assert!(connect(format!("?token={}x", hub.sign_token(VIEWER.0, VIEWER.1))).is_err());
    let created = hub.request("POST", "/api/v1/auth/token", &credentials[5].1, &Value::Null);
    let signed = created.body["token"].as_str().unwrap();
    assert!(connect(format!("?token={signed}")).is_err(), "signed token in the query");
    assert!(run(connect_async(hub.websocket_url(signed))).is_ok());
    assert_eq!(
        hub.request("POST", "/api/v1/auth/token", signed, &Value::Null).status,
        403,
        "a signed token cannot create another signed token"
    );
}

/// Opens a stream, revokes its credential, and returns the milliseconds until the hub closes the
/// stream, with the close code.
async fn close_after_revocation(hub: &TestHub, signed: String, revoke: impl FnOnce()) -> (i64, u16) {
    let (mut socket, _) = connect_async(hub.websocket_url(&signed)).await.unwrap();
    revoke();
    let started = now_ms();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(frame)))) => return (now_ms() - started, frame.code.into()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn revoked_credentials_are_rejected_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user_id = add_user(&hub, VIEWER, "viewer", &[]);
    let signed = hub.sign_token(VIEWER.0, VIEWER.1);
    // Revoking an API token revokes the signed tokens created with it.
    let cookie = hub.log_in(VIEWER.0, VIEWER.1);
    let created =
        hub.browser_request("POST", "/api/v1/tokens", &cookie, &json!({ "name": "one", "scope": "viewer" }));
    let (token, id) = (created.body["token"].as_str().unwrap(), created.body["id"].as_str().unwrap());
    let signed_by_token =
        hub.request("POST", "/api/v1/auth/token", token, &Value::Null).body["token"].clone();
    let (duration_ms, code) =
        run(close_after_revocation(&hub, signed_by_token.as_str().unwrap().to_owned(), || {
            let deleted =
                hub.browser_request("DELETE", &format!("/api/v1/tokens/{id}"), &cookie, &Value::Null);
            assert_eq!(deleted.status, 204, "{}", deleted.text);
        }));
    assert!(code == 4401 && duration_ms < 5_000, "{code} after {duration_ms} ms");
    assert_eq!(
        hub.request("GET", "/api/v1/hosts", signed_by_token.as_str().unwrap(), &Value::Null).status,
        401
    );
    // Disabling a user revokes their signed tokens for good.
    let path = format!("/api/v1/users/{user_id}");
    let (duration_ms, code) = run(close_after_revocation(&hub, signed.clone(), || {
        assert_eq!(hub.admin_request("PATCH", &path, &json!({ "enabled": false })).status, 200);
    }));
    assert!(code == 4401 && duration_ms < 5_000, "{code} after {duration_ms} ms");
    assert_eq!(hub.request("GET", "/api/v1/hosts", &signed, &Value::Null).status, 401);
    assert_eq!(hub.admin_request("PATCH", &path, &json!({ "enabled": true })).status, 200);
    assert_eq!(
        hub.request("GET", "/api/v1/hosts", &signed, &Value::Null).status,
        401,
        "enabling the user does not restore the token"
    );
    // The last administrator cannot be deleted or demoted.
    let admin_id = hub.request("GET", "/api/v1/auth/me", &hub.token, &Value::Null).body["id"].clone();
    let admin_path = format!("/api/v1/users/{}", admin_id.as_str().unwrap());
    assert_eq!(hub.admin_request("DELETE", &admin_path, &Value::Null).code(), "last_admin");
    let demoted = hub.admin_request("PATCH", &admin_path, &json!({ "role": "viewer" }));
    assert_eq!(demoted.code(), "last_admin");
}

#[test]
fn host_tags_limit_visible_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    for host in ["visible", "hidden"] {
        assert_eq!(hub.post_json(&json!({ "host": host, "cpu": { "usage": 1 } })).status, 200);
    }
    let tags = hub.request("PUT", "/api/v1/hosts/visible/tags", &hub.token, &json!({ "tags": ["team=a"] }));
    assert_eq!(tags.body["tags"], json!(["team=a"]), "{}", tags.text);
    add_user(&hub, VIEWER, "viewer", &["team=a", "team=b"]);
    let token = hub.create_token(VIEWER, "viewer");
    let get = |path: &str| hub.request("GET", path, &token, &Value::Null);
    assert_eq!(get("/api/v1/hosts").body["total"], 1);
    for (path, status) in [
        ("/api/v1/hosts/visible", 200),
        ("/api/v1/hosts/hidden", 404),
        ("/api/v1/hosts/hidden/series?metric=cpu.usage", 404),
        ("/api/v1/hosts/hidden/snapshot", 404),
        ("/api/v1/hosts/hidden/processes", 404),
        ("/api/v1/hosts/hidden/export", 404),
        ("/api/v1/hosts/hidden/storage", 404),
        ("/api/v1/hosts/visible/storage", 200),
        ("/api/metrics/recent?host=hidden", 404),
        ("/api/metrics/recent", 200),
    ] {
        assert_eq!(get(path).status, status, "{path}");
    }
    let signed = hub.sign_token(VIEWER.0, VIEWER.1);
    run(async {
        let (mut socket, _) = connect_async(hub.websocket_url(&signed)).await.unwrap();
        for (host, seq) in [("hidden", 5), ("visible", 6)] {
            let at = now_ms() + seq;
            hub.post_json(&json!({ "host": host, "timestamp": at, "seq": seq, "cpu": { "usage": 2 } }));
        }
        let first = socket.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(first.contains("\"visible\"") && !first.contains("hidden"), "{first}");
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
    let throttled = guess("admin", ADMIN.1);
    let outcome = (throttled.status, throttled.code());
    assert_eq!(outcome, (429, "too_many_requests"), "the correct password is throttled too");
    // Throttled attempts do not extend the delay.
    eventually("the login delay is over", || guess("admin", ADMIN.1).status == 200);
    assert_eq!(
        guess("unknown-user", "wrong wrong").code(),
        "invalid_credentials",
        "same error for an unknown name"
    );
    let audit = hub.get("/api/v1/audit?text=login.failed").body;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 6, "{audit}");
    assert_eq!(
        audit["entries"][0]["object"], "user ?",
        "an unknown name may be a password typed into the wrong field"
    );
}

#[test]
fn cookie_requests_require_same_origin() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let login = ureq::post(hub.url("/api/v1/auth/login"))
        .header("Content-Type", "application/json")
        .send(json!({ "name": ADMIN.0, "password": ADMIN.1 }).to_string())
        .unwrap();
    let set_cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(set_cookie.contains(attribute), "{set_cookie}");
    }
    let cookie = set_cookie.split(';').next().unwrap().to_owned();
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
    let hub_origin = hub.url("");
    assert_eq!(post(&[], &cookie), 403, "no origin");
    assert_eq!(post(&[("Origin", "http://evil.example")], &cookie), 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")], &cookie), 403);
    assert_eq!(post(&[("Origin", &hub_origin)], &cookie), 204);
    assert_eq!(post(&[("Origin", &hub_origin)], &cookie), 401, "the session has ended");
    // Content security policy of the dashboard.
    let page = ureq::get(hub.url("/")).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && !policy.contains("script-src"), "{policy}");
}

#[test]
fn agent_enrolls_once_and_is_revoked_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let token = create_enrollment_token(&hub, 1);
    let url = hub.url("");
    let arguments = ["--hub", &url, "--interval", "250ms", "--name", "it"];
    let env = [("PERFWATCH_AGENT_TOKEN", token.as_str())];
    let agent = Process::spawn_with(AGENT, folder.path(), "agent", &arguments, &env);
    eventually("the agent sends", || hub.seqs("it").len() > 4);
    agent.kill();
    assert_eq!(
        enroll(&hub, &token, "01a1ffe1-afde-72f9-853f-a45c90cff753").status,
        401,
        "the token is used up"
    );
    // The agent has stored its secret and needs no token.
    let before = hub.seqs("it").len();
    let mut agent = Process::spawn(AGENT, folder.path(), "agent", &arguments);
    eventually("the agent sends again", || hub.seqs("it").len() > before + 4);
    let agents = hub.get("/api/v1/agents").body["agents"].clone();
    assert_eq!(agents.as_array().unwrap().len(), 1, "{agents}");
    let id = agents[0]["id"].as_str().unwrap();
    // Another agent can neither enroll for an active host nor send for it.
    let host = agents[0]["host"].as_str().unwrap();
    assert_eq!(enroll(&hub, &create_enrollment_token(&hub, 1), host).code(), "host_already_enrolled");
    let other = enroll(&hub, &create_enrollment_token(&hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff754");
    let secret = other.body["secret"].as_str().unwrap();
    let foreign = json!({ "host": "it", "host_id": host, "cpu": { "usage": 1 } });
    assert_eq!(hub.request("POST", "/ingest/metrics", secret, &foreign).code(), "host_mismatch");
    let revoked = hub.request("POST", &format!("/api/v1/agents/{id}/revoke"), &hub.token, &Value::Null);
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(agent.child.wait().unwrap().code(), Some(78));
    assert!(agent.log().contains("revoked"), "{}", agent.log());
    let stored_secret = std::fs::read_to_string(folder.path().join("agent/agent/secret")).unwrap();
    assert!(!agent.log().contains(stored_secret.trim()) && !agent.log().contains(&token));
}

#[test]
fn logs_and_database_contain_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let trace = [("PERFWATCH_LOG_LEVEL", "trace")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &trace);
    let signed = hub.sign_token(ADMIN.0, ADMIN.1);
    let (_, _) = run(connect_async(hub.websocket_url(&signed))).unwrap();
    let enrollment_token = create_enrollment_token(&hub, 1);
    let agent = enroll(&hub, &enrollment_token, "01a1ffe1-afde-72f9-853f-a45c90cff753");
    let agent = agent.body["secret"].as_str().unwrap().to_owned();
    hub.request("GET", "/api/v1/hosts", &agent, &Value::Null);
    hub.request("POST", "/api/v1/auth/login", "", &json!({ "name": "admin", "password": 5 }));
    hub.request(
        "POST",
        "/api/v1/auth/login",
        "",
        &json!({ "name": "admin", "password": "a wrong password" }),
    );
    let secrets =
        [&hub.token, &signed, &enrollment_token, &agent, &ADMIN.1.to_owned(), &"a wrong password".to_owned()];
    let audit = hub.get("/api/v1/audit").text;
    let log = hub.process.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    hub.process.kill();
    let files = std::fs::read_dir(folder.path().join("hub/history")).unwrap();
    let database: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let database = String::from_utf8_lossy(&database);
    assert!(database.contains("$argon2id$"));
    for secret in secrets {
        assert!(!log.contains(secret), "secret in the log: {secret}");
        assert!(!audit.contains(secret), "secret in the audit log: {secret}");
        assert!(!database.contains(secret), "secret in the database: {secret}");
    }
}

#[test]
fn scoped_operator_cannot_change_other_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let foreign = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let agent = enroll(&hub, &create_enrollment_token(&hub, 1), foreign).body["agent_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(hub.post_json(&json!({ "host": "other", "cpu": { "usage": 1 } })).status, 200);
    let other_host = hub.get("/api/v1/hosts/other").body["id"].as_str().unwrap().to_owned();
    add_user(&hub, OPERATOR, "operator", &["team=a"]);
    let token = hub.create_token(OPERATOR, "operator");
    let request = |method: &str, path: &str, body: Value| hub.request(method, path, &token, &body);
    assert_eq!(request("GET", "/api/v1/agents", Value::Null).body["agents"], json!([]));
    assert_eq!(request("POST", &format!("/api/v1/agents/{agent}/revoke"), Value::Null).status, 404);
    assert_eq!(request("PUT", "/api/v1/hosts/other/tags", json!({ "tags": ["team=a"] })).status, 404);
    for tags in [json!([]), json!(["team=b"]), json!(["team=a", "team=b"])] {
        let created = request("POST", "/api/v1/enrollment-tokens", json!({ "name": "x", "tags": tags }));
        assert_eq!(created.code(), "invalid_enrollment_request", "{tags}");
    }
    let created =
        request("POST", "/api/v1/enrollment-tokens", json!({ "name": "x", "tags": ["team=a"], "uses": 9 }));
    let scoped_token = created.body["token"].as_str().unwrap().to_owned();
    // An active host cannot be enrolled again; a new host can.
    assert_eq!(
        enroll(&hub, &scoped_token, &other_host).code(),
        "host_already_enrolled",
        "the host response just now"
    );
    assert_eq!(enroll(&hub, &scoped_token, "01a1ffe1-afde-72f9-853f-a45c90cff755").status, 201);
    assert_eq!(request("GET", "/api/v1/agents", Value::Null).body["agents"].as_array().unwrap().len(), 1);
    // Their tokens can send for their hosts only, whatever the scope.
    for scope in ["operator", "ingest"] {
        let token = hub.create_token(OPERATOR, scope);
        for host in ["other", "new"] {
            let response = hub.request(
                "POST",
                "/ingest/metrics",
                &token,
                &json!({ "host": host, "cpu": { "usage": 1 } }),
            );
            assert_eq!(response.code(), "host_mismatch", "{scope} {host}");
        }
    }
}

#[test]
fn agent_reenrolls_after_a_lost_response() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let (token, host) = (create_enrollment_token(&hub, 1), "01a1ffe1-afde-72f9-853f-a45c90cff753");
    assert_eq!(enroll(&hub, &token, host).status, 201);
    let repeated = enroll(&hub, &token, host);
    assert_eq!(repeated.status, 201, "{}", repeated.text);
    let secret = repeated.body["secret"].as_str().unwrap();
    let response = json!({ "host": "it", "host_id": host, "cpu": { "usage": 1 } });
    assert_eq!(hub.request("POST", "/ingest/metrics", secret, &response).status, 200);
    assert_eq!(enroll(&hub, &token, host).status, 401, "the agent has response: the token is used");
    assert_eq!(hub.get("/api/v1/agents").body["agents"].as_array().unwrap().len(), 1);
}

#[test]
fn concurrent_account_change_survives_login() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user_id = add_user(&hub, VIEWER, "operator", &[]);
    let path = format!("/api/v1/users/{user_id}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let is_running = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        // Concurrent logins, each of which updates the account.
        for _ in 0..4 {
            scope.spawn(|| {
                while is_running() {
                    let body = json!({ "name": VIEWER.0, "password": VIEWER.1 });
                    let login = hub.request("POST", "/api/v1/auth/login", "", &body);
                    assert!([200, 409].contains(&login.status), "{}", login.text);
                }
            });
        }
        for round in 0..30 {
            let role = ["viewer", "operator"][round % 2];
            let body = json!({ "role": role, "host_tags": [format!("t{round}")] });
            let changed = hub.admin_request("PATCH", &path, &body);
            assert_eq!(changed.status, 200, "{}", changed.text);
            let users = hub.get("/api/v1/users").body;
            let user = users["users"]
                .as_array()
                .unwrap()
                .iter()
                .find(|user| user["id"] == user_id.as_str())
                .unwrap();
            assert_eq!((&user["role"], &user["host_tags"]), (&json!(role), &json!([format!("t{round}")])));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn password_change_requires_throttled_reauthentication() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let cookie = hub.log_in(ADMIN.0, ADMIN.1);
    let body = json!({ "current_password": "a wrong password", "new_password": "another-password-1" });
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let guess = || hub.browser_request("PUT", "/api/v1/auth/password", &cookie, &body).status;
        let requests: Vec<_> = (0..40).map(|_| scope.spawn(guess)).collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    let checked = codes.iter().filter(|code| **code == 422).count();
    assert!(checked <= 10, "{codes:?}");
    assert!(codes.contains(&429), "{codes:?}");
}
