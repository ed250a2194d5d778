//! Host id and host name. The id is a UUID in the state directory, generated once.

use crate::error::AgentError;
use perfwatch_collect::Source;
use perfwatch_model::{HostId, limits};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Locks the state directory for this process. A directory that is not writable needs no lock:
/// nothing is stored in it.
pub(crate) fn lock_state_dir(state: &Path) -> Result<Option<File>, AgentError> {
    let open = || {
        std::fs::create_dir_all(state)?;
        File::create(state.join("lock"))
    };
    let Ok(file) = open() else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(AgentError::Locked(state.display().to_string())),
        // The filesystem does not support locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Loads the host id of the state directory, or generates and stores a new id. In a directory that
/// is not writable the id lasts as long as the process: a new host on the dashboard is better than
/// no host.
pub fn host_id(state: &Path) -> HostId {
    let path = state.join("host-id");
    match std::fs::read_to_string(&path).map(|text| text.parse::<HostId>()) {
        Ok(Ok(id)) => return id,
        Ok(Err(_)) => {
            tracing::warn!(path = %path.display(), "host id file is corrupt; generating a new host id");
        }
        Err(_) => {}
    }
    let id = HostId::generate();
    let write = || {
        std::fs::create_dir_all(state)?;
        let new_path = state.join("host-id.new");
        std::fs::write(&new_path, format!("{id}\n"))?;
        std::fs::rename(new_path, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(
            path = %path.display(), error = %error,
            "failed to save the host id; the host gets a new id after a restart"
        );
    }
    id
}

/// Display name of the host: the configured name, or the kernel's host name.
pub fn host_name(configured: Option<&str>, source: &dyn Source) -> String {
    let mut bytes = Vec::new();
    let kernel_name =
        source.read("/proc/sys/kernel/hostname", &mut bytes).ok().map(|()| String::from_utf8_lossy(&bytes));
    let name = configured.map(str::to_owned).or_else(|| kernel_name.map(|name| name.trim().to_owned()));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned());
    name.chars().take(limits::MAX_HOST_NAME_BYTES / 4).collect()
}
