//! Conversion of the settings to the configuration of agent and collectors.

use super::settings::{CommandLineSetting, Settings};
#[cfg(feature = "hub")]
use perfwatch_agent::TimeoutSource;
use perfwatch_agent::{AgentConfig, AgentToken};
#[cfg(feature = "hub")]
use perfwatch_collect::LocalRoot;
use perfwatch_collect::{CollectorOptions, CommandLine};
use std::path::{Path, PathBuf};

/// Paths of the monitored host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostPaths {
    pub(crate) procfs: PathBuf,
    pub(crate) sysfs: PathBuf,
    pub(crate) rootfs: PathBuf,
}

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

    /// Directory of the agent's identity and spool.
    pub(crate) fn agent_state(&self) -> PathBuf {
        self.data.join("agent")
    }

    /// Returns the roots of the monitored host: settings of their own, below `agent.host_root`, or those of this
    /// machine.
    pub(crate) fn host_paths(&self) -> HostPaths {
        let agent = &self.agent;
        let host_root = agent.host_root.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = |key: &str, configured: &Path, below: &str| match host_root {
            Some(root) if !self.sources.contains_key(key) => root.join(below),
            _ => configured.to_owned(),
        };
        HostPaths {
            procfs: path("agent.procfs", &agent.procfs, "proc"),
            sysfs: path("agent.sysfs", &agent.sysfs, "sys"),
            // Without the slash that joining an empty path adds.
            rootfs: path("agent.rootfs", &agent.rootfs, "").components().collect(),
        }
    }

    /// Returns the configuration of the agent.
    ///
    /// # Errors
    /// Fails if the file of `agent.token` cannot be read, or if no procfs is mounted below `agent.host_root`.
    pub fn agent_config(&self) -> Result<AgentConfig, String> {
        let agent = &self.agent;
        let token = agent
            .token
            .as_ref()
            .map(|token| Ok(AgentToken { text: token.read()?, file: token.file().map(Path::to_path_buf) }));
        let token = token.transpose().map_err(|error: String| format!("agent.token: {error}"))?;
        let HostPaths { procfs, sysfs, rootfs } = self.host_paths();
        if agent.host_root.is_some() && !procfs.join("stat").exists() {
            let path = procfs.display();
            return Err(format!(
                "agent.host_root: {path} is not a procfs; mount the root directory of the host"
            ));
        }
        let intervals = agent.collectors.intervals.iter();
        Ok(AgentConfig {
            hub: agent.hub.clone(),
            // Empty is the same as absent, as in `PERFWATCH_AGENT_TOKEN=`.
            token: token.filter(|token| !token.text.is_empty()),
            ca: agent.ca.clone(),
            name: agent.name.clone(),
            state: self.agent_state(),
            interval: agent.interval.0,
            procfs,
            sysfs,
            rootfs,
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
        let HostPaths { procfs, sysfs, rootfs } = self.host_paths();
        TimeoutSource::new(LocalRoot::new(&procfs, &sysfs, &rootfs))
    }
}
