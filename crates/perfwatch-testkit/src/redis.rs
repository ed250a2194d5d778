//! A Redis of its own on a socket of its own, that can be stopped, killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that keeps nothing on disk.
pub struct Redis {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pw-redis-").tempdir().unwrap();
        let mut redis = Self { folder, child: None };
        redis.restart();
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it, with all it knew.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it once more.
    pub fn restart(&mut self) {
        self.kill();
        let socket = self.socket();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(self.folder.path()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("no Redis here: run scripts/ensure-redis"));
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("Redis did not start");
    }

    /// Tells its process something, as `STOP`.
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
