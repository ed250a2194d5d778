//! Names and ids of hosts belong to the hosts that have them. The rules are in docs/IDENTITY.md.

use crate::access::add_user;
use crate::support::{TestHub, TestResponse, now_ms};
use serde_json::{Value, json};

const HOSTS: [&str; 3] = [
    "01a1ffe1-afde-72f9-853f-a45c90cff753",
    "01a1ffe1-afde-72f9-853f-a45c90cff754",
    "01a1ffe1-afde-72f9-853f-a45c90cff755",
];

fn create_token(hub: &TestHub, body: &Value) -> String {
    let created = hub.request("POST", "/api/v1/enrollment-tokens", &hub.token, body);
    created.body["token"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned()
}

fn enroll(hub: &TestHub, token: &str, host: &str, previous_secret: Option<&str>) -> TestResponse {
    let mut body = json!({ "token": token, "host_id": host, "host_name": "enrolled" });
    if let Some(secret) = previous_secret {
        body["previous_secret"] = secret.into();
    }
    hub.request("POST", "/api/v1/agents/enroll", "", &body)
}

fn secret(response: &TestResponse) -> String {
    response.body["secret"].as_str().unwrap_or_else(|| panic!("{}", response.text)).to_owned()
}

/// Sends a snapshot with the secret of an agent.
fn send(hub: &TestHub, secret: &str, host: &str, name: &str, at_ms: i64) -> TestResponse {
    let body = json!({ "timestamp": at_ms, "host": name, "host_id": host, "cpu": { "usage": 1 } });
    hub.request("POST", "/ingest/metrics", secret, &body)
}

fn name_of(hub: &TestHub, host: &str) -> Value {
    hub.get(&format!("/api/v1/hosts/{host}")).body["name"].clone()
}

/// Finding H6: an agent received the name of another host, and what scripts posted by this name.
#[test]
fn agent_does_not_take_the_name_of_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let at = now_ms();
    let post = |at_ms: i64| {
        let body = json!({ "timestamp": at_ms, "host": "web", "cpu": { "usage": 2 } });
        let response = hub.post_json(&body);
        assert_eq!((response.status, &response.body["accepted"]), (200, &json!(1)), "{}", response.text);
    };
    post(at);
    let web = hub.get("/api/v1/hosts/web").body["id"].as_str().unwrap().to_owned();
    let agent = secret(&enroll(&hub, &create_token(&hub, &json!({ "name": "a" })), HOSTS[0], None));
    assert_eq!(send(&hub, &agent, HOSTS[0], "own", at).status, 200);
    for (step, (name, expected)) in
        [("web", "web-2".to_owned()), (web.as_str(), format!("host-{web}"))].into_iter().enumerate()
    {
        let at = at + 1 + i64::try_from(step).unwrap();
        let sent = send(&hub, &agent, HOSTS[0], name, at);
        assert_eq!(sent.status, 200, "{}", sent.text);
        assert_eq!(name_of(&hub, HOSTS[0]), expected);
        for reference in ["web", web.as_str()] {
            assert_eq!(hub.get(&format!("/api/v1/hosts/{reference}")).body["id"], web.as_str(), "{name}");
        }
        post(at);
    }
    // A second agent with the same name, and one that keeps asking for names.
    let other = secret(&enroll(&hub, &create_token(&hub, &json!({ "name": "b" })), HOSTS[1], None));
    for step in 0..3 {
        assert_eq!(send(&hub, &other, HOSTS[1], "web", at + step).status, 200);
        assert_eq!(name_of(&hub, HOSTS[1]), "web-2");
    }
    for step in 0..20 {
        assert_eq!(send(&hub, &other, HOSTS[1], &format!("n{step}"), at + 10 + step).status, 200);
    }
    let entries = hub.get("/api/v1/audit?limit=500").body["entries"].clone();
    let renames: Vec<&Value> =
        entries.as_array().unwrap().iter().filter(|entry| entry["action"] == "host.rename").collect();
    let of_host = |host: &str| {
        let object = format!("host {host}");
        renames.iter().filter(|entry| entry["object"] == object.as_str()).count()
    };
    assert_eq!((of_host(HOSTS[0]), of_host(HOSTS[1])), (2, 10), "{renames:#?}");
    assert!(renames.iter().all(|entry| entry["actor"].as_str().unwrap().starts_with("agent ")));
    // The name is free after its host is deleted.
    assert_eq!(hub.request("DELETE", "/api/v1/hosts/web", &hub.token, &Value::Null).status, 204);
    assert_eq!(send(&hub, &agent, HOSTS[0], "web", at + 50).status, 200);
    assert_eq!(name_of(&hub, HOSTS[0]), "web");
}

