//! Hosts behind another host: its credentials are tried once, however many wait behind it.

use crate::agentless::{OFTEN, by_key, comes_in, create, local, me, server, server_request};
use crate::support::{TestHub, eventually};
use perfwatch_testkit::sshd::{PASSWORD, Sshd, USER};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn unverified_jump_host_is_tried_by_one_job() {
    if me() != "root" {
        eprintln!("skipped: servers with passwords need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &[OFTEN]);
    let (gate, far) = (Sshd::start_with_passwords(local(51), &[]), Sshd::start(local(52), &[]));
    let mut way =
        server_request("gate", gate.address(), USER, &json!({ "kind": "password", "password": "wrong" }));
    way["enabled"] = false.into();
    let way_id = create(&hub, &way);
    let behind: Vec<String> = (0..6)
        .map(|at| {
            let mut wish = by_key(&format!("far-{at}"), &far, "ed25519");
            wish["jump"] = way_id.as_str().into();
            create(&hub, &wish)
        })
        .collect();
    eventually("it is refused", || server(&hub, &way_id)["refused"]["cause"] == "login_refused");
    // Those behind it say why, and none of them is refused for it.
    eventually("all say so", || {
        behind.iter().all(|id| {
            let last = server(&hub, id)["last"]["error"].clone();
            last.as_str().is_some_and(|why| why.contains("gate") || why.contains("on the way"))
        })
    });
    assert!(behind.iter().all(|id| server(&hub, id)["refused"].is_null()));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(gate.log().matches("Failed password").count(), 1, "{}", gate.log());
    // With the right one, all come in.
    way["login"]["password"] = PASSWORD.into();
    assert_eq!(hub.request("PUT", &format!("/api/v1/servers/{way_id}"), &hub.token, &way).status, 200);
    let all = hub.request("POST", "/api/v1/servers/metrics/collect-all", &hub.token, &Value::Null);
    assert_eq!(all.status, 202, "{}", all.text);
    behind.iter().for_each(|id| comes_in(&hub, id));
    assert_eq!(gate.log().matches("Failed password").count(), 1, "{}", gate.log());
}
