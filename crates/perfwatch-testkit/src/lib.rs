//! Real parts for tests: a PostgreSQL of their own on a socket of its own, an sshd, a Redis, gone with the test;
//! servers that take down what they hear.

#![expect(clippy::unwrap_used, reason = "a test can't go on without its parts")]

pub mod recorder;
pub mod redis;
pub mod sshd;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server with one empty database after another.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    settings: Vec<String>,
    port: u16,
    child: Option<Child>,
}

/// What makes it fast, where nothing is asked of it after a crash.
const FAST_SETTINGS: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
/// What every one has: little memory, and no port that could be taken.
const BASE_SETTINGS: [&str; 6] = [
    "listen_addresses=",
    "shared_buffers=32MB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "max_connections=60",
];

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("no PostgreSQL here: run scripts/ensure-postgres")
}

impl Postgres {
    /// Starts one that forgets what it had in a crash.
    pub fn start() -> Self {
        Self::start_with(&FAST_SETTINGS)
    }

    /// Starts one that keeps what it acknowledged.
    pub fn start_durable() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these settings, as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pw-pg-").tempdir().unwrap();
        // The server's own user must get through.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let settings = BASE_SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, programs: programs(), settings, port: 5432, child: None };
        let data = server.data();
        let done = server
            .command("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "initdb");
        server.resume();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the server, as a user that it accepts: it refuses root.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let is_root =
            std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let mut command = if is_root.unwrap_or(false) {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path());
        command
    }

    fn psql(&self, sql: &str) -> bool {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-q", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(self.folder.path())
            .args(["-c", sql]);
        command.env("PGPORT", self.port.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Starts it again after [`Postgres::kill`].
    pub fn resume(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.child =
            Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        for _ in 0..300 {
            if self.psql("SELECT 1") {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "PostgreSQL does not start: {}",
            std::fs::read_to_string(self.folder.path().join("log")).unwrap()
        );
    }

    /// kill -9 of the server and all its processes.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The first process takes the others along: they notice that it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Speaks TLS from now on, on a port of 127.0.0.1, with this certificate and key (PEM).
    pub fn restart_with_tls(&mut self, cert: &str, key: &str, port: u16) {
        self.kill();
        for (name, text) in [("server.crt", cert), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let owner = std::fs::metadata(self.data()).unwrap();
            let (user, group) =
                (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
            std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
        }
        self.settings.retain(|setting| !setting.starts_with("listen_addresses"));
        let more = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}"), "ssl=on".to_owned()];
        self.settings.extend(more);
        self.port = port;
        self.resume();
    }

    /// The address of a new, empty database.
    pub fn database(&self, name: &str) -> String {
        assert!(self.psql(&format!("CREATE DATABASE {name}")), "CREATE DATABASE {name}");
        self.url(name)
    }

    /// The address of a database.
    pub fn url(&self, name: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{name}")
    }

    /// From now on its database is for reading alone, or for writing again.
    pub fn set_read_only(&self, name: &str, on: bool) {
        let value = if on { "on" } else { "off" };
        assert!(self.psql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}")));
        // Who is connected has not heard of it.
        let leave =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        assert!(self.psql(&leave));
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
