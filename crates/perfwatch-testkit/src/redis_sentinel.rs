//! Redis servers that sentinels watch: a primary, a replica that takes over, and three sentinels. With passwords, and
//! with TLS if a certificate is given.

use crate::wait_until;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Name of the service.
const SERVICE: &str = "perfwatch";
const SERVER_PASSWORD: &str = "server/secret";
const SENTINEL_PASSWORD: &str = "sentinel/secret";

/// A server and its replica with three sentinels, on ports of 127.0.0.1; killed when dropped.
pub struct RedisSentinel {
    folder: tempfile::TempDir,
    has_tls: bool,
    servers: [Process; 2],
    sentinels: Vec<Process>,
}

/// Certificate for 127.0.0.1, its key, and the certificate of its authority, as PEM.
pub struct RedisCertificate {
    /// Certificate.
    pub cert: String,
    /// Private key.
    pub key: String,
    /// Certificate of the authority.
    pub authority: String,
}

struct Process {
    port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Process {
    /// Starts `redis-server` with a configuration, to which the port and the certificates of the folder are added.
    fn start(folder: &Path, name: &str, config: &str, arguments: &[&str]) -> Self {
        Self::start_at(folder, name, free_port(), config, arguments)
    }

    fn start_at(folder: &Path, name: &str, port: u16, config: &str, arguments: &[&str]) -> Self {
        let path = folder.join(format!("{name}.conf"));
        let folder_name = folder.display();
        let listen = if folder.join("ca.pem").exists() {
            format!(
                "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n\
                 tls-cert-file {folder_name}/server.pem\ntls-key-file {folder_name}/server.key\n\
                 tls-ca-cert-file {folder_name}/ca.pem\n"
            )
        } else {
            format!("port {port}\n")
        };
        std::fs::write(&path, format!("bind 127.0.0.1\ndir {folder_name}\n{listen}{config}")).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&path).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("Redis is not installed: run scripts/ensure-redis");
        Self { port, child: Some(child) }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl RedisSentinel {
    /// Starts servers and sentinels; with TLS if there is a certificate.
    pub fn start(certificate: Option<&RedisCertificate>) -> Self {
        let folder = tempfile::Builder::new().prefix("pw-sentinel-").tempdir().unwrap();
        if let Some(RedisCertificate { cert, key, authority }) = certificate {
            for (name, text) in [("server.pem", cert), ("server.key", key), ("ca.pem", authority)] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
        }
        let password = format!(
            "requirepass {SERVER_PASSWORD}\nmasterauth {SERVER_PASSWORD}\nsave \"\"\nappendonly no\n\
             repl-diskless-sync-delay 0\n"
        );
        let primary = free_port();
        let servers = [
            Process::start_at(folder.path(), "primary", primary, &password, &[]),
            Process::start(
                folder.path(),
                "replica",
                &format!("{password}replicaof 127.0.0.1 {primary}\n"),
                &[],
            ),
        ];
        let config = format!(
            "requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\nsentinel auth-pass {SERVICE} {SERVER_PASSWORD}\n\
             sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 1000\n"
        );
        let mut group = Self { folder, has_tls: certificate.is_some(), servers, sentinels: Vec::new() };
        // Sentinels list the replicas of a primary every 10 s: it must have its replica before they start.
        assert!(wait_until(|| group.is_replicated()), "the replica does not receive the data of the primary");
        for name in ["first-sentinel", "second-sentinel", "third-sentinel"] {
            let sentinel = Process::start(group.folder.path(), name, &config, &["--sentinel"]);
            group.sentinels.push(sentinel);
        }
        assert!(wait_until(|| group.is_complete()), "the sentinels do not know each other and the replica");
        group
    }

    /// Path of the certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// URL for hubs.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let hosts = hosts.join(",");
        let (server, sentinel) = (SERVER_PASSWORD.replace('/', "%2F"), SENTINEL_PASSWORD.replace('/', "%2F"));
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        format!("{scheme}+sentinel://:{server}@{hosts}/{SERVICE}/0?sentinel_password={sentinel}")
    }

    /// Runs a command at a port.
    fn run(&self, port: u16, password: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "--no-auth-warning"]);
        if self.has_tls {
            command.arg("--tls").arg("--cacert").arg(self.authority());
        }
        command.args(["-p", &port.to_string(), "-a", password]).args(arguments).output().unwrap()
    }

    /// Returns whether a failover is possible.
    fn is_complete(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let output = self.run(sentinel.port, SENTINEL_PASSWORD, &["SENTINEL", "MASTER", SERVICE]);
            let text = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
            text.contains("flags master ") && text.contains("num-slaves 1 num-other-sentinels 2")
        })
    }

    fn is_replicated(&self) -> bool {
        let output = self.run(self.servers[1].port, SERVER_PASSWORD, &["INFO", "replication"]);
        String::from_utf8_lossy(&output.stdout).contains("master_link_status:up")
    }

    /// Kills the first primary. The sentinels make the replica the primary.
    pub fn kill_primary(&mut self) {
        self.servers[0].kill();
    }

    /// Makes the replica the primary, and the primary, which continues to run, its replica.
    pub fn switch_primary(&self) {
        let output = self.run(self.sentinels[0].port, SENTINEL_PASSWORD, &["SENTINEL", "FAILOVER", SERVICE]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK");
    }

    /// Kills a sentinel, of three.
    pub fn kill_sentinel(&mut self, number: usize) {
        self.sentinels[number].kill();
    }
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        self.servers.iter_mut().chain(&mut self.sentinels).for_each(Process::kill);
    }
}
