//! Settings of an agent; the binary reads them from files, environment and flags.

use crate::credential::AgentToken;
use crate::error::AgentConfigError;
use crate::url::HubUrl;
use perfwatch_collect::CollectorOptions;
use perfwatch_model::limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the agent, validated by [`AgentConfig::validate`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Base URL of the hub, e.g. `https://hub.example:8000`.
    pub hub: String,
    /// Credential: an enrollment token, which is exchanged for an agent secret, or a secret.
    pub token: Option<AgentToken>,
    /// PEM file with the certificate authorities of the hub; default: those of the system.
    pub ca: Option<PathBuf>,
    /// Display name of this host; default: the host name of the kernel.
    pub name: Option<String>,
    /// Directory of the host id, the agent secret and the spool.
    pub state: PathBuf,
    /// Time between two snapshots, 250 ms to 1 h.
    pub interval: Duration,
    /// Path of the /proc of the monitored host.
    pub procfs: PathBuf,
    /// Path of the /sys of the monitored host.
    pub sysfs: PathBuf,
    /// Path of the root directory of the monitored host.
    pub rootfs: PathBuf,
    /// Names of the disabled collectors.
    pub disabled_collectors: Vec<String>,
    /// Minimum time between two runs by collector name; default: the collector's cadence.
    pub collector_intervals: BTreeMap<String, Duration>,
    /// Options passed to every collector.
    pub options: CollectorOptions,
    /// Maximum size of the spool on disk in bytes, at least 4 MiB.
    pub max_spool_bytes: u64,
    /// Maximum pause between two attempts to reach the hub.
    pub max_backoff: Duration,
}

/// Minimum collection interval. Rates over less time are mostly noise.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum collection interval, also if the hub requests a longer interval.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Minimum spool size: the log needs a few segments of 1 MiB to drop the oldest.
const MIN_SPOOL_BYTES: u64 = 4 << 20;

impl AgentConfig {
    /// Validates every setting, including the CA file.
    ///
    /// # Errors
    /// Returns the first invalid setting.
    pub fn validate(&self) -> Result<(), AgentConfigError> {
        let fail = |key, message: String| Err(AgentConfigError { key, message });
        HubUrl::parse(&self.hub, self.ca.as_deref())?;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            return fail("interval", format!("{:?} is not between 250 ms and 1 h", self.interval));
        }
        if self.max_spool_bytes < MIN_SPOOL_BYTES {
            return fail("spool_max_size", format!("must be at least 4 MiB ({MIN_SPOOL_BYTES})"));
        }
        if self.options.top_processes > limits::MAX_PROCESSES / 2 {
            return fail("processes.top", format!("must be at most {}", limits::MAX_PROCESSES / 2));
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > limits::MAX_HOST_NAME_BYTES)
        {
            return fail("name", format!("must have 1 to {} bytes", limits::MAX_HOST_NAME_BYTES));
        }
        let exists =
            |name: &str| perfwatch_collect::COLLECTORS.iter().any(|collector| collector.name == name);
        if let Some(name) =
            self.disabled_collectors.iter().chain(self.collector_intervals.keys()).find(|name| !exists(name))
        {
            let names: Vec<&str> = perfwatch_collect::COLLECTORS.iter().map(|c| c.name).collect();
            return fail("collectors", format!("unknown collector {name:?}; expected {}", names.join(", ")));
        }
        Ok(())
    }
}
