//! Install script of the agent, the commands that run it, and the agent binaries with their checksums.
//!
//! Over plain HTTP, anyone on the way can change what a host installs as root. The script therefore checks the
//! SHA-256 of the agent, and the verified command checks that of the script.

use crate::error::ApiError;
use axum::http::StatusCode;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::sync::Mutex;

const SCRIPT: &str = include_str!("install.sh");
/// Maximum number of architectures in the script.
const MAX_ARCHITECTURES: usize = 32;
/// File names of agent binaries end with the architecture.
const BINARY_PREFIX: &str = "perfwatch-agent-";

/// Checksums of binaries that did not change since: hashing takes about a second. The lock is held while a
/// checksum is computed, so that concurrent requests share the work.
static CHECKSUMS: Mutex<BTreeMap<PathBuf, Checksum>> = Mutex::const_new(BTreeMap::new());

#[derive(Clone, PartialEq, Eq)]
struct Checksum {
    modified: Option<SystemTime>,
    bytes: u64,
    sha256: String,
}

/// Commands that install and enroll an agent.
#[derive(Debug, PartialEq, Eq)]
pub struct InstallCommands {
    /// Command that runs the script as it is downloaded.
    pub command: String,
    /// Command that checks the script before it runs, and passes the token by standard input.
    pub verified_command: String,
}

/// The hub's URL if it is safe in a shell script; it may originate from a request header.
fn shell_safe(base_url: &str) -> Result<&str, ApiError> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-._:/[]".contains(c);
    match base_url.chars().all(is_safe) {
        true => Ok(base_url),
        false => Err(ApiError::bad_request("invalid_host_header", "invalid Host header")),
    }
}

/// Commands for a hub with this URL.
///
/// # Errors
/// Returns `invalid_host_header` if the URL is not safe in a shell, or an error if a binary cannot be read.
pub async fn commands(base_url: &str, downloads: &Path, token: &str) -> Result<InstallCommands, ApiError> {
    let sha256 = to_hex(&Sha256::digest(script(base_url, downloads).await?));
    let url = format!("{}/install.sh", shell_safe(base_url)?);
    Ok(InstallCommands {
        // A pipeline has the exit code of its last command: without a script, `sh` gets a command that fails.
        command: format!("(curl -fsSL {url} || wget -O- {url} || echo exit 1) | sudo sh -s -- {token}"),
        verified_command: format!(
            "f=$(mktemp) && (curl -fsSL {url} -o \"$f\" || wget -O \"$f\" {url}) && \
             echo \"{sha256}  $f\" | sha256sum -c - && echo {token} | sudo sh \"$f\" -"
        ),
    })
}

