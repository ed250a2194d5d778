//! Agentless hosts behind a jump host: its credentials are tried once, whatever the number of hosts
//! behind it.

use crate::agentless::{
    NO_RATE_LIMIT, create_server, loopback, request_with_key, server, server_request, wait_for_collection,
};
use crate::support::{TestHub, eventually, holds_for, require_root};
use perfwatch_testkit::sshd::{PASSWORD, Sshd, USER};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn unverified_jump_host_is_tried_by_one_job() {
    require_root("sshd can check passwords as root only");
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &[NO_RATE_LIMIT]);
    let (jump_sshd, target_sshd) =
        (Sshd::start_with_passwords(loopback(51), &[]), Sshd::start(loopback(52), &[]));
    let mut jump_host = server_request(
        "gate",
        jump_sshd.address(),
        USER,
        &json!({ "kind": "password", "password": "wrong" }),
    );
    jump_host["enabled"] = false.into();
    let jump_id = create_server(&hub, &jump_host);
    let behind: Vec<String> = (0..6)
        .map(|number| {
            let mut request = request_with_key(&format!("far-{number}"), &target_sshd, "ed25519");
            request["jump"] = jump_id.as_str().into();
            create_server(&hub, &request)
        })
        .collect();
    eventually("the jump host is blocked", || {
        server(&hub, &jump_id)["blocked"]["cause"] == "authentication_failed"
    });
    // The hosts behind it report the cause, but are not blocked.
    eventually("all hosts behind it report the cause", || {
        behind.iter().all(|id| {
            let last = server(&hub, id)["last"]["error"].clone();
            last.as_str().is_some_and(|error| error.contains("jump host"))
        })
    });
    assert!(behind.iter().all(|id| server(&hub, id)["blocked"].is_null()));
    // Longer than the first retry delay of 5 s.
    let failures = || jump_sshd.log().matches("Failed password").count();
    holds_for(Duration::from_secs(6), "the password was tried once", || failures() == 1);
    // With the correct password, all hosts are collected.
    jump_host["credentials"]["password"] = PASSWORD.into();
    assert_eq!(hub.request("PUT", &format!("/api/v1/servers/{jump_id}"), &hub.token, &jump_host).status, 200);
    let response = hub.request("POST", "/api/v1/servers/metrics/collect-all", &hub.token, &Value::Null);
    assert_eq!(response.status, 202, "{}", response.text);
    behind.iter().for_each(|id| wait_for_collection(&hub, id));
    assert_eq!(failures(), 1, "{}", jump_sshd.log());
}
