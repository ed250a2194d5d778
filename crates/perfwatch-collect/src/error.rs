//! Collector errors. The kind decides whether and how often a failure is reported.

use std::io;

/// Failure of a collector. It does not affect other collectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// Feature missing on this kernel or machine (no PSI, no sensors); not reported.
    #[error("not available")]
    NotAvailable,
    /// Missing permission; logged once, then treated as absent.
    #[error("permission denied: {0}")]
    Denied(String),
    /// Unreadable or malformed input; reported as a collector error in every snapshot.
    #[error("{0}")]
    Failed(String),
}

impl CollectError {
    /// Classifies an I/O error on `path`.
    pub fn from_io(path: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotAvailable,
            io::ErrorKind::PermissionDenied => Self::Denied(path.to_owned()),
            // ENODEV and EOPNOTSUPP: PSI that is not enabled (psi=1), a sensor in power-save mode.
            io::ErrorKind::Unsupported => Self::NotAvailable,
            _ if error.raw_os_error() == Some(95) || error.raw_os_error() == Some(19) => Self::NotAvailable,
            _ => Self::Failed(format!("{path}: {error}")),
        }
    }
}
