//! Measured hub in a process: its memory does not contain that of the senders.

use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::Clock;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Password of the initial administrator and of all users.
const PASSWORD: &str = "initial-password-1";

/// Settings of a hub whose fleet and viewers share an address.
pub(crate) const FLEET_SETTINGS: &[(&str, &str)] = &[
    ("PERFWATCH_HUB_LIMITS_MAX_CONNECTIONS_PER_ADDRESS", "20000"),
    ("PERFWATCH_HUB_DISK_BUDGET", "20GB"),
    ("PERFWATCH_HUB_LIMITS_AGENT_REQUESTS_PER_SECOND", "100000"),
    ("PERFWATCH_HUB_LIMITS_INGEST_REQUESTS_PER_SECOND", "1000000"),
    ("PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND", "100000"),
];

/// Hub with a temporary data directory; killed on drop.
pub(crate) struct HubProcess {
    child: Child,
    program: PathBuf,
    /// Contains the data directory and the log.
    folder: PathBuf,
    variables: Vec<(String, String)>,
    pub(crate) url: String,
    /// Listen address, without a scheme.
    pub(crate) address: String,
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Program next to this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("perfwatch");
    anyhow::ensure!(
        program.exists(),
        "{}: not built; build perfwatch in the same profile",
        program.display()
    );
    Ok(program)
}

/// Starts a process and returns it with its address.
fn spawn(
    program: &Path,
    folder: &Path,
    listen: &str,
    variables: &[(String, String)],
) -> anyhow::Result<(Child, String)> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("hub.log"))?;
    let mut child = Command::new(program)
        .args(["hub", "--listen", listen])
        .env("PERFWATCH_DATA", folder.join("hub"))
        .env("PERFWATCH_HUB_ADMIN_PASSWORD", PASSWORD)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let address = line.trim().rsplit("://").next().unwrap_or_default().to_owned();
    if !address.contains(':') {
        let _ = child.kill();
        let _ = child.wait();
        anyhow::bail!("the hub did not start: {line:?}");
    }
    Ok((child, address))
}

impl HubProcess {
    /// Starts a hub with its data in `folder` and further environment variables.
    pub(crate) fn start(folder: &Path, variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = program()?;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<(String, String)> = variables.iter().map(owned).collect();
        let (child, address) = spawn(&program, folder, "127.0.0.1:0", &variables)?;
        let url = format!("http://{address}");
        Ok(Self { child, program, folder: folder.to_owned(), variables, url, address })
    }

    /// Starts the hub again at the same address, after its process ended.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        (self.child, self.address) = spawn(&self.program, &self.folder, &self.address, &self.variables)?;
        Ok(())
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }

    fn user_command(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(&self.program)
            .arg("user")
            .args(arguments)
            .env("PERFWATCH_DATA", self.folder.join("hub"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "user {arguments:?} failed");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Creates a user and returns an API token of the same role, as a header.
    pub(crate) fn create_user(&self, name: &str, role: &str) -> anyhow::Result<String> {
        self.user_command(&["add", name, "--role", role], &format!("{PASSWORD}\n"))?;
        Ok(format!("Bearer {}", self.user_command(&["token", name, "--scope", role], "")?))
    }

    /// Sends a request and returns its JSON.
    pub(crate) fn request(&self, path: &str, bearer: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let text = self.text(path, bearer, body)?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// Sends a request and returns the body of its response.
    pub(crate) fn text(&self, path: &str, bearer: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60)));
        let http = config.http_status_as_error(false).build().new_agent();
        let url = format!("{}{path}", self.url);
        let mut response = match body {
            Some(body) => {
                let post = http.post(url).header("Authorization", bearer).content_type("application/json");
                post.send(body.to_string())?
            }
            None => http.get(url).header("Authorization", bearer).call()?,
        };
        Ok(response.body_mut().read_to_string()?)
    }

    /// Replaces an object with the method `PUT`.
    pub(crate) fn put(&self, path: &str, bearer: &str, body: &Value) -> anyhow::Result<()> {
        let request = ureq::put(format!("{}{path}", self.url)).header("Authorization", bearer);
        request.content_type("application/json").send(body.to_string())?;
        Ok(())
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str, bearer: &str) -> anyhow::Result<()> {
        ureq::delete(format!("{}{path}", self.url)).header("Authorization", bearer).call()?;
        Ok(())
    }

    /// Creates an enrollment token for a number of agents.
    pub(crate) fn enrollment_token(&self, admin: &str, uses: u64) -> anyhow::Result<String> {
        let token = json!({ "name": "bench", "uses": uses });
        let created = self.request("/api/v1/enrollment-tokens", admin, Some(&token))?;
        Ok(created["token"].as_str().with_context(|| created.to_string())?.to_owned())
    }

    /// Enrolls an agent and returns its secret as a header.
    pub(crate) fn enroll(&self, admin: &str, token: &str, id: &str, name: &str) -> anyhow::Result<String> {
        let enrollment = json!({ "token": token, "host_id": id, "host_name": name });
        let enrolled = self.request("/api/v1/agents/enroll", admin, Some(&enrollment))?;
        let secret = enrolled["secret"].as_str().with_context(|| enrolled.to_string())?;
        Ok(format!("Bearer {secret}"))
    }

    pub(crate) fn resident_mb(&self) -> anyhow::Result<f64> {
        crate::process::resident_mb(&self.child.id().to_string())
    }

    /// CPU time since the start of the hub, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        crate::process::cpu_seconds(&self.child.id().to_string())
    }

    /// Returns whether the process has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.resident_mb().is_ok_and(|resident_mb| resident_mb > 0.0)
    }

    /// Enrolls the first `count` hosts of the simulated fleet. Returns each with its secret as a header.
    pub(crate) fn enroll_fleet(&self, admin: &str, count: usize) -> anyhow::Result<Vec<(SimHost, String)>> {
        let (catalog, token) = (crate::fleet::catalog(), self.enrollment_token(admin, count as u64)?);
        let enroll = |number| {
            let host = SimHost::new(&catalog, 1, number);
            let bearer = self.enroll(admin, &token, &host.id.to_string(), &host.name)?;
            Ok((host, bearer))
        };
        (0..count).map(enroll).collect()
    }

    /// Sends SIGTERM and returns the time until the end; `None` after the timeout.
    pub(crate) fn stop(&mut self, timeout: Duration, clock: &dyn Clock) -> anyhow::Result<Option<Duration>> {
        self.signal("TERM")?;
        self.wait(timeout, clock)
    }

    /// Waits for the end of the process and returns the time until then; `None` after the timeout.
    pub(crate) fn wait(&mut self, timeout: Duration, clock: &dyn Clock) -> anyhow::Result<Option<Duration>> {
        let started = clock.monotonic();
        loop {
            let elapsed = clock.monotonic().saturating_sub(started);
            if self.child.try_wait()?.is_some() {
                return Ok(Some(elapsed));
            }
            if elapsed > timeout {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
