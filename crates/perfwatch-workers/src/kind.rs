//! Kinds of work with their limits.

use std::time::Duration;

/// Kind of work, the label of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// Server list: ssh_config, CSV or YAML.
    Import,
    /// Private key of a server.
    PrivateKey,
    /// Template of notifications.
    Template,
    /// Capture of an agentless host.
    Capture,
    /// Rules in YAML or JSON.
    Bundle,
}

/// Limits of a kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkLimits {
    /// Maximum run time of a job; afterwards its caller receives an error.
    pub timeout: Duration,
    /// Maximum size of the input in bytes.
    pub max_input_bytes: usize,
}

impl WorkKind {
    /// All kinds, in the order of the metrics.
    pub const ALL: [Self; 5] = [Self::Import, Self::PrivateKey, Self::Template, Self::Capture, Self::Bundle];

    /// Name of the kind in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::PrivateKey => "private_key",
            Self::Template => "template",
            Self::Capture => "capture",
            Self::Bundle => "bundle",
        }
    }

    /// Limits of the kind. Honest jobs need a fraction of them on a slow machine.
    pub fn limits(self) -> WorkLimits {
        let (timeout_s, max_input_bytes) = match self {
            // Bodies of requests have at most 256 KiB.
            Self::Import | Self::Bundle => (5, 256 << 10),
            Self::PrivateKey => (10, 64 << 10),
            // Title, text and body of a channel.
            Self::Template => (5, 64 << 10),
            // The probe returns at most 16 MB; a host of 3,000 mounts and 2,048 cores sends 2 MB.
            Self::Capture => (20, 32 << 20),
        };
        WorkLimits { timeout: Duration::from_secs(timeout_s), max_input_bytes }
    }
}
