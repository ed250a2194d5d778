//! Requests that are held open while the rights of their caller end.

use crate::support::TestHub;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

const PASSWORD: &str = "correct horse battery";

/// Request whose headers were accepted, and whose body the hub waits for.
struct HeldRequest {
    route: String,
    stream: BufReader<TcpStream>,
}

impl HeldRequest {
    /// Sends the headers and waits until the hub reads the body (RFC 9110, section 10.1.1).
    fn open(hub: &TestHub, method: &str, path: &str, credential: &str) -> Self {
        let mut stream = TcpStream::connect(&hub.address).unwrap();
        let target = path.replace("{id}", "00000000-0000-4000-8000-000000000000");
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n{credential}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\
             Connection: close\r\n\r\n",
            hub.address
        )
        .unwrap();
        let mut held = Self { route: format!("{method} {path}"), stream: BufReader::new(stream) };
        assert_eq!(held.read_line(), "HTTP/1.1 100 Continue", "{}", held.route);
        assert_eq!(held.read_line(), "");
        held
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends the body and returns the status line.
    fn finish(&mut self) -> String {
        self.stream.get_mut().write_all(b"{}").unwrap();
        self.read_line()
    }
}

/// Routes of the API document with a body, apart from those with credentials in the body.
fn routes_with_body(hub: &TestHub) -> Vec<(String, String)> {
    let document = hub.get("/api/openapi.json").body;
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let has_body = |operation: &Value| operation["requestBody"].is_object();
        let methods = operations.as_object().unwrap().iter().filter(|(_, operation)| has_body(operation));
        routes.extend(methods.map(|(method, _)| (method.to_uppercase(), path.clone())));
    }
    let public = ["/api/v1/auth/login", "/api/v1/auth/setup", "/api/v1/agents/enroll"];
    routes.retain(|(_, path)| !public.contains(&path.as_str()));
    routes
}

/// F19 (second review): rights were checked before the body arrived and never again, so that a held request
/// created tokens, users and agents after its session was ended.
#[test]
fn held_request_of_each_route_ends_with_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user = json!({ "name": "mallory", "role": "admin", "password": PASSWORD });
    let user = hub.admin_request("POST", "/api/v1/users", &user).body["id"].as_str().unwrap().to_owned();
    let cookies = hub.log_in_confirmed("mallory", PASSWORD);
    let token = hub.create_token(("mallory", PASSWORD), "admin");
    let routes = routes_with_body(&hub);
    assert!(routes.len() > 20, "{routes:?}");
    let credential = format!("Cookie: {cookies}");
    let open = |(method, path): &(String, String)| HeldRequest::open(&hub, method, path, &credential);
    let mut held: Vec<HeldRequest> = routes.iter().map(open).collect();
    let bearer = format!("Authorization: Bearer {token}");
    for path in ["/api/v1/enrollment-tokens", "/api/v1/channels", "/ingest/metrics"] {
        held.push(HeldRequest::open(&hub, "POST", path, &bearer));
    }
    let deleted = hub.admin_request("DELETE", &format!("/api/v1/users/{user}"), &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    for request in &mut held {
        assert_eq!(request.finish(), "HTTP/1.1 401 Unauthorized", "{}", request.route);
    }
}