/// Finding L2: a name in the form of an id was looked up as an id, and then created as a new host.
#[test]
fn limited_operator_creates_no_host_by_an_id_as_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let operator = ("oscar", "operator-password-1");
    add_user(&hub, operator, "operator", &["team=a"]);
    assert_eq!(hub.post_json(&json!({ "host": "own", "cpu": { "usage": 1 } })).status, 200);
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", "/api/v1/hosts/own/tags", &hub.token, &tags).status, 200);
    let own = hub.get("/api/v1/hosts/own").body["id"].as_str().unwrap().to_owned();
    for scope in ["operator", "ingest"] {
        let token = hub.create_token(operator, scope);
        for name in [own.clone(), own.to_uppercase(), own.replace('-', ""), HOSTS[0].to_owned()] {
            let body = json!({ "host": name, "cpu": { "usage": 1 } });
            let response = hub.request("POST", "/ingest/metrics", &token, &body);
            assert_eq!(response.code(), "host_mismatch", "{scope} {name}: {}", response.text);
        }
        let body = json!({ "host": "own", "cpu": { "usage": 1 } });
        assert_eq!(hub.request("POST", "/ingest/metrics", &token, &body).status, 200);
    }
    // Whoever may create hosts is told to use the field for ids.
    let response = hub.post_json(&json!({ "host": own, "cpu": { "usage": 1 } }));
    assert_eq!((response.status, response.code()), (422, "invalid_host"), "{}", response.text);
    assert_eq!(hub.get("/api/v1/hosts").body["total"], 1);
}

/// Finding M4: an enrollment token took hosts that it did not know: silent, revoked, or without an agent.
#[test]
fn enrollment_token_does_not_take_a_known_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = TestHub::start(folder.path());
    let at = now_ms() - 600_000;
    let fleet = create_token(&hub, &json!({ "name": "fleet", "uses": 50 }));
    let agent = enroll(&hub, &fleet, HOSTS[0], None);
    let revoked = enroll(&hub, &fleet, HOSTS[1], None);
    for (response, host) in [(&agent, HOSTS[0]), (&revoked, HOSTS[1])] {
        assert_eq!(send(&hub, &secret(response), host, host, at).status, 200);
    }
    let path = format!("/api/v1/agents/{}/revoke", revoked.body["agent_id"].as_str().unwrap());
    assert_eq!(hub.request("POST", &path, &hub.token, &Value::Null).status, 200);
    let body = json!({ "timestamp": at, "host": "script", "host_id": HOSTS[2], "cpu": { "usage": 1 } });
    assert_eq!(hub.post_json(&body).status, 200);
    // A killed hub forgets what it did not store yet, such as when an agent was last seen.
    let token = hub.token.clone();
    for is_restarted in [false, true] {
        if is_restarted {
            hub.process.kill();
            hub = TestHub::start(folder.path());
        }
        for host in HOSTS {
            for previous in [None, Some("pwa_0000"), Some(token.as_str())] {
                let taken = enroll(&hub, &fleet, host, previous);
                assert_eq!(
                    (taken.status, taken.code()),
                    (409, "host_already_enrolled"),
                    "{host} {}",
                    taken.text
                );
            }
        }
    }
    // The secret of the agent shows that the machine is the same, but does not undo a revocation.
    assert_eq!(enroll(&hub, &fleet, HOSTS[1], Some(&secret(&revoked))).code(), "host_already_enrolled");
    let fresh = create_token(&hub, &json!({ "name": "fleet" }));
    assert_eq!(enroll(&hub, &fresh, HOSTS[1], Some(&secret(&revoked))).status, 201);
    assert_eq!(enroll(&hub, &fresh, HOSTS[0], Some(&secret(&agent))).code(), "invalid_enrollment_token");
}

/// Finding M4: a known host is enrolled again by a token of a user who may revoke its agents.
#[test]
fn token_for_a_known_host_needs_the_right_to_revoke_its_agents() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let operator = ("oscar", "operator-password-1");
    add_user(&hub, operator, "operator", &["team=a"]);
    let fleet = create_token(&hub, &json!({ "name": "fleet", "uses": 2 }));
    for (host, name) in HOSTS.into_iter().zip(["mine", "foreign"]) {
        let agent = enroll(&hub, &fleet, host, None);
        assert_eq!(send(&hub, &secret(&agent), host, name, now_ms()).status, 200);
        // The host of a revoked agent is free at once.
        let path = format!("/api/v1/agents/{}/revoke", agent.body["agent_id"].as_str().unwrap());
        assert_eq!(hub.request("POST", &path, &hub.token, &Value::Null).status, 200);
    }
    let tags = json!({ "tags": ["team=a"] });
    assert_eq!(hub.request("PUT", "/api/v1/hosts/mine/tags", &hub.token, &tags).status, 200);
    let limited = hub.create_token(operator, "operator");
    let create =
        |credential: &str, body: Value| hub.request("POST", "/api/v1/enrollment-tokens", credential, &body);
    for host in ["foreign", HOSTS[1], HOSTS[2]] {
        let created = create(&limited, json!({ "name": "x", "host": host }));
        assert_eq!(created.status, 404, "{host}: {}", created.text);
    }
    for body in [json!({ "uses": 2 }), json!({ "tags": ["team=a"] })] {
        let mut request = json!({ "name": "x", "host": "mine" });
        request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        assert_eq!(create(&limited, request).code(), "invalid_enrollment_request");
    }
    for (credential, name, host) in [(&limited, "mine", HOSTS[0]), (&hub.token, HOSTS[1], HOSTS[1])] {
        let created = create(credential, json!({ "name": "again", "host": name }));
        assert_eq!((created.status, &created.body["host"]), (201, &json!(host)), "{}", created.text);
        let token = created.body["token"].as_str().unwrap();
        assert_eq!(enroll(&hub, token, HOSTS[2], None).code(), "host_mismatch");
        let agent = enroll(&hub, token, host, None);
        assert_eq!(send(&hub, &secret(&agent), host, name, now_ms()).status, 200);
        assert_eq!(enroll(&hub, token, host, None).code(), "invalid_enrollment_token");
    }
}
