//! OpenSSH server with its own address and keys, and faulty servers that violate the protocol.

use crate::wait_until;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// User of servers with password authentication.
pub const USER: &str = "watched";
/// Password of the user [`USER`].
pub const PASSWORD: &str = "watch me";
/// Hash of [`PASSWORD`] in the format of shadow(5).
const PASSWORD_HASH: &str =
    "$6$perfwatch$HsTLVV8PKYA6Asi9ha0l08lfHrUgf5S20GRo.jMWo/Bj98wxxrmDPbX6FrlD..W7cgVICDcEXF8JBR6RoXMHj0";

/// OpenSSH server; ended when dropped.
pub struct Sshd {
    folder: tempfile::TempDir,
    address: Ipv4Addr,
    port: u16,
    lines: Vec<String>,
    passwords: bool,
    child: Option<Child>,
}

/// Returns a free TCP port of the address.
pub fn free_port(address: Ipv4Addr) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn keygen(path: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-f"]).arg(path).args(args);
    assert!(command.stdin(Stdio::null()).status().unwrap().success(), "ssh-keygen");
}

/// Generates a private key (`ed25519`, `rsa` or `ecdsa`), encrypted unless the passphrase is empty.
pub fn make_key(folder: &Path, kind: &str, passphrase: &str) -> PathBuf {
    let path = folder.join(format!("{kind}{}", if passphrase.is_empty() { "" } else { "-locked" }));
    if !path.exists() {
        keygen(&path, &["-t", kind, "-N", passphrase]);
    }
    path
}

impl Sshd {
    /// Starts the server on an address of 127/8, with additional lines of sshd_config(5).
    pub fn start(address: Ipv4Addr, lines: &[&str]) -> Self {
        Self::start_with(address, lines, false)
    }

    /// Starts a server that accepts [`USER`] with [`PASSWORD`]; needs root.
    pub fn start_with_passwords(address: Ipv4Addr, lines: &[&str]) -> Self {
        Self::start_with(address, lines, true)
    }

    fn start_with(address: Ipv4Addr, lines: &[&str], passwords: bool) -> Self {
        assert!(Path::new("/usr/sbin/sshd").exists(), "OpenSSH is not installed: run scripts/ensure-sshd");
        let folder = tempfile::Builder::new().prefix("pw-sshd-").tempdir().unwrap();
        let _ = std::fs::create_dir("/run/sshd");
        keygen(&folder.path().join("host"), &["-t", "ed25519", "-N", ""]);
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let mut server = Self { folder, address, port: free_port(address), lines, passwords, child: None };
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let key = make_key(server.folder.path(), kind, "");
            server.allow(&key);
        }
        server.resume();
        server
    }

    /// Authorizes a private key.
    pub fn allow(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let path = self.folder.path().join("authorized");
        let existing = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, existing + &public).unwrap();
    }

    /// Returns an authorized private key in OpenSSH format.
    pub fn key(&self, kind: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(kind)).unwrap()
    }

    /// Directory of keys, configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Address and port of the server.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// Restarts the server with another host key.
    pub fn change_host_key(&mut self) {
        self.stop();
        for name in ["host", "host.pub"] {
            std::fs::remove_file(self.folder.path().join(name)).unwrap();
        }
        keygen(&self.folder.path().join("host"), &["-t", "ed25519", "-N", ""]);
        self.resume();
    }

    /// Ends the listener; open connections continue.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the listener again on the same port.
    pub fn resume(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let mut config = format!(
            "Port {}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nUseDNS no\nMaxStartups 400:30:800\nPerSourcePenalties no\nPermitRootLogin yes\n\
             LogLevel VERBOSE\nPasswordAuthentication {}\nKbdInteractiveAuthentication no\n",
            self.port,
            self.address,
            path("host"),
            path("authorized"),
            if self.passwords { "yes" } else { "no" },
        )
        // The option exists since OpenSSH 9.8 only.
        .replace("PerSourcePenalties no\n", "");
        self.lines.iter().for_each(|line| config.push_str(&format!("{line}\n")));
        std::fs::write(path("config"), config).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        let mut command = match self.passwords {
            false => Command::new("/usr/sbin/sshd"),
            true => self.namespaced_command(),
        };
        command.args(["-D", "-e", "-f", &path("config")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let started = wait_until(|| TcpStream::connect(self.address()).is_ok());
        assert!(started, "sshd did not start: {}", self.log());
    }

    /// Command that runs sshd in a mount namespace, with [`USER`] added to the user database.
    fn namespaced_command(&self) -> Command {
        let folder = self.folder.path();
        let add = |name: &str, line: String| {
            let text = std::fs::read_to_string(format!("/etc/{name}")).unwrap();
            std::fs::write(folder.join(name), text + &line).unwrap();
        };
        add("passwd", format!("{USER}:x:47123:47123::{}:/bin/sh\n", folder.display()));
        add("group", format!("{USER}:x:47123:\n"));
        add("shadow", format!("{USER}:{PASSWORD_HASH}:20000:0:99999:7:::\n"));
        let binds: String = ["passwd", "group", "shadow"].iter().fold(String::new(), |binds, name| {
            binds + &format!("mount --bind {}/{name} /etc/{name}; ", folder.display())
        });
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{binds}exec /usr/sbin/sshd \"$@\""), "sshd"]);
        command
    }

    /// Kills all open connections.
    pub fn drop_connections(&self) {
        let Some(child) = &self.child else { return };
        let parent_field = format!(" {} ", child.id());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // Fields after the name in parentheses: state, parent (proc_pid_stat(5)).
            let fields = stat.rsplit_once(") ").and_then(|(_, fields)| fields.get(1..));
            if fields.is_some_and(|fields| fields.starts_with(&parent_field)) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        }
    }

    /// Log since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Behavior of a [`FaultyServer`] on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScript {
    /// Sends nothing, not even the banner.
    Silent,
    /// Sends the banner slowly, five bytes per second.
    SlowBanner,
    /// Sends random bytes instead of the banner.
    RandomBytes,
    /// Sends banner lines without end.
    EndlessBanner,
    /// Closes the connection at once.
    Reset,
    /// Sends a valid banner and then nothing.
    StallAfterBanner,
    /// Sends a valid banner and then random bytes.
    GarbageAfterBanner,
}

/// Server that violates the SSH protocol, on a port of 127.0.0.1.
pub struct FaultyServer {
    address: SocketAddr,
    open_connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl FaultyServer {
    /// Starts the server on a free port.
    pub fn start(script: FaultScript) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (open_connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (open_connections.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let open = counter.clone();
                open.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    run_script(script, stream);
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, open_connections, stop }
    }

    /// Address and port of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of open connections.
    pub fn open_connections(&self) -> usize {
        self.open_connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.9\r\n";

/// Runs the script until the client closes the connection.
fn run_script(script: FaultScript, mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let noise: Vec<u8> = (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    match script {
        FaultScript::Reset => return,
        FaultScript::SlowBanner => {
            for byte in BANNER.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                // Elapsed time for the client: the banner never completes in its timeout.
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        FaultScript::RandomBytes => {
            let _ = stream.write_all(&noise);
        }
        FaultScript::EndlessBanner => {
            while stream.write_all(b"Banner line without protocol version.\r\n").is_ok() {}
        }
        FaultScript::GarbageAfterBanner => {
            let _ = stream.write_all(BANNER);
            let _ = stream.write_all(&noise);
        }
        FaultScript::StallAfterBanner => {
            let _ = stream.write_all(BANNER);
        }
        FaultScript::Silent => {}
    }
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}
