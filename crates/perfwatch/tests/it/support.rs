//! A hub or agent of its own for each test: real processes, own folder, own port, killed at
//! the end.

use serde_json::json;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_perfwatch");
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_perfwatch-agent");

/// A child that does not outlive its test.
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

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
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

    pub(crate) fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
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

/// A hub without agents.
pub(crate) struct TestHub {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// Of the administrator; may do all.
    pub(crate) token: String,
}

/// The administrator of every hub here.
pub(crate) const ADMIN: (&str, &str) = ("admin", "a hub that is tested");

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

    /// With settings by the environment.
    pub(crate) fn start_with_env(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let variables = [variables, &[("PERFWATCH_HUB_ADMIN_PASSWORD", ADMIN.1)]].concat();
        let mut process = Process::spawn_with(BINARY, folder, "hub", args, &variables);
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("://").next().unwrap().to_owned();
        assert!(address.contains(':'), "{line:?} {}", process.log());
        let mut hub = Self { process, address, token: String::new() };
        if line.contains("http://") {
            hub.token = hub.make_token(ADMIN, "admin");
        }
        hub
    }

    /// A signed token by name and password.
    pub(crate) fn create_user_and_log_in(&self, name: &str, password: &str) -> String {
        let body = json!({ "name": name, "password": password });
        let answer = self.request("POST", "/api/v1/auth/token", "", &body);
        answer.body["token"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
    }

    /// The cookie of a browser that is logged in.
    pub(crate) fn log_in(&self, name: &str, password: &str) -> String {
        let body = json!({ "name": name, "password": password });
        let post = ureq::post(self.url("/api/v1/auth/login")).header("Content-Type", "application/json");
        let answer = post.send(body.to_string()).unwrap();
        answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// As a page of the hub asks.
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
        answer(client().run(request))
    }

    /// A token that lasts.
    pub(crate) fn make_token(&self, (name, password): (&str, &str), scope: &str) -> String {
        let cookie = self.log_in(name, password);
        let body = json!({ "name": "test", "scope": scope });
        let answer = self.browser_request("POST", "/api/v1/tokens", &cookie, &body);
        answer.body["token"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
    }

    /// Any request by any token; without one, by nobody.
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
            return answer(client().run(request.body(()).unwrap()));
        }
        let request = request.header("Content-Type", "application/json").body(body.to_string()).unwrap();
        let agent = client();
        answer(agent.run(request))
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
        answer(request.send(body))
    }

    pub(crate) fn post_json(&self, body: &serde_json::Value) -> TestResponse {
        self.post(body.to_string().as_bytes(), &[("Content-Type", "application/json")])
    }

    /// Sequence numbers of a host, in the order of the live window.
    pub(crate) fn seqs(&self, host: &str) -> Vec<u64> {
        let answer = self.get(&format!("/api/metrics/recent?host={host}"));
        let list = answer.body["snapshots"].as_array().cloned().unwrap_or_default();
        list.iter().map(|snapshot| snapshot["seq"].as_u64().unwrap()).collect()
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

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> TestResponse {
    let mut response = result.unwrap();
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    let body = serde_json::from_str(&text).unwrap_or_default();
    TestResponse { status: response.status().as_u16(), body, text }
}

/// Waits for what must become true; generous, for machines with little to spare.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..800 {
        if check() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never happened: {what}");
}

pub(crate) fn now_ms() -> i64 {
    perfwatch_model::Clock::wall_ms(&perfwatch_model::SystemClock::new())
}

/// An agent named `it` that sends to a hub.
pub(crate) fn start_agent(folder: &Path, hub: &TestHub, interval: &str) -> Process {
    let (url, token) = (hub.url(""), &hub.token);
    let arguments = ["--hub", &url, "--interval", interval, "--name", "it", "--token", token];
    Process::spawn(AGENT, folder, "agent", &arguments)
}

/// Whether each is one more than the one before.
pub(crate) fn has_consecutive_sequences(seqs: &[u64]) -> bool {
    seqs.windows(2).all(|pair| pair[1] == pair[0] + 1)
}
