//! Encryption of secrets at rest (channel settings, mail server, two-factor secrets): no plaintext on disk, key
//! rotation, errors without the key.

use crate::access::add_user;
use crate::support::{BINARY, TestHub, eventually, now_ms};
use perfwatch_testkit::recorder::HttpRecorder;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use totp_rs::{Builder, Secret};

const MAIL: &str = "/api/v1/settings/mail";

/// User with two-factor authentication.
const USER: (&str, &str) = ("vera", "viewer-password-1");

/// Returns the TOTP code that is valid `step` time steps from now.
fn totp_code(secret: &str, step: u64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let now_s = u64::try_from(now_ms() / 1_000).unwrap();
    totp.generate(now_s + step * 30).to_string()
}

/// Logs in with a two-factor code and returns the status.
fn log_in_with_code(hub: &TestHub, code: &str) -> u16 {
    let login = json!({ "name": USER.0, "password": USER.1, "code": code });
    hub.request("POST", "/api/v1/auth/login", "", &login).status
}

/// Concatenates all files of a directory.
fn read_all_files(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.flat_map(|file| std::fs::read(file.path()).unwrap_or_default()).collect()
}

fn run(data: &Path, arguments: &[&str]) {
    let status = Command::new(BINARY).args(arguments).env("PERFWATCH_DATA", data).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// Sends a test notification; returns whether it was delivered, and the channel's decryption error.
fn test_delivery(hub: &TestHub, id: &str) -> (Value, Value) {
    let tested = hub.request("POST", &format!("/api/v1/channels/{id}/test"), &hub.token, &Value::Null);
    let channels = hub.get("/api/v1/channels").body["channels"].clone();
    (tested.body["delivered"].clone(), channels[0]["decryption_error"].clone())
}

#[test]
fn secrets_are_encrypted_rotated_and_unreadable_without_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let start = |listen: &str| TestHub::start_with_env(folder.path(), &["hub", "--listen", listen], &[]);
    let hub = start("127.0.0.1:0");
    let http = HttpRecorder::start();
    let url = format!("{}/hook/a-t0ken-in-a-url", http.url());
    let settings = json!({ "url": url, "secret": "s3cret-signing-key" });
    let channel = json!({ "name": "hook", "kind": "webhook", "settings": settings });
    let created = hub.request("POST", "/api/v1/channels", &hub.token, &channel);
    assert_eq!(created.status, 201, "{}", created.text);
    let id = created.body["id"].as_str().unwrap().to_owned();
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    let mail = json!({ "server": "mail.example.org", "user": "perfwatch", "password": "m4il-password",
        "from": "perfwatch@example.org" });
    let saved = hub.admin_request("PUT", MAIL, &json!({ "version": 0, "settings": mail }));
    assert_eq!(saved.status, 200, "{}", saved.text);
    add_user(&hub, USER, "viewer", &[]);
    let cookie = hub.log_in_confirmed(USER.0, USER.1);
    let setup = hub.browser_request("POST", "/api/v1/auth/totp", &cookie, &Value::Null);
    let secret = setup.body["secret"].as_str().unwrap().to_owned();
    let request = json!({ "setup_token": setup.body["setup_token"], "code": totp_code(&secret, 0) });
    let enabled = hub.browser_request("PUT", "/api/v1/auth/totp", &cookie, &request);
    assert_eq!(enabled.status, 200, "{}", enabled.text);
    let recovery_code = enabled.body["recovery_codes"][0].as_str().unwrap().to_owned();

    // Database and backup contain no plaintext.
    let backup = folder.path().join("backup.db");
    run(&data, &["backup", backup.to_str().unwrap()]);
    let mut stored = read_all_files(&data.join("history"));
    stored.extend(std::fs::read(&backup).unwrap());
    let raw = Secret::try_from_base32(&secret).unwrap();
    for secret in [b"a-t0ken-in-a-url".as_slice(), b"s3cret-signing-key", b"m4il-password", raw.as_bytes()] {
        assert!(!stored.windows(secret.len()).any(|bytes| bytes == secret));
    }

    // After a rotation and a restart, the new key alone decrypts all secrets.
    let address = hub.address.clone();
    hub.process.kill();
    run(&data, &["rotate-key"]);
    let hub = start(&address);
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    hub.process.kill();
    let keys = std::fs::read_to_string(data.join("encryption.key")).unwrap();
    assert_eq!(keys.lines().count(), 2);
    std::fs::write(data.join("encryption.key"), keys.lines().next().unwrap()).unwrap();
    let hub = start(&address);
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    let mail = hub.get(MAIL).body;
    assert_eq!((&mail["has_password"], &mail["decryption_error"]), (&json!(true), &Value::Null), "{mail}");
    assert_eq!(log_in_with_code(&hub, &totp_code(&secret, 1)), 200);

    // Without the key, the channel reports an error, and a recovery code still works.
    hub.process.kill();
    std::fs::write(data.join("encryption.key"), "5".repeat(64)).unwrap();
    let hub = start(&address);
    let (delivered, error) = test_delivery(&hub, &id);
    assert!(delivered == json!(false) && error.as_str().unwrap().contains("hub.encryption_key"), "{error}");
    let mail = hub.get(MAIL).body;
    assert!(mail["decryption_error"].as_str().unwrap().contains("hub.encryption_key"), "{mail}");
    assert_eq!(log_in_with_code(&hub, &recovery_code), 200);
    assert!(hub.process.log().contains("failed to decrypt a two-factor secret"), "{}", hub.process.log());
    // New settings are encrypted with the current key.
    let path = format!("/api/v1/channels/{id}");
    let put = hub.request("PUT", &path, &hub.token, &channel);
    assert!(put.status == 200 && put.body["decryption_error"].is_null(), "{}", put.text);
    eventually("the notification is delivered", || test_delivery(&hub, &id).0 == json!(true));
}
