//! Reload of the configuration at SIGHUP. The log level is applied; other settings require a restart.

use crate::config::{self, LogSettings, Settings};
use crate::telemetry;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Origin of the settings of this process.
pub(crate) struct ConfigSource {
    /// File of the command line.
    pub(crate) file: Option<PathBuf>,
    /// Environment variables at the start.
    pub(crate) environment: Vec<(String, String)>,
    /// Settings given as flags.
    pub(crate) overrides: Vec<(&'static str, String)>,
    /// Settings at the start.
    pub(crate) settings: Settings,
}

static SOURCE: OnceLock<ConfigSource> = OnceLock::new();

/// Stores the origin of the settings; the first call of the process counts.
pub(crate) fn set_source(source: ConfigSource) {
    let _ = SOURCE.set(source);
}

/// Reads the configuration again and applies the log level. An invalid configuration changes nothing.
pub(crate) fn reload_log_level() {
    let Some(source) = SOURCE.get() else { return };
    let loaded = config::load(source.file.as_deref(), &source.environment, &source.overrides);
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => {
            let error = error.to_string();
            tracing::warn!(error, "failed to reload the configuration; keeping the current settings");
            return;
        }
    };
    match telemetry::set_level(&settings.log) {
        Ok(()) => tracing::info!(level = settings.log.level, "log level reloaded"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "failed to reload the log level; keeping the current level");
        }
    }
    let without_level = |settings: &Settings| Settings {
        log: LogSettings { level: String::new(), ..settings.log.clone() },
        sources: BTreeMap::new(),
        ..settings.clone()
    };
    if without_level(&settings) != without_level(&source.settings) {
        tracing::warn!("settings other than log.level changed; restart to apply them");
    }
}
