//! Progress of collections: the steps of a connection test as they come, counts by time, retry of failed jobs.

use crate::agentless::{
    create_server, loopback, queue_stats, request_with_key, server_request, wait_for_collection,
};
use crate::support::{TestHub, current_user, eventually};
use perfwatch_testkit::sshd::{FaultScript, FaultyServer, Sshd};
use serde_json::{Value, json};

#[test]
fn connection_test_sends_its_steps_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let sshd = Sshd::start(loopback(12), &[]);
    let events = |server: &Value| {
        let body = json!({ "server": server }).to_string();
        let request = ureq::http::Request::builder().method("POST").uri(hub.url("/api/v1/servers/test"));
        let request = request
            .header("Authorization", format!("Bearer {}", hub.token))
            .header("Content-Type", "application/json")
            .header("Accept", "text/event-stream");
        let mut response = ureq::run(request.body(body).unwrap()).unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.body_mut().read_to_string().unwrap()
    };
    let text = events(&request_with_key("tested", &sshd, "ed25519"));
    assert!(
        text.starts_with("data: {\"stage\":\"resolve\"}\n\ndata: {\"step\":{\"stage\":\"resolve\""),
        "{text}"
    );
    assert!(text.contains("event: result\ndata: {\"ok\":true,"), "{text}");
    let faulty = FaultyServer::start(FaultScript::Reset);
    let credentials = json!({ "kind": "password", "password": "y" });
    let text = events(&server_request("bad", faulty.address(), "x", &credentials));
    assert!(text.contains("event: result\ndata: {\"ok\":false,"), "{text}");
}

#[test]
fn failed_jobs_are_counted_and_retried_together() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let sshd = Sshd::start(loopback(13), &[]);
    let mut request = request_with_key("refused", &sshd, "ed25519");
    request["user"] = "no-such-user".into();
    let id = create_server(&hub, &request);
    eventually("the job failed", || queue_stats(&hub)["failed"] == 1);
    let series = hub.get("/api/v1/servers/metrics/queue/series").body;
    let sum = |name: &str| -> i64 { series[name].as_array().unwrap().iter().filter_map(Value::as_i64).sum() };
    assert_eq!((sum("succeeded"), sum("failed"), series["t"].as_array().unwrap().len()), (0, 1, 144));
    let retry = || {
        let response = hub.request("POST", "/api/v1/servers/metrics/queue/retry", &hub.token, &Value::Null);
        assert_eq!(response.status, 202, "{}", response.text);
        response.body["requested"].as_i64().unwrap()
    };
    // A blocked server is not tried again.
    assert_eq!((retry(), queue_stats(&hub)["failed"].as_i64()), (0, Some(1)));
    request["user"] = current_user().into();
    let response = hub.request("PUT", &format!("/api/v1/servers/{id}"), &hub.token, &request);
    assert_eq!(response.status, 200, "{}", response.text);
    assert_eq!((retry(), queue_stats(&hub)["failed"].as_i64()), (1, Some(0)));
    wait_for_collection(&hub, &id);
}