/// Install script of a hub with this URL.
///
/// # Errors
/// Fails as [`commands`] does.
pub async fn script(base_url: &str, downloads: &Path) -> Result<String, ApiError> {
    let mut checksums = String::new();
    for arch in architectures(downloads) {
        let Some(path) = find_binary(downloads, &arch) else { continue };
        let sha256 = checksum(path).await.map_err(|error| {
            let message = format!("cannot read the agent binary for {arch}: {error}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "agent_binary_unreadable", message)
        })?;
        let _ = writeln!(checksums, "    {arch}) echo {sha256} ;;");
    }
    Ok(SCRIPT.replace("@SITE@", shell_safe(base_url)?).replace("@CHECKSUMS@\n", &checksums))
}

/// Architectures with a binary, sorted: that of the hub and those in the downloads directory.
fn architectures(downloads: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(downloads).into_iter().flatten().flatten();
    let name_of = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let found =
        entries.filter_map(name_of).filter_map(|name| Some(name.strip_prefix(BINARY_PREFIX)?.to_owned()));
    let mut all: Vec<String> = found.filter(|arch| is_architecture(arch)).take(MAX_ARCHITECTURES).collect();
    all.push(std::env::consts::ARCH.to_owned());
    all.sort_unstable();
    all.dedup();
    all
}

fn is_architecture(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Binary for an architecture: from the downloads directory; for the hub's own architecture also
/// `perfwatch-agent` beside the hub's binary, or the hub's binary.
pub fn find_binary(downloads: &Path, arch: &str) -> Option<PathBuf> {
    if !is_architecture(arch) {
        return None;
    }
    let provided = downloads.join(format!("{BINARY_PREFIX}{arch}"));
    if provided.is_file() {
        return Some(provided);
    }
    let executable = PathBuf::from("/proc/self/exe");
    let sibling = std::fs::read_link(&executable).ok().map(|path| path.with_file_name("perfwatch-agent"));
    (arch == std::env::consts::ARCH).then(|| sibling.filter(|path| path.is_file()).unwrap_or(executable))
}

/// SHA-256 of a file as hexadecimal digits.
async fn checksum(path: PathBuf) -> io::Result<String> {
    let mut checksums = CHECKSUMS.lock().await;
    let mut file = File::open(&path)?;
    let metadata = file.metadata()?;
    let (modified, bytes) = (metadata.modified().ok(), metadata.len());
    if let Some(known) =
        checksums.get(&path).filter(|known| (known.modified, known.bytes) == (modified, bytes))
    {
        return Ok(known.sha256.clone());
    }
    let hash = move || {
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => return io::Result::Ok(to_hex(&hasher.finalize())),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    let sha256 = tokio::task::spawn_blocking(hash).await.map_err(io::Error::other)??;
    checksums.insert(path, Checksum { modified, bytes, sha256: sha256.clone() });
    Ok(sha256)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Install script over plain HTTP: the verified command names the checksum of the script, and the script
    /// those of the binaries.
    #[tokio::test]
    async fn verified_command_pins_script_and_binaries() {
        let downloads = tempfile::tempdir().unwrap();
        let binary = downloads.path().join("perfwatch-agent-riscv64");
        std::fs::write(&binary, "binary").unwrap();
        std::fs::write(downloads.path().join("perfwatch-agent-$(id)"), "").unwrap();
        let (url, token) = ("http://192.0.2.1:8000", "pwe_1");
        let text = script(url, downloads.path()).await.unwrap();
        let sha256 = to_hex(&Sha256::digest("binary"));
        assert!(text.contains(&format!("    riscv64) echo {sha256} ;;\n")), "{text}");
        assert!(text.contains(&format!("    {}) echo ", std::env::consts::ARCH)) && !text.contains("$(id)"));
        assert!(!text.contains('@') || text.contains("\"$@\""), "{text}");
        let before = commands(url, downloads.path(), token).await.unwrap();
        let address = "http://192.0.2.1:8000/install.sh";
        let download = format!("curl -fsSL {address} || wget -O- {address} || echo exit 1");
        assert_eq!(before.command, format!("({download}) | sudo sh -s -- pwe_1"));
        assert!(before.verified_command.contains(&to_hex(&Sha256::digest(&text))), "{before:?}");
        std::fs::write(&binary, "changed binary").unwrap();
        assert_ne!(commands(url, downloads.path(), token).await.unwrap(), before);
        assert!(script("http://x$(id)", downloads.path()).await.is_err());
    }

    /// A host without curl uses wget, and the command fails on a host without both.
    #[tokio::test]
    async fn commands_need_curl_or_wget() {
        let (downloads, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let commands = commands("http://192.0.2.1:8000", downloads.path(), "pwe_1").await.unwrap();
        let install = |name: &str, text: &str| {
            let path = programs.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let succeeds = |command: &str| {
            let mut shell = std::process::Command::new("/bin/sh");
            let output = shell.args(["-c", command]).env("PATH", programs.path()).output().unwrap();
            output.status.success()
        };
        // Runs the script, or only accepts it.
        install("sudo", "shift; [ \"$1\" = -s ] || exit 0; exec /bin/sh");
        install("mktemp", &format!("echo {}", downloads.path().join("script").display()));
        install("sha256sum", "[ -s \"${0%/*}/downloaded\" ]");
        for (command, output) in [(&commands.command, "-O-"), (&commands.verified_command, "-O")] {
            for downloader in ["curl", "wget"] {
                assert!(!succeeds(command), "neither curl nor wget: {command}");
                let is_called = format!("case \"$*\" in *{output}*|-fsSL*) ;; *) exit 2 ;; esac");
                install(downloader, &format!("{is_called}\necho 1 >\"${{0%/*}}/downloaded\"\necho exit 0"));
                assert!(succeeds(command), "{downloader}: {command}");
                std::fs::remove_file(programs.path().join(downloader)).unwrap();
                std::fs::remove_file(programs.path().join("downloaded")).unwrap();
            }
        }
    }
}
