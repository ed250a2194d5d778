//! Frame of the attacks: requests until the deadline, and a tally of the responses.

use perfwatch_model::{Clock, SystemClock};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

/// Repeats one thing until the deadline.
pub(crate) type Attack = (&'static str, fn(&Attacker, &'static str));

/// Timeout of a hostile request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two requests of an attack, so that building requests does not take all processors.
const PAUSE: Duration = Duration::from_millis(5);
/// Maximum bytes that are read of a response.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;

/// Hostile sender with the credentials that it was given.
pub(crate) struct Attacker {
    pub(crate) clock: SystemClock,
    deadline: Duration,
    pub(crate) url: String,
    pub(crate) address: String,
    pub(crate) agent: String,
    /// Enrollment token of the hostile agent, already used.
    pub(crate) enrollment: String,
    pub(crate) viewer: String,
    pub(crate) operator: String,
    /// Names of honest hosts.
    pub(crate) names: Vec<String>,
    /// Responses by attack and code.
    tally: Mutex<BTreeMap<(&'static str, String), u64>>,
}

/// Code of an error response, else the beginning of its text.
pub(crate) fn error_code(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let code = body["error"]["code"].as_str().map(str::to_owned);
    code.unwrap_or_else(|| text.chars().filter(|c| !c.is_control()).take(40).collect())
}

impl Attacker {
    pub(crate) fn new(config: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let clock = SystemClock::new();
        let seconds = config["seconds"].as_u64().unwrap_or_default();
        Ok(Self {
            deadline: clock.monotonic() + Duration::from_secs(seconds),
            clock,
            url: text("url"),
            address: text("address"),
            agent: text("agent"),
            enrollment: text("enrollment"),
            viewer: text("viewer"),
            operator: text("operator"),
            names: serde_json::from_value(config["names"].clone())?,
            tally: Mutex::default(),
        })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.clock.monotonic() >= self.deadline
    }

    /// Client with its own connections.
    pub(crate) fn http() -> ureq::Agent {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT));
        config.http_status_as_error(false).build().new_agent()
    }

    /// Repeats a request with a running number until the deadline.
    pub(crate) fn repeat(&self, attack: &'static str, mut request: impl FnMut(&ureq::Agent, u64) -> String) {
        let http = Self::http();
        for number in 0.. {
            if self.is_over() {
                return;
            }
            self.count(attack, request(&http, number));
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn count(&self, attack: &'static str, code: String) {
        *super::lock(&self.tally).entry((attack, code)).or_default() += 1;
    }

    /// Status and error code of a `GET`.
    pub(crate) fn get(&self, http: &ureq::Agent, path: &str, bearer: &str) -> String {
        outcome(http.get(format!("{}{path}", self.url)).header("Authorization", bearer).call())
    }

    /// Status and error code of a `POST` or `PUT`.
    pub(crate) fn send(
        &self,
        http: &ureq::Agent,
        (method, path): (&str, &str),
        bearer: &str,
        (content_type, encoding): (&str, &str),
        body: &[u8],
    ) -> String {
        let url = format!("{}{path}", self.url);
        let request = if method == "PUT" { http.put(url) } else { http.post(url) };
        let request = request.header("Authorization", bearer).header("Content-Type", content_type);
        let request =
            if encoding.is_empty() { request } else { request.header("Content-Encoding", encoding) };
        outcome(request.send(body))
    }

    /// Status and error code of a JSON request.
    pub(crate) fn send_json(
        &self,
        http: &ureq::Agent,
        route: (&str, &str),
        bearer: &str,
        body: &Value,
    ) -> String {
        self.send(http, route, bearer, ("application/json", ""), body.to_string().as_bytes())
    }

    /// Opens connections that send a request one byte a second and never read, until the deadline.
    pub(crate) fn hold_connections(&self, attack: &'static str, count: usize, request: &str, rest: u8) {
        let mut open: Vec<TcpStream> = Vec::new();
        while !self.is_over() {
            while open.len() < count && !self.is_over() {
                let Ok(mut stream) = TcpStream::connect(&self.address) else {
                    self.count(attack, "refused".to_owned());
                    break;
                };
                let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                let written = stream.write_all(request.as_bytes());
                self.count(attack, if written.is_ok() { "opened" } else { "closed" }.to_owned());
                open.push(stream);
            }
            let before = open.len();
            open.retain_mut(|stream| stream.write_all(&[rest]).is_ok());
            for _ in open.len()..before {
                self.count(attack, "closed by the hub".to_owned());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Prints the responses of all attacks.
    pub(crate) fn print(&self) {
        println!("  responses to the hostile senders:");
        let tally = super::lock(&self.tally);
        let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((attack, code), count) in tally.iter() {
            lines.entry(attack).or_default().push(format!("{count} × {code}"));
        }
        for (attack, codes) in lines {
            println!("    {attack}: {}", codes.join(", "));
        }
    }
}

fn outcome(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> String {
    let mut response = match result {
        Ok(response) => response,
        Err(ureq::Error::Timeout(_)) => return "timeout".to_owned(),
        Err(_) => return "no response".to_owned(),
    };
    let status = response.status().as_u16();
    if status < 400 {
        let mut reader = response.body_mut().as_reader().take(MAX_RESPONSE_BYTES);
        let read = std::io::copy(&mut reader, &mut std::io::sink());
        return if read.is_ok() { status.to_string() } else { format!("{status} cut off") };
    }
    let text = response.body_mut().read_to_string().unwrap_or_default();
    format!("{status} {}", error_code(&text))
}
