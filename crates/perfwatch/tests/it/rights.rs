//! Rights of credentials: which of them may create something lasting, and with what each of them ends.

use crate::access::add_user;
use crate::agentless::server_request;
use crate::support::{ADMIN, BINARY, TestHub};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const HOST: &str = "01a1ffe1-afde-72f9-853f-a45c90cff753";
const OPERATOR: (&str, &str) = ("oscar", "operator-password-1");
const NEW_PASSWORD: &str = "another-password-1";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Returns the code with which the hub closes a stream.
async fn close_code(
    socket: &mut (impl futures_util::Stream<Item = Result<Message, impl std::fmt::Debug>> + Unpin),
) -> u16 {
    loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// H8: a token or session cookie of an administrator, once found, creates no users, tokens or stored secrets,
/// and changes no password or second factor.
#[test]
fn found_credentials_create_nothing_lasting() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user = json!({ "name": "mallory", "password": "a-third-password-1", "role": "admin" });
    let id = hub.get("/api/v1/auth/me").body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/users/{id}");
    let lasting = [
        ("POST", "/api/v1/users", user.clone()),
        ("PATCH", &path, json!({ "password": NEW_PASSWORD })),
        ("PATCH", &path, json!({ "totp_enabled": false })),
        ("DELETE", &path, Value::Null),
        ("POST", "/api/v1/tokens", json!({ "name": "x", "scope": "admin" })),
        (
            "PUT",
            "/api/v1/auth/password",
            json!({ "current_password": ADMIN.1, "new_password": NEW_PASSWORD }),
        ),
        ("POST", "/api/v1/auth/totp", Value::Null),
        ("DELETE", "/api/v1/auth/totp", json!({ "password": ADMIN.1 })),
        ("POST", "/api/v1/auth/confirm", json!({ "password": ADMIN.1 })),
    ];
    let signed = hub.sign_token(ADMIN.0, ADMIN.1);
    for credential in [&hub.token, &signed] {
        for (method, path, body) in &lasting {
            let response = hub.request(method, path, credential, body);
            assert_eq!(response.code(), "forbidden", "{method} {path}: {}", response.text);
        }
    }
    for (method, path) in
        [("POST", "/api/v1/enrollment-tokens"), ("POST", "/api/v1/channels"), ("POST", "/api/v1/servers")]
    {
        let response = hub.request(method, path, &signed, &json!({ "name": "x" }));
        assert_eq!(response.code(), "forbidden", "{method} {path}: {}", response.text);
    }
    // The session of a user who left the browser open.
    let session = hub.log_in(ADMIN.0, ADMIN.1);
    let create = |cookies: &str| hub.browser_request("POST", "/api/v1/users", cookies, &user);
    assert_eq!(create(&session).code(), "confirmation_required");
    let confirm = |password: &str| {
        hub.browser_request("POST", "/api/v1/auth/confirm", &session, &json!({ "password": password })).status
    };
    assert_eq!(confirm("a wrong password"), 422);
    assert_eq!(confirm(ADMIN.1), 204);
    assert_eq!(create(&session).code(), "confirmation_required", "the confirmation is a cookie");
    // The confirmation of another session.
    let confirmed = hub.log_in_confirmed(ADMIN.0, ADMIN.1);
    let (_, confirmation) = confirmed.split_once("; ").unwrap();
    assert_eq!(create(&format!("{session}; {confirmation}")).code(), "confirmation_required");
    assert_eq!(create(&confirmed).status, 201);
    let audit = hub.get("/api/v1/audit?text=session.confirm").body;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2, "{audit}");
}

/// H8: the token in the address of a WebSocket opens the WebSocket alone.
#[test]
fn websocket_token_opens_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let url = hub.websocket_url(&hub.token);
    let token = url.split_once("?token=").unwrap().1;
    for (method, path) in
        [("GET", "/api/v1/hosts"), ("POST", "/api/v1/auth/token"), ("GET", "/api/ws/metrics")]
    {
        assert_eq!(
            hub.request(method, path, token, &Value::Null).status,
            401,
            "{method} {path} in the header"
        );
        let in_query = hub.request(method, &format!("{path}?token={token}"), "", &Value::Null);
        let is_open = in_query.status == 426 || in_query.status == 400;
        assert_eq!(is_open, path == "/api/ws/metrics", "{method} {path}: {}", in_query.text);
    }
    // Other tokens are rejected in the address.
    for token in [&hub.token, &hub.sign_token(ADMIN.0, ADMIN.1)] {
        let response = hub.request("GET", &format!("/api/ws/metrics?token={token}"), "", &Value::Null);
        assert_eq!(response.code(), "token_in_query");
    }
    let audit = hub.get("/api/v1/audit?text=token.sign").text;
    assert!(audit.contains("token.sign_websocket"), "{audit}");
}

/// Credentials of an operator that were derived from one login.
struct Derived {
    session: String,
    api_token: String,
    signed: [String; 3],
    enrollment_token: String,
}

