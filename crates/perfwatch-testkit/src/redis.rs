//! Redis server on its own socket, which can be stopped, killed and restarted.

use crate::wait_until;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Redis server without persistence.
pub struct Redis {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts an empty server; panics if Redis is not installed.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pw-redis-").tempdir().unwrap();
        let mut redis = Self { folder, child: None };
        redis.restart();
        redis
    }

    /// Path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// URL of the Unix socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills the server; all data is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Kills the server and starts an empty server on the same socket.
    pub fn restart(&mut self) {
        self.kill();
        let socket = self.socket();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(self.folder.path()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("Redis is not installed: run scripts/ensure-redis"));
        assert!(wait_until(|| UnixStream::connect(&socket).is_ok()), "Redis did not start");
    }

    /// Sends a signal, such as `STOP`, to the server process.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
