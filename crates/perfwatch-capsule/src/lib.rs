//! Incident capsules: files (`.pwcap`) with a window of chosen hosts.
//!
//! [`CapsuleBuilder`] reads series, processes, events, alerts and incidents, masks names on request and writes
//! the file; [`Capsule`] verifies and decodes it. The format is described in docs/CAPSULE-FORMAT.md and also
//! read by the dashboard.

mod builder;
mod bytes;
mod capsule;
mod container;
mod document;
pub mod limits;
mod mask;
mod processes;
mod request;
mod series;
#[cfg(test)]
mod tests;

pub use builder::{CapsuleBuilder, CapsuleDeps, CapsuleFile};
pub use capsule::Capsule;
pub use container::FORMAT_VERSION;
pub use document::{CapsuleDocument, CapsuleHost, IncidentPart, Masks, SeriesName};
pub use processes::{ProcessSample, ProcessTable, decode_processes};
pub use request::CapsuleRequest;
pub use series::{HostSeries, decode_series};

/// Reason for which bytes are no valid capsule, or for which a capsule cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// File with another signature.
    #[error("not a capsule: expected a .pwcap file of PerfWatch")]
    NotACapsule,
    /// Format of a newer PerfWatch.
    #[error("unsupported capsule format {0}; upgrade PerfWatch")]
    UnsupportedVersion(u16),
    /// File or section that ends before it is complete, or has more than its declared content.
    #[error("capsule is incomplete: its size differs from the declared size")]
    Truncated,
    /// Bytes that changed since they were written.
    #[error("capsule is damaged: checksum mismatch")]
    Checksum,
    /// Content that the encoder cannot have written.
    #[error("invalid capsule: {0}")]
    Invalid(&'static str),
    /// Content above a limit of the format.
    #[error("capsule is too large: too many {0}; choose fewer hosts or a shorter window")]
    TooLarge(&'static str),
}