impl Derived {
    fn create(hub: &TestHub, (name, password): (&str, &str)) -> Self {
        let session = hub.log_in(name, password);
        let body = json!({ "name": "script", "scope": "operator" });
        let api_token = hub.browser_request("POST", "/api/v1/tokens", &session, &body).body["token"].clone();
        let api_token = api_token.as_str().unwrap().to_owned();
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
        let signed = [
            hub.sign_token(name, password),
            text(&hub.request("POST", "/api/v1/auth/token", &api_token, &Value::Null).body["token"]),
            text(&hub.browser_request("POST", "/api/v1/auth/token", &session, &Value::Null).body["token"]),
        ];
        let body = json!({ "name": "x", "tags": ["team=a"] });
        let created = hub.request("POST", "/api/v1/enrollment-tokens", &api_token, &body);
        Self { session, api_token, signed, enrollment_token: text(&created.body["token"]) }
    }

    /// Asserts that every credential ended.
    fn assert_ended(&self, hub: &TestHub, event: &str) {
        let me = |bearer: &str| hub.request("GET", "/api/v1/auth/me", bearer, &Value::Null).status;
        assert_eq!(
            hub.browser_request("GET", "/api/v1/auth/me", &self.session, &Value::Null).status,
            401,
            "{event}"
        );
        assert_eq!(me(&self.api_token), 401, "API token after {event}");
        for (n, signed) in self.signed.iter().enumerate() {
            assert_eq!(me(signed), 401, "signed token {n} after {event}");
        }
        let body = json!({ "token": self.enrollment_token, "host_id": HOST, "host_name": "enrolled" });
        let enrolled = hub.request("POST", "/api/v1/agents/enroll", "", &body);
        assert_eq!(enrolled.code(), "invalid_enrollment_token", "{event}: {}", enrolled.text);
    }
}

/// M8: everything that was derived from a user ends with the password, the rights, or the user.
#[test]
fn derived_credentials_end_with_password_and_rights() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let patch =
        |body: Value| move |id: &str, _: &Derived| ("PATCH", format!("/api/v1/users/{id}"), body.clone());
    let own = |method: &'static str, path: &'static str, body: Value| {
        move |_: &str, _: &Derived| (method, path.to_owned(), body.clone())
    };
    type Request = (&'static str, String, Value);
    type Event = Box<dyn Fn(&str, &Derived) -> Request>;
    let change = json!({ "current_password": OPERATOR.1, "new_password": NEW_PASSWORD });
    let events: [(&str, bool, Event); 7] = [
        ("a new password", true, Box::new(own("PUT", "/api/v1/auth/password", change))),
        ("log out everywhere", true, Box::new(own("DELETE", "/api/v1/auth/sessions", Value::Null))),
        ("a reset of the password", false, Box::new(patch(json!({ "password": NEW_PASSWORD })))),
        ("a lower role", false, Box::new(patch(json!({ "role": "viewer" })))),
        ("a limit to host tags", false, Box::new(patch(json!({ "host_tags": ["team=a"] })))),
        ("disabling", false, Box::new(patch(json!({ "enabled": false })))),
        (
            "deletion",
            false,
            Box::new(|id: &str, _: &Derived| ("DELETE", format!("/api/v1/users/{id}"), Value::Null)),
        ),
    ];
    for (event, is_own, request) in events {
        let id = add_user(&hub, OPERATOR, "operator", &[]);
        let derived = Derived::create(&hub, OPERATOR);
        run(async {
            let (mut by_token, _) = connect_async(hub.websocket_url(&derived.api_token)).await.unwrap();
            let (mut by_password, _) = connect_async(hub.websocket_url(&derived.signed[0])).await.unwrap();
            let (method, path, body) = request(&id, &derived);
            let response = match is_own {
                true => hub.browser_request(method, &path, &derived.session, &body),
                false => hub.admin_request(method, &path, &body),
            };
            assert!(response.status < 300, "{event}: {}", response.text);
            assert_eq!(close_code(&mut by_token).await, 4401, "{event}");
            assert_eq!(close_code(&mut by_password).await, 4401, "{event}");
        });
        derived.assert_ended(&hub, event);
        if event != "deletion" {
            let path = format!("/api/v1/users/{id}");
            assert_eq!(hub.admin_request("DELETE", &path, &Value::Null).status, 204);
        }
    }
    assert_eq!(hub.get("/api/v1/hosts").status, 200, "tokens of other users stay");
}

