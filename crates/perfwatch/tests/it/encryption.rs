//! What the hub must be able to read itself (how to reach a channel, the key of a second factor):
//! nowhere in clear, readable after the key was turned, and closed without it.

use crate::access::add_user;
use crate::support::{BINARY, TestHub, eventually, now_ms};
use perfwatch_testkit::recorder::HttpRecorder;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use totp_rs::{Builder, Secret};

/// Who has a second factor.
const VERA: (&str, &str) = ("vera", "typed by one alone");

/// What an app shows that was told this secret: of this step of time, or of the next one.
fn code(secret: &str, later: u64) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let now_s = u64::try_from(now_ms() / 1_000).unwrap();
    totp.generate(now_s + later * 30).to_string()
}

/// Whether the second factor is right, by what the hub answers.
fn enters(hub: &TestHub, code: &str) -> u16 {
    let login = json!({ "name": VERA.0, "password": VERA.1, "code": code });
    hub.request("POST", "/api/v1/auth/login", "", &login).status
}

fn everything(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.flat_map(|file| std::fs::read(file.path()).unwrap_or_default()).collect()
}

fn run(data: &Path, arguments: &[&str]) {
    let status = Command::new(BINARY).args(arguments).env("PERFWATCH_DATA", data).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// Whether the hub's message reaches the channel, and what the channel's page says.
fn test_delivery(hub: &TestHub, id: &str) -> (Value, Value) {
    let tried = hub.request("POST", &format!("/api/v1/channels/{id}/test"), &hub.token, &Value::Null);
    (tried.body["heard"].clone(), hub.get("/api/v1/channels").body["channels"][0]["closed"].clone())
}

#[test]
fn secrets_are_encrypted_rotated_and_unreadable_without_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let start = |listen: &str| TestHub::start_with_env(folder.path(), &["hub", "--listen", listen], &[]);
    let hub = start("127.0.0.1:0");
    let http = HttpRecorder::start();
    let url = format!("{}/hook/a-t0ken-in-an-address", http.url());
    let channel =
        json!({ "name": "hook", "kind": "webhook", "settings": { "url": url, "secret": "s3cret indeed" } });
    let made = hub.request("POST", "/api/v1/channels", &hub.token, &channel);
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    add_user(&hub, VERA, "viewer", &[]);
    let cookie = hub.log_in(VERA.0, VERA.1);
    let offer = hub.browser_request("POST", "/api/v1/auth/totp", &cookie, &Value::Null);
    let secret = offer.body["secret"].as_str().unwrap().to_owned();
    let wish = json!({ "offer": offer.body["offer"], "code": code(&secret, 0) });
    let on = hub.browser_request("PUT", "/api/v1/auth/totp", &cookie, &wish);
    assert_eq!(on.status, 200, "{}", on.text);
    let spare = on.body["recovery_codes"][0].as_str().unwrap().to_owned();

    // A copy of all there is says nothing without the key.
    let backup = folder.path().join("backup.db");
    run(&data, &["backup", backup.to_str().unwrap()]);
    let mut kept = everything(&data.join("history"));
    kept.extend(std::fs::read(&backup).unwrap());
    let raw = Secret::try_from_base32(&secret).unwrap();
    for secret in [b"a-t0ken-in-an-address".as_slice(), b"s3cret indeed", raw.as_bytes()] {
        assert!(!kept.windows(secret.len()).any(|bytes| bytes == secret));
    }

    // Turned: what the old key sealed is sealed by the new one, which is enough from then on.
    let address = hub.address.clone();
    hub.process.kill();
    run(&data, &["rotate-key"]);
    let hub = start(&address);
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    hub.process.kill();
    let keys = std::fs::read_to_string(data.join("secret.key")).unwrap();
    assert_eq!(keys.lines().count(), 2);
    std::fs::write(data.join("secret.key"), keys.lines().next().unwrap()).unwrap();
    let hub = start(&address);
    assert_eq!(test_delivery(&hub, &id), (true.into(), Value::Null));
    assert_eq!(enters(&hub, &code(&secret, 1)), 200);

    // Lost: the channel says so, and a code on paper lets one in.
    hub.process.kill();
    std::fs::write(data.join("secret.key"), "5".repeat(64)).unwrap();
    let hub = start(&address);
    let (reached, closed) = test_delivery(&hub, &id);
    assert!(reached == json!(false) && closed.as_str().unwrap().contains("hub.encryption_key"), "{closed}");
    assert_eq!(enters(&hub, &spare), 200);
    assert!(hub.process.log().contains("second factor can't be read"), "{}", hub.process.log());
    // Said anew, it is heard again.
    let path = format!("/api/v1/channels/{id}");
    let put = hub.request("PUT", &path, &hub.token, &channel);
    assert!(put.status == 200 && put.body["closed"].is_null(), "{}", put.text);
    eventually("it is heard", || test_delivery(&hub, &id).0 == json!(true));
}
