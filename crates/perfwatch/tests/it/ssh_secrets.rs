//! SSH passwords are sent only on the path that they were entered for, and private keys are opened once,
//! at a bounded cost.

use crate::access::add_user;
use crate::agentless::{
    NO_RATE_LIMIT, create_server, loopback, request_with_key, server, server_request, wait_for_collection,
};
use crate::support::{TestHub, TestResponse, eventually, require_root};
use perfwatch_testkit::sshd::{PASSWORD, Sshd, USER, make_key};
use serde_json::{Value, json};

fn start(folder: &tempfile::TempDir) -> TestHub {
    TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &[NO_RATE_LIMIT])
}

fn put(hub: &TestHub, id: &str, token: &str, request: &Value) -> TestResponse {
    hub.request("PUT", &format!("/api/v1/servers/{id}"), token, request)
}

/// Finding H1: an operator moved a jump host, and the stored passwords of the servers behind it were sent
/// through another machine.
#[test]
fn moved_jump_host_requires_the_passwords_behind_it() {
    require_root("sshd can check passwords as root only");
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder);
    let (gate, other_gate) = (Sshd::start(loopback(61), &[]), Sshd::start(loopback(62), &[]));
    let target = Sshd::start_with_passwords(loopback(63), &[]);
    let mut gate_request = request_with_key("gate", &gate, "ed25519");
    gate_request["tags"] = json!(["team=a"]);
    let gate_id = create_server(&hub, &gate_request);
    let password = json!({ "kind": "password", "password": PASSWORD });
    let mut request = server_request("far", target.address(), USER, &password);
    request["jump"] = gate_id.as_str().into();
    let id = create_server(&hub, &request);
    let keyed = create_server(&hub, &{
        let mut keyed = request_with_key("far-key", &target, "ed25519");
        keyed["jump"] = gate_id.as_str().into();
        keyed
    });
    [&gate_id, &id, &keyed].into_iter().for_each(|id| wait_for_collection(&hub, id));
    let logins = || target.log().matches("Accepted password").count();
    assert_eq!(logins(), 1);
    // Neither a rename nor a new credential of the jump host concerns the servers behind it.
    gate_request["name"] = "gate-1".into();
    assert_eq!(put(&hub, &gate_id, &hub.token, &gate_request).status, 200);
    let mut moved = request_with_key("gate-1", &other_gate, "ed25519");
    moved["tags"] = json!(["team=a"]);
    // An operator who may not view the servers behind the jump host cannot move it.
    let operator = ("oscar", "operator-password-1");
    add_user(&hub, operator, "operator", &["team=a"]);
    let limited = hub.sign_token(operator.0, operator.1);
    moved["passwords"] = json!({ (&*id): "guess" });
    let response = put(&hub, &gate_id, &limited, &moved);
    assert_eq!((response.status, response.code()), (403, "forbidden"), "{}", response.text);
    assert!(!response.text.contains("far"), "{}", response.text);
    moved.as_object_mut().unwrap().remove("passwords");
    // Nor does the request for passwords name them.
    let response = put(&hub, &gate_id, &limited, &moved);
    assert!(response.status == 403 && !response.text.contains("far"), "{}", response.text);
    let response = put(&hub, &gate_id, &hub.token, &moved);
    assert_eq!((response.status, response.code()), (409, "passwords_required"), "{}", response.text);
    assert!(response.text.contains("far") && !response.text.contains("far-key"), "{}", response.text);
    assert_eq!(server(&hub, &gate_id)["address"], gate.address().ip().to_string());
    // Without the password, the server is blocked, and its password is deleted.
    moved["passwords"] = json!({ (&*id): null });
    assert_eq!(put(&hub, &gate_id, &hub.token, &moved).status, 200);
    assert_eq!(server(&hub, &id)["blocked"]["cause"], "credentials_required");
    assert!(server(&hub, &keyed)["blocked"].is_null());
    request["credentials"] = json!({ "kind": "password" });
    let response = put(&hub, &id, &hub.token, &request);
    assert!(response.status == 422 && response.text.contains("credentials.password"), "{}", response.text);
    request["credentials"] = password;
    assert_eq!(put(&hub, &id, &hub.token, &request).status, 200);
    eventually("the server is collected on the new path", || logins() == 2);
    // With the password in the request, it moves back.
    gate_request["passwords"] = json!({ (&*id): PASSWORD });
    assert_eq!(put(&hub, &gate_id, &hub.token, &gate_request).status, 200);
    assert_eq!(
        hub.request("POST", &format!("/api/v1/servers/{id}/test"), &hub.token, &json!({})).body["ok"],
        true
    );
    // A key is never sent, so that it is kept.
    let response = hub.request("POST", &format!("/api/v1/servers/{keyed}/test"), &hub.token, &json!({}));
    assert_eq!(response.body["ok"], true, "{}", response.text);
}

