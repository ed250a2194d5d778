//! Who this host is: a UUID in the state folder, made once, and the name people know.

use crate::error::AgentError;
use perfwatch_collect::Source;
use perfwatch_model::{HostId, limits};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Takes the state folder for this process alone. A folder that can't be written needs no
/// lock: nothing is kept there.
pub(crate) fn lock_state_dir(state: &Path) -> Result<Option<File>, AgentError> {
    let open = || {
        std::fs::create_dir_all(state)?;
        File::create(state.join("lock"))
    };
    let Ok(file) = open() else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(AgentError::Locked(state.display().to_string())),
        // A filesystem without locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// The host's lasting id. Where the folder can't be written, the id lives as long as the
/// process: better a new host on the dashboard than none.
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
        let fresh = state.join("host-id.new");
        std::fs::write(&fresh, format!("{id}\n"))?;
        std::fs::rename(fresh, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(path = %path.display(), %error, "failed to save the host id; the host gets a new id after a restart");
    }
    id
}

/// The configured name, or the kernel's.
pub fn host_name(configured: Option<&str>, source: &dyn Source) -> String {
    let mut bytes = Vec::new();
    let of_kernel =
        source.read("/proc/sys/kernel/hostname", &mut bytes).ok().map(|()| String::from_utf8_lossy(&bytes));
    let name = configured.map(str::to_owned).or_else(|| of_kernel.map(|name| name.trim().to_owned()));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".to_owned());
    name.chars().take(limits::MAX_HOST_NAME_BYTES / 4).collect()
}