/// M8: `perfwatch user` ends what the commands of the API end.
#[test]
fn derived_credentials_end_with_a_password_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    add_user(&hub, OPERATOR, "operator", &[]);
    let derived = Derived::create(&hub, OPERATOR);
    let mut command = Command::new(BINARY)
        .args(["user", "password", OPERATOR.0])
        .env("PERFWATCH_DATA", folder.path().join("hub"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(NEW_PASSWORD.as_bytes()).unwrap();
    assert!(command.wait().unwrap().success());
    crate::support::eventually("the hub reloads the accounts", || {
        hub.request("GET", "/api/v1/auth/me", &derived.api_token, &Value::Null).status == 401
    });
    derived.assert_ended(&hub, "a password of the command line");
}

/// M8: a WebSocket ends with the session whose token opened it.
#[test]
fn websocket_ends_at_logout() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let session = hub.log_in(ADMIN.0, ADMIN.1);
    let created = hub.browser_request("POST", "/api/v1/auth/websocket-token", &session, &Value::Null);
    let url =
        format!("ws://{}/api/ws/metrics?token={}", hub.address, created.body["token"].as_str().unwrap());
    run(async {
        let (mut socket, _) = connect_async(url).await.unwrap();
        assert_eq!(hub.browser_request("POST", "/api/v1/auth/logout", &session, &json!({})).status, 204);
        assert_eq!(close_code(&mut socket).await, 4401);
    });
}

/// F1 (second review): "Log out everywhere" needs no password, and made a found cookie a login of this moment,
/// with which API tokens could be created.
#[test]
fn ending_other_sessions_keeps_the_time_of_the_login() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let current = |cookie: &str| {
        let sessions = hub.browser_request("GET", "/api/v1/auth/sessions", cookie, &Value::Null).body;
        sessions["sessions"].as_array().unwrap().iter().find(|session| session["current"] == true).cloned()
    };
    let cookie = hub.log_in(ADMIN.0, ADMIN.1);
    let created_ms = current(&cookie).unwrap()["created_ms"].clone();
    let request = ureq::delete(hub.url("/api/v1/auth/sessions"));
    let response = request.header("Cookie", &cookie).header("Origin", hub.url("")).call().unwrap();
    let replaced = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let current = current(&replaced).unwrap();
    assert_eq!(current["created_ms"], created_ms);
    assert!(current["last_used_ms"].as_i64() >= created_ms.as_i64());
}

/// F4 (second review): a leaked API token was deleted, and agents still enrolled with the enrollment tokens that
/// it had created.
#[test]
fn enrollment_tokens_end_with_the_api_token_that_created_them() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let api_token = |name: &str, days: Option<i64>| {
        let body = json!({ "name": name, "scope": "operator", "expires_in_days": days });
        let body = hub.admin_request("POST", "/api/v1/tokens", &body).body;
        (body["id"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    };
    let enrollment_token = |credential: &str| {
        let body = json!({ "name": "fleet", "uses": 10, "expires_in_hours": 8_000 });
        hub.request("POST", "/api/v1/enrollment-tokens", credential, &body).body
    };
    // Names of API tokens are not unique.
    let ((leaked, leaked_secret), (_, other_secret)) = (api_token("ci", Some(1)), api_token("ci", None));
    let (ended, other) = (enrollment_token(&leaked_secret), enrollment_token(&other_secret));
    let lifetime_ms =
        |token: &Value| token["expires_ms"].as_i64().unwrap() - token["created_ms"].as_i64().unwrap();
    assert!(lifetime_ms(&ended) <= 86_400_000 && lifetime_ms(&other) == 8_000 * 3_600_000);
    let deleted = hub.admin_request("DELETE", &format!("/api/v1/tokens/{leaked}"), &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    let enroll = |token: &Value, host: &str| {
        let body = json!({ "token": token["token"], "host_id": host, "host_name": "web" });
        hub.request("POST", "/api/v1/agents/enroll", "", &body).status
    };
    assert_eq!(enroll(&ended, HOST), 401);
    assert_eq!(enroll(&other, HOST), 201);
}

/// F21 (second review): an enrollment token of a limited operator took the id of an agentless host that was never
/// collected, and gave it the tags of the operator.
#[test]
fn enrollment_takes_no_id_of_an_agentless_host() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let credentials = json!({ "kind": "password", "password": "secret" });
    let mut server = server_request("hidden", "192.0.2.9:22".parse().unwrap(), "root", &credentials);
    server["enabled"] = json!(false);
    let server = hub.request("POST", "/api/v1/servers", &hub.token, &server).body["id"].clone();
    add_user(&hub, OPERATOR, "operator", &["team=a"]);
    let operator = hub.create_token(OPERATOR, "operator");
    let token = json!({ "name": "x", "tags": ["team=a"] });
    let token = hub.request("POST", "/api/v1/enrollment-tokens", &operator, &token).body["token"].clone();
    let agent = json!({ "token": token, "host_id": server, "host_name": "mine" });
    let enrolled = hub.request("POST", "/api/v1/agents/enroll", "", &agent);
    assert_eq!((enrolled.status, enrolled.code()), (409, "host_already_enrolled"), "{}", enrolled.text);
    let listed = hub.request("GET", "/api/v1/servers", &operator, &Value::Null).body;
    assert_eq!(listed["servers"], json!([]));
}
