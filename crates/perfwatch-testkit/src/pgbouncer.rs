//! Pooler in transaction mode in front of a PostgreSQL server.

use crate::wait_until;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// pgbouncer on a Unix socket; killed when dropped.
pub(crate) struct PgBouncer {
    child: Child,
}

impl PgBouncer {
    pub(crate) const PROGRAM: &str = "/usr/sbin/pgbouncer";
    /// Port in the name of the Unix socket.
    pub(crate) const PORT: u16 = 6432;
    /// Connections to each database.
    pub(crate) const POOL_SIZE: usize = 2;

    /// Starts pgbouncer for the server whose socket is in the folder, with a command that runs it. Consecutive
    /// transactions of a client use different connections to the server.
    pub(crate) fn start(folder: &Path, mut command: Command) -> Self {
        let path = folder.display();
        let size = Self::POOL_SIZE;
        let config = format!(
            "[databases]\n* = host={path} port=5432 user=postgres\n\
             [pgbouncer]\npool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = {size}\n\
             min_pool_size = {size}\nmax_client_conn = 200\nauth_type = any\nlisten_port = {}\n\
             unix_socket_dir = {path}\n",
            Self::PORT
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("pgbouncer is not installed: run scripts/ensure-postgres");
        let pooler = Self { child };
        let socket = folder.join(format!(".s.PGSQL.{}", Self::PORT));
        assert!(wait_until(|| UnixStream::connect(&socket).is_ok()), "pgbouncer did not start");
        pooler
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
