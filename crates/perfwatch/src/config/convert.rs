//! Conversion of the settings to the configuration of agent and collectors.

use super::settings::{CommandLineSetting, Settings};
#[cfg(feature = "hub")]
use perfwatch_agent::TimeoutSource;
use perfwatch_agent::{AgentConfig, AgentToken};
#[cfg(feature = "hub")]
use perfwatch_collect::LocalRoot;
use perfwatch_collect::{CollectorOptions, CommandLine};
use std::path::Path;

impl Settings {
    /// Returns the options of the collectors.
    pub fn collector_options(&self) -> CollectorOptions {
        let agent = &self.agent;
        CollectorOptions {
            top_processes: agent.processes.top,
            command_line: match agent.processes.command_line {
                CommandLineSetting::None => CommandLine::None,
                CommandLineSetting::Masked => CommandLine::Masked,
                CommandLineSetting::Full => CommandLine::Full,
            },
            exclude_interfaces: agent.exclude.interfaces.clone(),
            exclude_devices: agent.exclude.devices.clone(),
            exclude_mounts: agent.exclude.mounts.clone(),
            exclude_metrics: agent.exclude.metrics.clone(),
        }
    }

    /// Returns the configuration of the agent.
    ///
    /// # Errors
    /// Fails if the file of `agent.token` cannot be read.
    pub fn agent_config(&self) -> Result<AgentConfig, String> {
        let agent = &self.agent;
        let token = agent
            .token
            .as_ref()
            .map(|token| Ok(AgentToken { text: token.read()?, file: token.file().map(Path::to_path_buf) }));
        let token = token.transpose().map_err(|error: String| format!("agent.token: {error}"))?;
        let intervals = agent.collectors.intervals.iter();
        Ok(AgentConfig {
            hub: agent.hub.clone(),
            // Empty is the same as absent, as in `PERFWATCH_AGENT_TOKEN=`.
            token: token.filter(|token| !token.text.is_empty()),
            ca: agent.ca.clone(),
            name: agent.name.clone(),
            state: self.data.join("agent"),
            interval: agent.interval.0,
            procfs: agent.procfs.clone(),
            sysfs: agent.sysfs.clone(),
            rootfs: agent.rootfs.clone(),
            disabled_collectors: agent.collectors.disabled.clone(),
            collector_intervals: intervals.map(|(name, interval)| (name.clone(), interval.0)).collect(),
            options: self.collector_options(),
            max_spool_bytes: agent.spool_max_size.0,
            max_backoff: agent.max_backoff.0,
        })
    }

    /// Returns the source of the configured `/proc`, `/sys` and `/`.
    #[cfg(feature = "hub")]
    pub(crate) fn local_source(&self) -> TimeoutSource {
        let agent = &self.agent;
        TimeoutSource::new(LocalRoot::new(&agent.procfs, &agent.sysfs, &agent.rootfs))
    }
}
