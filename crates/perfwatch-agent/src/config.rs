//! What an agent must be told; the binary reads it from files, environment and flags.

use crate::hub_client::HubClient;
use perfwatch_collect::CollectorOptions;
use perfwatch_model::limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The agent's settings, checked by [`AgentConfig::check`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Base URL of the hub, e.g. `https://hub.example:8000`.
    pub hub: String,
    /// What lets it in: an enrolment token, which it trades for a secret of its own, or a secret.
    pub token: Option<String>,
    /// File with the authorities that may have signed the hub's certificate (PEM); those of the
    /// system if none.
    pub ca: Option<PathBuf>,
    /// What people call this host; the kernel's host name if none.
    pub name: Option<String>,
    /// Folder for the identity and the spool.
    pub state: PathBuf,
    /// Time between two snapshots.
    pub interval: Duration,
    /// Where the watched host's /proc is.
    pub procfs: PathBuf,
    /// Where the watched host's /sys is.
    pub sysfs: PathBuf,
    /// Where the watched host's / is.
    pub rootfs: PathBuf,
    /// Collectors that are switched off.
    pub disabled_collectors: Vec<String>,
    /// Least time between two reads, by collector; its own rhythm if none.
    pub collector_intervals: BTreeMap<String, Duration>,
    /// What collectors are told.
    pub options: CollectorOptions,
    /// Most bytes the spool may take on disk.
    pub max_spool_bytes: u64,
    /// Longest pause between two tries to reach the hub.
    pub max_backoff: Duration,
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct AgentConfigError {
    /// Under the agent's own section.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Shortest interval: faster than this the numbers are mostly noise.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// Longest interval.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(3600);

impl AgentConfig {
    /// Whether an agent can run with this.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn validate(&self) -> Result<(), AgentConfigError> {
        let fail = |key, message: String| Err(AgentConfigError { key, message });
        HubClient::new(&self.hub, self.ca.as_deref())?;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            return fail("interval", format!("{:?} is not between 250 ms and 1 h", self.interval));
        }
        if self.max_spool_bytes < 4 << 20 {
            return fail("spool_bytes", "at least 4 MiB (4194304)".into());
        }
        if self.options.top_processes > limits::MAX_PROCESSES / 2 {
            return fail("processes.top", format!("at most {}", limits::MAX_PROCESSES / 2));
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > limits::MAX_HOST_NAME_BYTES)
        {
            return fail("name", format!("1 to {} bytes", limits::MAX_HOST_NAME_BYTES));
        }
        let known = |name: &str| perfwatch_collect::COLLECTORS.iter().any(|collector| collector.name == name);
        if let Some(name) =
            self.disabled_collectors.iter().chain(self.collector_intervals.keys()).find(|name| !known(name))
        {
            let names: Vec<&str> = perfwatch_collect::COLLECTORS.iter().map(|c| c.name).collect();
            return fail("collectors", format!("there is no {name:?}; there are {}", names.join(", ")));
        }
        Ok(())
    }
}