/// Finding H1: accepting a key that a machine in the middle offered sent it the stored password.
#[test]
fn accepted_host_key_requires_the_password_again() {
    require_root("sshd can check passwords as root only");
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder);
    let mut sshd = Sshd::start_with_passwords(loopback(64), &[]);
    let password = json!({ "kind": "password", "password": PASSWORD });
    let id = create_server(&hub, &server_request("db", sshd.address(), USER, &password));
    wait_for_collection(&hub, &id);
    let accept = |passwords: Value| {
        assert_eq!(
            hub.request("POST", &format!("/api/v1/servers/{id}/collect"), &hub.token, &json!({})).status,
            202
        );
        eventually("the server is blocked", || server(&hub, &id)["blocked"]["cause"] == "host_key_changed");
        let mut request = passwords;
        request["host_key"] = server(&hub, &id)["blocked"]["offered_host_key"].clone();
        let path = format!("/api/v1/servers/{id}/host-key");
        hub.request("PUT", &path, &hub.token, &request)
    };
    sshd.change_host_key();
    let before = sshd.log().matches("password for").count();
    let response = accept(json!({}));
    assert_eq!(response.status, 200, "{}", response.text);
    assert_eq!(response.body["blocked"]["cause"], "credentials_required");
    let test = || hub.request("POST", &format!("/api/v1/servers/{id}/test"), &hub.token, &json!({})).body;
    assert_eq!(test()["ok"], false);
    assert_eq!(sshd.log().matches("password for").count(), before);
    let request = server_request("db", sshd.address(), USER, &password);
    assert_eq!(put(&hub, &id, &hub.token, &request).status, 200);
    eventually("the server is collected", || server(&hub, &id)["last"]["cause"].is_null());
    sshd.change_host_key();
    let response = accept(json!({ "password": PASSWORD }));
    assert!(response.status == 200 && response.body["blocked"].is_null(), "{}", response.text);
    assert_eq!(test()["ok"], true);
}

/// Finding H3: the passphrase of a key is checked when it is entered, at a bounded cost.
#[test]
fn private_keys_are_opened_when_they_are_entered() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder);
    let sshd = Sshd::start(loopback(65), &[]);
    let locked = make_key(sshd.folder(), "ed25519", "open sesame");
    sshd.allow(&locked);
    let locked = std::fs::read_to_string(locked).unwrap();
    let request = |key: &str, passphrase: Option<&str>| {
        let mut request = request_with_key("keyed", &sshd, "ed25519");
        request["credentials"] = json!({ "kind": "key", "key": key, "passphrase": passphrase });
        request
    };
    let expensive = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\nComment: x\n\
                     Public-Lines: 1\nAAAA\nKey-Derivation: Argon2id\nArgon2-Memory: 4194304\n\
                     Argon2-Passes: 1000000\nArgon2-Parallelism: 1\nArgon2-Salt: 00\nPrivate-Lines: 1\nAAAA\n\
                     Private-MAC: 00\n";
    for (key, passphrase, expected) in [
        (locked.as_str(), None, "passphrase required"),
        (locked.as_str(), Some("wrong"), "cannot be decrypted with this passphrase"),
        ("no key", None, "not a private key"),
        (expensive, Some("x"), "too expensive to open: Argon2-Memory"),
    ] {
        for path in ["/api/v1/servers", "/api/v1/servers/test", "/api/v1/servers/import"] {
            let server = request(key, passphrase);
            let body = match path {
                "/api/v1/servers" => server,
                "/api/v1/servers/test" => json!({ "server": server }),
                _ => json!({ "format": "csv", "text": "address,user\na,b\n", "dry_run": true,
                             "credentials": server["credentials"] }),
            };
            let response = hub.request("POST", path, &hub.token, &body);
            assert!(response.status == 422 && response.text.contains(expected), "{path} {}", response.text);
            assert!(response.text.contains("credentials.key"), "{}", response.text);
        }
    }
    let id = create_server(&hub, &request(&locked, Some("open sesame")));
    wait_for_collection(&hub, &id);
}

/// Findings M5 and L6: a dry run takes no lock, and connection tests are audited and limited by account.
#[test]
fn connection_tests_are_audited_with_their_address() {
    let folder = tempfile::tempdir().unwrap();
    let hub = start(&folder);
    let credentials = json!({ "kind": "password", "password": "x" });
    let request = server_request("scan", (loopback(66), 9).into(), "root", &credentials);
    let test = || hub.request("POST", "/api/v1/servers/test", &hub.token, &json!({ "server": request }));
    let response = test();
    assert_eq!((response.status, response.body["cause"].as_str()), (200, Some("unreachable")));
    let audit = hub.get("/api/v1/audit").text;
    assert!(audit.contains("server.test") && audit.contains("scan (127.0.8.66:9)"), "{audit}");
    let refused = (0..70).map(|_| test()).find(|response| response.status == 429);
    assert_eq!(refused.unwrap().code(), "too_many_requests");
    let metrics = hub.get("/metrics").text;
    assert!(metrics.contains("perfwatch_ssh_tests_refused_total 1"), "{metrics}");
    // Other accounts still have their share.
    let operator = ("olga", "operator-password-1");
    add_user(&hub, operator, "operator", &[]);
    let token = hub.sign_token(operator.0, operator.1);
    let response = hub.request("POST", "/api/v1/servers/test", &token, &json!({ "server": request }));
    assert_eq!(response.status, 200, "{}", response.text);
}
