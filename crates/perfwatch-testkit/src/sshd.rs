//! OpenSSH's server on an address of its own, with keys of its own; and servers that only look
//! like one.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The user that servers with passwords let in, and the password.
pub const USER: &str = "watched";
/// Its password.
pub const PASSWORD: &str = "watch me";
/// The same as shadow(5) keeps it.
const HASHED: &str =
    "$6$perfwatch$HsTLVV8PKYA6Asi9ha0l08lfHrUgf5S20GRo.jMWo/Bj98wxxrmDPbX6FrlD..W7cgVICDcEXF8JBR6RoXMHj0";

/// A server, ended with this value.
pub struct Sshd {
    folder: tempfile::TempDir,
    address: Ipv4Addr,
    port: u16,
    lines: Vec<String>,
    passwords: bool,
    child: Option<Child>,
}

/// A port of this address that nobody has.
pub fn free_port(address: Ipv4Addr) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn keygen(path: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-f"]).arg(path).args(args);
    assert!(command.stdin(Stdio::null()).status().unwrap().success(), "ssh-keygen");
}

/// A new private key: `ed25519`, `rsa` or `ecdsa`; locked where the passphrase is not empty.
pub fn make_key(folder: &Path, kind: &str, passphrase: &str) -> PathBuf {
    let path = folder.join(format!("{kind}{}", if passphrase.is_empty() { "" } else { "-locked" }));
    if !path.exists() {
        keygen(&path, &["-t", kind, "-N", passphrase]);
    }
    path
}

impl Sshd {
    /// On an address of 127/8, with these lines of sshd_config(5) more.
    pub fn start(address: Ipv4Addr, lines: &[&str]) -> Self {
        Self::start_with(address, lines, false)
    }

    /// One that lets [`USER`] in by [`PASSWORD`]; as root only.
    pub fn start_with_passwords(address: Ipv4Addr, lines: &[&str]) -> Self {
        Self::start_with(address, lines, true)
    }

    fn start_with(address: Ipv4Addr, lines: &[&str], passwords: bool) -> Self {
        assert!(Path::new("/usr/sbin/sshd").exists(), "no sshd here: run scripts/ensure-sshd");
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

    /// Lets in whoever has this private key.
    pub fn allow(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let path = self.folder.path().join("authorized");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, before + &public).unwrap();
    }

    /// A key that lets one in.
    pub fn key(&self, kind: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(kind)).unwrap()
    }

    /// Where its keys are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// Shows another key from now on.
    pub fn change_host_key(&mut self) {
        self.stop();
        for name in ["host", "host.pub"] {
            std::fs::remove_file(self.folder.path().join(name)).unwrap();
        }
        keygen(&self.folder.path().join("host"), &["-t", "ed25519", "-N", ""]);
        self.resume();
    }

    /// Ends it; who is connected stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, on the same port.
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
        // Known from 9.8 on only.
        .replace("PerSourcePenalties no\n", "");
        self.lines.iter().for_each(|line| config.push_str(&format!("{line}\n")));
        std::fs::write(path("config"), config).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        let mut command = match self.passwords {
            false => Command::new("/usr/sbin/sshd"),
            true => self.with_user(),
        };
        command.args(["-D", "-e", "-f", &path("config")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        for _ in 0..200 {
            if TcpStream::connect(self.address()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("sshd does not start: {}", self.log());
    }

    /// Sees files of users that nobody else sees.
    fn with_user(&self) -> Command {
        let folder = self.folder.path();
        let add = |name: &str, line: String| {
            let text = std::fs::read_to_string(format!("/etc/{name}")).unwrap();
            std::fs::write(folder.join(name), text + &line).unwrap();
        };
        add("passwd", format!("{USER}:x:47123:47123::{}:/bin/sh\n", folder.display()));
        add("group", format!("{USER}:x:47123:\n"));
        add("shadow", format!("{USER}:{HASHED}:20000:0:99999:7:::\n"));
        let binds: String = ["passwd", "group", "shadow"].iter().fold(String::new(), |binds, name| {
            binds + &format!("mount --bind {}/{name} /etc/{name}; ", folder.display())
        });
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{binds}exec /usr/sbin/sshd \"$@\""), "sshd"]);
        command
    }

    /// Cuts whoever is connected.
    pub fn drop_connections(&self) {
        let Some(child) = &self.child else { return };
        let of_ours = format!(" {} ", child.id());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the name in parentheses: state, then the parent.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.get(1..));
            if parent.is_some_and(|rest| rest.starts_with(&of_ours)) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        }
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a server that is none does with whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScript {
    /// Says nothing.
    Silent,
    /// A byte a second.
    SlowBanner,
    /// Bytes that mean nothing.
    RandomBytes,
    /// A greeting without an end.
    EndlessBanner,
    /// Hangs up at once.
    Reset,
    /// Greets as it should and then stands still.
    StallAfterBanner,
    /// Greets as it should and then says what nobody understands.
    GarbageAfterBanner,
}

/// A server that is none, on a port of 127.0.0.1.
pub struct FaultyServer {
    address: SocketAddr,
    open_connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl FaultyServer {
    /// Listens.
    pub fn start(trap: FaultScript) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (open_connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (open_connections.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let open = counted.clone();
                open.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    run_script(trap, stream);
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, open_connections, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who is connected still.
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

const GREETING: &[u8] = b"SSH-2.0-OpenSSH_9.9\r\n";

/// Goes on until the other side has gone.
fn run_script(trap: FaultScript, mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let noise: Vec<u8> = (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    match trap {
        FaultScript::Reset => return,
        FaultScript::SlowBanner => {
            for byte in GREETING.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        FaultScript::RandomBytes => {
            let _ = stream.write_all(&noise);
        }
        FaultScript::EndlessBanner => {
            while stream.write_all(b"Welcome to this fine machine, which has much to say.\r\n").is_ok() {}
        }
        FaultScript::GarbageAfterBanner => {
            let _ = stream.write_all(GREETING);
            let _ = stream.write_all(&noise);
        }
        FaultScript::StallAfterBanner => {
            let _ = stream.write_all(GREETING);
        }
        FaultScript::Silent => {}
    }
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}
