//! Host id and host name. The id is a UUID in the state directory, generated once.

use crate::error::AgentError;
use crate::machine::Fingerprint;
use perfwatch_collect::Source;
use perfwatch_files::Directory;
use perfwatch_model::{HostId, limits};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Locks the state directory for this process. A directory that is not writable needs no lock:
/// nothing is stored in it.
pub(crate) fn lock_state_dir(state: &Path) -> Result<Option<File>, AgentError> {
    let open = || {
        let directory = Directory::create_private(state)?;
        directory.restrict_files(["host-id", "machine", "secret", "lock", "heartbeat"]);
        directory.open_or_create("lock")
    };
    let Ok(file) = open() else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(AgentError::Locked(state.display().to_string())),
        // The filesystem does not support locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Loads the host id of the state directory, and stores the fingerprint of the machine. If the directory is
/// that of another machine, as after cloning, a new host id is generated, and the secret and the spool of the
/// other machine are deleted.
///
/// # Errors
/// Returns [`AgentError::ForeignState`] for the directory of another machine if there is no token to enroll
/// with, or if the directory is not writable.
pub fn load_host_id(state: &Path, source: &dyn Source, has_token: bool) -> Result<HostId, AgentError> {
    let machine = Fingerprint::read(source);
    let stored = Fingerprint::load(state);
    if let Some(identifier) = stored.difference(&machine) {
        let foreign = || AgentError::ForeignState {
            state: state.display().to_string(),
            identifier: identifier.to_owned(),
        };
        if !has_token {
            return Err(foreign());
        }
        tracing::warn!(
            path = %state.display(), identifier,
            "state directory belongs to another machine; starting as a new host without its snapshots"
        );
        delete_foreign_state(state).map_err(|_| foreign())?;
    }
    let host = host_id(state);
    if let Err(error) = machine.save(state) {
        tracing::debug!(error = %error, "failed to save the fingerprint of the machine");
    }
    Ok(host)
}

/// Identifier of the machine that differs from that of the state directory; `None` if the directory belongs to
/// this machine or is unused.
pub fn foreign_identifier(state: &Path, source: &dyn Source) -> Option<String> {
    Fingerprint::load(state).difference(&Fingerprint::read(source)).map(str::to_owned)
}

/// Deletes what belongs to another machine. The fingerprint is deleted last: after an interruption, the next
/// start continues.
fn delete_foreign_state(state: &Path) -> std::io::Result<()> {
    let directory = Directory::open(state)?;
    directory.remove_directory("spool")?;
    ["secret", "host-id", "machine"].into_iter().try_for_each(|file| directory.remove(file))
}

/// Loads the host id of the state directory, or generates and stores a new id. In a directory that
/// is not writable the id lasts as long as the process: a new host on the dashboard is better than
/// no host.
fn host_id(state: &Path) -> HostId {
    let path = state.join("host-id");
    let read = || Directory::open(state)?.read_to_string("host-id");
    match read().map(|text| text.parse::<HostId>()) {
        Ok(Ok(id)) => return id,
        Ok(Err(_)) => {
            tracing::warn!(path = %path.display(), "host id file is corrupt; generating a new host id");
        }
        Err(_) => {}
    }
    let id = HostId::generate();
    let write = || Directory::create_private(state)?.write("host-id", format!("{id}\n").as_bytes());
    if let Err(error) = write() {
        tracing::warn!(
            path = %path.display(), error = %error,
            "failed to save the host id; the host gets a new id after a restart"
        );
    }
    id
}

/// Display name of the host: the configured name, or the host name of the machine.
///
/// If the root of the host is mounted at another path, this program runs in a container, whose kernel host
/// name is that of the container whichever procfs is read (uts_namespaces(7)). The name of the host is then
/// that of hostname(5), and the kernel name only without that file.
pub fn host_name(configured: Option<&str>, source: &dyn Source, rootfs: &Path) -> String {
    let read_name = |path: &str| {
        let mut bytes = Vec::new();
        source.read(path, &mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
        Some(name.to_owned())
    };
    let static_name = || if rootfs == Path::new("/") { None } else { read_name("/etc/hostname") };
    let name = configured
        .map(str::to_owned)
        .or_else(static_name)
        .or_else(|| read_name("/proc/sys/kernel/hostname"))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned());
    name.chars().take(limits::MAX_HOST_NAME_BYTES / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_collect::LocalRoot;

    #[test]
    fn host_name_of_a_relocated_root_is_that_of_the_host() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let source = LocalRoot::new(&root.path().join("proc"), &root.path().join("sys"), root.path());
        let relocated = |configured| host_name(configured, &source, root.path());
        assert_eq!(relocated(None), "unnamed");
        write("proc/sys/kernel/hostname", "0123456789ab\n");
        assert_eq!(relocated(None), "0123456789ab");
        write("etc/hostname", "\n# static name\n web-1 \n");
        assert_eq!(relocated(None), "web-1");
        assert_eq!(relocated(Some("configured")), "configured");
        assert_eq!(host_name(None, &source, Path::new("/")), "0123456789ab");
        write("etc/hostname", "# empty\n");
        assert_eq!(relocated(None), "0123456789ab");
    }
}
