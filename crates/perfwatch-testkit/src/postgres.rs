//! PostgreSQL server on its own socket, which can be killed and started again.

use crate::pgbouncer::PgBouncer;
use crate::wait_until;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Settings of a fast server, which loses data in a crash.
const FAST_SETTINGS: [&str; 3] = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
/// Settings of every server: little memory, no TCP port.
const BASE_SETTINGS: [&str; 6] = [
    "listen_addresses=",
    "shared_buffers=32MB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "max_connections=60",
];
const INITDB_FLAGS: [&str; 9] =
    ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"];

/// Settings of a server that has replicas.
const PRIMARY_SETTINGS: [&str; 4] =
    ["wal_level=replica", "max_wal_senders=4", "fsync=off", "full_page_writes=off"];

/// PostgreSQL server with a temporary data directory; killed when dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    settings: Vec<String>,
    port: u16,
    child: Option<Child>,
    pooler: Option<PgBouncer>,
}

/// Returns the program directory of the newest installed version.
fn find_programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is not installed: run scripts/ensure-postgres")
}

/// Command of a program that refuses to run as root, so that root switches to the user `postgres`.
fn as_postgres(path: &Path) -> Command {
    if std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() != 0) {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
    command
}

impl Postgres {
    /// Starts a fast server, which loses data in a crash.
    pub fn start() -> Self {
        Self::start_with(&FAST_SETTINGS)
    }

    /// Starts a server that keeps committed data in a crash.
    pub fn start_durable() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with additional settings, as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::in_new_folder(BASE_SETTINGS.iter().chain(settings));
        let data = server.data();
        let mut initdb = server.command("initdb");
        let status = initdb.args(INITDB_FLAGS).arg("-D").arg(&data).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "initdb failed");
        server.resume();
        server
    }

    /// Starts a fast server that can have replicas.
    pub fn start_primary() -> Self {
        Self::start_with(&PRIMARY_SETTINGS)
    }

    /// Starts a streaming replica of a server from [`Postgres::start_primary`].
    pub fn start_replica(&self) -> Self {
        let mut replica = Self::in_new_folder(&self.settings);
        let data = replica.data();
        let mut backup = replica.command("pg_basebackup");
        backup.args(["-U", "postgres", "-R", "-c", "fast", "--no-sync", "-h"]).arg(self.folder.path());
        let status = backup.arg("-D").arg(&data).env("PGPORT", self.port.to_string()).status().unwrap();
        assert!(status.success(), "pg_basebackup failed");
        replica.resume();
        replica
    }

    /// A server that is not started, without data.
    fn in_new_folder(settings: impl IntoIterator<Item = impl ToString>) -> Self {
        let folder = tempfile::Builder::new().prefix("pw-pg-").tempdir().unwrap();
        // The user `postgres` must be able to create files in it.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let settings = settings.into_iter().map(|setting| setting.to_string()).collect();
        Self { folder, programs: find_programs(), settings, port: 5432, child: None, pooler: None }
    }

    /// Starts a fast server whose URLs lead to pgbouncer in transaction mode.
    pub fn start_behind_pooler() -> Self {
        let mut server = Self::start();
        server.pooler =
            Some(PgBouncer::start(server.folder.path(), as_postgres(PgBouncer::PROGRAM.as_ref())));
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Command of a server program.
    fn command(&self, program: &str) -> Command {
        let mut command = as_postgres(&self.programs.join(program));
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

    /// Runs SQL in a database and returns the values, separated by `|` and line breaks.
    ///
    /// # Panics
    /// Panics if the SQL fails.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql, "-h"]);
        command.arg(self.folder.path()).env("PGPORT", self.port.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// URL of a database for a role of this name, which is created as a superuser.
    pub fn url_as(&self, name: &str, role: &str) -> String {
        self.query("postgres", &format!("CREATE ROLE {role} SUPERUSER LOGIN"));
        self.url(name).replacen("postgres@", &format!("{role}@"), 1)
    }

    /// Starts the server again after [`Postgres::kill`] or [`Postgres::stop`].
    pub fn resume(&mut self) {
        let log_path = self.folder.path().join("log");
        let log = OpenOptions::new().create(true).append(true).open(&log_path).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.child =
            Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let started = wait_until(|| self.psql("SELECT 1"));
        assert!(started, "PostgreSQL did not start: {}", std::fs::read_to_string(log_path).unwrap());
    }

    /// Kills the server with SIGKILL and waits until all its processes have ended.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The other processes exit when the postmaster has died.
            let _ = child.kill();
            let _ = child.wait();
            assert!(wait_until(|| !self.has_processes()), "PostgreSQL processes did not end");
        }
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// Stops the server with a signal: `INT` ends its connections and writes a checkpoint (fast), `QUIT` leaves both to the
    /// next start (immediate).
    pub fn stop(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
            let _ = child.wait();
            assert!(wait_until(|| !self.has_processes()), "PostgreSQL processes did not end");
        }
    }

    /// Returns whether a process of the server runs: its working directory is the data directory.
    fn has_processes(&self) -> bool {
        let data = self.data();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok()).any(|cwd| cwd == data)
    }

    /// Restarts with TLS on a port of 127.0.0.1, with this certificate and key (PEM).
    pub fn restart_with_tls(&mut self, cert: &str, key: &str, port: u16) {
        self.kill();
        for (name, text) in [("server.crt", cert), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let owner = std::fs::metadata(self.data()).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        self.settings.retain(|setting| !setting.starts_with("listen_addresses"));
        let tls = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}"), "ssl=on".to_owned()];
        self.settings.extend(tls);
        self.port = port;
        self.resume();
    }

    /// Creates an empty database and returns its URL.
    pub fn database(&self, name: &str) -> String {
        assert!(self.psql(&format!("CREATE DATABASE {name}")), "CREATE DATABASE {name}");
        if self.pooler.is_some() {
            self.fill_pool(name);
        }
        self.url(name)
    }

    /// Opens all connections of the pooler to a database, by transactions at the same time.
    fn fill_pool(&self, database: &str) {
        let start = |_| {
            let mut command = Command::new(self.programs.join("psql"));
            command.args(["-q", "-U", "postgres", "-d", database, "-c", "SELECT pg_sleep(0.3)", "-h"]);
            command.arg(self.folder.path()).env("PGPORT", PgBouncer::PORT.to_string());
            command.stdout(Stdio::null()).spawn().unwrap()
        };
        let sessions: Vec<Child> = (0..PgBouncer::POOL_SIZE).map(start).collect();
        for mut session in sessions {
            assert!(session.wait().unwrap().success(), "no connection through pgbouncer");
        }
    }

    /// URL of a database, over the Unix socket of the server or of its pooler.
    pub fn url(&self, name: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        let port = if self.pooler.is_some() { PgBouncer::PORT } else { self.port };
        format!("postgres://postgres@{socket}:{port}/{name}")
    }

    /// Path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Makes a database read-only or writable, and ends its connections, which keep the old mode.
    pub fn set_read_only(&self, name: &str, on: bool) {
        let value = if on { "on" } else { "off" };
        assert!(self.psql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}")));
        let disconnect =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        assert!(self.psql(&disconnect));
    }

    /// Directory of socket, data and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.pooler = None;
        self.kill();
    }
}
