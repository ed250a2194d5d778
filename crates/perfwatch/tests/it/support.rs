//! Hub and agent processes for tests. Each test has its own processes, directory and port; they are
//! killed at its end.

use perfwatch_model::{Clock as _, SystemClock};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Path of the full binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_perfwatch");
/// Path of the agent binary.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_perfwatch-agent");

/// Child process that is killed when dropped; prints its log if the test fails.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(binary: &str, folder: &Path, name: &str, args: &[&str]) -> Self {
        Self::spawn_with(binary, folder, name, args, &[])
    }

    pub(crate) fn spawn_with(
        binary: &str,
        folder: &Path,
        name: &str,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(binary);
        command.args(args).env("PERFWATCH_DATA", folder.join(name)).env("PERFWATCH_LOG_LEVEL", "info");
        command.envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open sockets and files, except those of the database, which opens connections when they are needed.
    pub(crate) fn open_fds(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        // A descriptor may be closed since the directory was read.
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| !target.to_string_lossy().contains("/history.db")).count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Running hub without an agent.
pub(crate) struct TestHub {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// API token of the administrator.
    pub(crate) token: String,
    /// Session cookies of the administrator, created by the first request with them.
    admin_cookies: OnceLock<String>,
}

/// Name and password of the administrator of every test hub.
pub(crate) const ADMIN: (&str, &str) = ("admin", "initial-password-1");

/// Addresses of the receivers of notifications and the identity providers of tests.
const LOOPBACK_TARGETS: &str = "127.0.0.0/8,::1";

pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
    pub(crate) text: String,
}

impl TestResponse {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

impl TestHub {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_at(folder, "127.0.0.1:0")
    }

    pub(crate) fn start_at(folder: &Path, listen: &str) -> Self {
        Self::start_with(folder, &["hub", "--listen", listen])
    }

    pub(crate) fn start_with(folder: &Path, args: &[&str]) -> Self {
        Self::start_with_env(folder, args, &[])
    }

    /// Starts a hub with additional environment variables.
    pub(crate) fn start_with_env(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let defaults =
            [("PERFWATCH_HUB_ADMIN_PASSWORD", ADMIN.1), ("PERFWATCH_HUB_ALLOWED_TARGETS", LOOPBACK_TARGETS)];
        let variables = [&defaults, variables].concat();
        let mut process = Process::spawn_with(BINARY, folder, "hub", args, &variables);
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("://").next().unwrap().to_owned();
        assert!(address.contains(':'), "{line:?} {}", process.log());
        let mut hub = Self { process, address, token: String::new(), admin_cookies: OnceLock::new() };
        if line.contains("http://") {
            hub.token = hub.create_token(ADMIN, "admin");
        }
        hub
    }

    /// Returns a signed token for name and password.
    pub(crate) fn sign_token(&self, name: &str, password: &str) -> String {
        let body = json!({ "name": name, "password": password });
        let response = self.request("POST", "/api/v1/auth/token", "", &body);
        response.body["token"].as_str().unwrap_or_else(|| panic!("{}", response.text)).to_owned()
    }

