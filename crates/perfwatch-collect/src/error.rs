//! Why a collector has nothing: the difference decides who hears of it.

use std::io;

/// A collector's failure. None of them stops another collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// The kernel or machine has no such thing (no PSI, no sensor): absent, nothing to say.
    #[error("not available")]
    NotAvailable,
    /// It is there, but not for this user: said once, then quietly absent.
    #[error("permission denied: {0}")]
    Denied(String),
    /// It is there and can't be read or understood: an error entry at every tick.
    #[error("{0}")]
    Failed(String),
}

impl CollectError {
    /// What an I/O error on `path` means.
    pub fn from_io(path: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotAvailable,
            io::ErrorKind::PermissionDenied => Self::Denied(path.to_owned()),
            // ENODEV, EOPNOTSUPP: `CONFIG_PSI` without psi=1, a sensor that went to sleep.
            io::ErrorKind::Unsupported => Self::NotAvailable,
            _ if error.raw_os_error() == Some(95) || error.raw_os_error() == Some(19) => Self::NotAvailable,
            _ => Self::Failed(format!("{path}: {error}")),
        }
    }
}