    /// Logs in and returns the session cookie.
    pub(crate) fn log_in(&self, name: &str, password: &str) -> String {
        let body = json!({ "name": name, "password": password });
        let post = ureq::post(self.url("/api/v1/auth/login")).header("Content-Type", "application/json");
        let response = post.send(body.to_string()).unwrap();
        response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// Returns the address of the live stream with a WebSocket token of this credential.
    pub(crate) fn websocket_url(&self, credential: &str) -> String {
        let response = self.request("POST", "/api/v1/auth/websocket-token", credential, &Value::Null);
        let token = response.body["token"].as_str().unwrap_or_else(|| panic!("{}", response.text));
        format!("ws://{}/api/ws/metrics?token={token}", self.address)
    }

    /// Logs in and enters the password again; returns the cookies of the session and of the confirmation.
    pub(crate) fn log_in_confirmed(&self, name: &str, password: &str) -> String {
        let session = self.log_in(name, password);
        let confirm = ureq::post(self.url("/api/v1/auth/confirm"))
            .header("Content-Type", "application/json")
            .header("Cookie", &session)
            .header("Origin", self.url(""));
        let response = confirm.send(json!({ "password": password }).to_string()).unwrap();
        let confirmation = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
        format!("{session}; {confirmation}")
    }

    /// Sends a request of the administrator's browser, after the password was entered again.
    pub(crate) fn admin_request(&self, method: &str, path: &str, body: &Value) -> TestResponse {
        let cookies = self.admin_cookies.get_or_init(|| self.log_in_confirmed(ADMIN.0, ADMIN.1));
        self.browser_request(method, path, cookies, body)
    }

    /// Sends a request of a dashboard page: with session cookie and origin.
    pub(crate) fn browser_request(
        &self,
        method: &str,
        path: &str,
        cookie: &str,
        body: &serde_json::Value,
    ) -> TestResponse {
        let request = ureq::http::Request::builder().method(method).uri(self.url(path));
        let request = request.header("Cookie", cookie).header("Origin", self.url(""));
        let request = request.header("Content-Type", "application/json").body(body.to_string()).unwrap();
        read_response(client().run(request))
    }

    /// Creates an API token.
    pub(crate) fn create_token(&self, (name, password): (&str, &str), scope: &str) -> String {
        let cookie = self.log_in(name, password);
        let body = json!({ "name": "test", "scope": scope });
        let response = self.browser_request("POST", "/api/v1/tokens", &cookie, &body);
        response.body["token"].as_str().unwrap_or_else(|| panic!("{}", response.text)).to_owned()
    }

    /// Sends a request with a token; anonymously if the token is empty.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &serde_json::Value,
    ) -> TestResponse {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if body.is_null() {
            return read_response(client().run(request.body(()).unwrap()));
        }
        let request = request.header("Content-Type", "application/json").body(body.to_string()).unwrap();
        read_response(client().run(request))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> TestResponse {
        self.request("GET", path, &self.token, &serde_json::Value::Null)
    }

    pub(crate) fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> TestResponse {
        let mut request = client().post(self.url("/ingest/metrics"));
        request = request.header("Authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read_response(request.send(body))
    }

    pub(crate) fn post_json(&self, body: &serde_json::Value) -> TestResponse {
        self.post(body.to_string().as_bytes(), &[("Content-Type", "application/json")])
    }

    /// Returns the sequence numbers of a host in the recent window, in order.
    pub(crate) fn seqs(&self, host: &str) -> Vec<u64> {
        let response = self.get(&format!("/api/metrics/recent?host={host}"));
        let snapshots = response.body["snapshots"].as_array().cloned().unwrap_or_default();
        snapshots.iter().map(|snapshot| snapshot["seq"].as_u64().unwrap()).collect()
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .allow_non_standard_methods(true)
        .build()
        .new_agent()
}

fn read_response(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> TestResponse {
    let mut response = result.unwrap();
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    let body = serde_json::from_str(&text).unwrap_or_default();
    TestResponse { status: response.status().as_u16(), body, text }
}

/// Deadline of [`eventually`]; long, because test machines may be slow.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two checks of a polled condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Polls until the condition is true.
pub(crate) fn eventually(condition: &str, mut check: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let deadline = clock.monotonic() + POLL_TIMEOUT;
    while !check() {
        assert!(clock.monotonic() < deadline, "timed out waiting until {condition}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until a value has not changed for the given time; returns the value.
pub(crate) fn until_stable<T: PartialEq + Debug>(quiet: Duration, mut read: impl FnMut() -> T) -> T {
    let clock = SystemClock::new();
    let deadline = clock.monotonic() + POLL_TIMEOUT;
    let (mut value, mut changed) = (read(), clock.monotonic());
    while clock.monotonic() < changed + quiet {
        assert!(clock.monotonic() < deadline, "timed out waiting until {value:?} is stable");
        std::thread::sleep(POLL_INTERVAL);
        let current = read();
        if current != value {
            (value, changed) = (current, clock.monotonic());
        }
    }
    value
}

/// Checks for the whole time that the condition remains true.
pub(crate) fn holds_for(time: Duration, condition: &str, mut check: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let end = clock.monotonic() + time;
    while clock.monotonic() < end {
        assert!(check(), "no longer true: {condition}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Name of the user that runs the tests.
pub(crate) fn current_user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Fails the test if it does not run as root.
pub(crate) fn require_root(reason: &str) {
    assert_eq!(current_user(), "root", "this test needs root: {reason}");
}

pub(crate) fn now_ms() -> i64 {
    SystemClock::new().wall_ms()
}

/// Starts an agent with the host name `it` that sends to the hub.
pub(crate) fn start_agent(folder: &Path, hub: &TestHub, interval: &str) -> Process {
    let (url, token) = (hub.url(""), &hub.token);
    let arguments = ["--hub", &url, "--interval", interval, "--name", "it", "--token", token];
    Process::spawn(AGENT, folder, "agent", &arguments)
}

/// Returns whether each number is its predecessor plus one.
pub(crate) fn has_consecutive_sequences(seqs: &[u64]) -> bool {
    seqs.windows(2).all(|pair| pair[1] == pair[0] + 1)
}
