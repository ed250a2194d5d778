//! Flags shared by several commands, and their overrides of the configuration.

use crate::config::{self, ConfigError, Settings};
use crate::doctor::Inspected;
use crate::reload::{self, ConfigSource};
use crate::telemetry;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct CommonFlags {
    /// Configuration file: .yaml, .json or .toml [env: PERFWATCH_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [env: PERFWATCH_DATA]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data: Option<String>,
    /// error, warn, info, debug or trace; per module: info,perfwatch_hub=debug [env: PERFWATCH_LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [env: PERFWATCH_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RootFlags {
    /// Path where the root directory of the monitored host is mounted in this container, such as /host
    #[arg(long, value_name = "DIRECTORY")]
    host_root: Option<String>,
    /// Path of the monitored host's /proc
    #[arg(long, value_name = "DIRECTORY")]
    procfs: Option<String>,
    /// Path of the monitored host's /sys
    #[arg(long, value_name = "DIRECTORY")]
    sysfs: Option<String>,
    /// Path of the monitored host's root file system
    #[arg(long, value_name = "DIRECTORY")]
    rootfs: Option<String>,
}

/// Settings given as flags: key and value.
pub(super) type Overrides = Vec<(&'static str, String)>;

pub(super) fn push_override(overrides: &mut Overrides, key: &'static str, value: Option<String>) {
    overrides.extend(value.map(|value| (key, value)));
}

/// Returns whether the value of a setting contains a token or the password of a database.
fn has_secret(key: &str, value: &str) -> bool {
    match key {
        "agent.token" => !value.starts_with("file:"),
        "hub.store" | "hub.store_replica" | "hub.redis" => {
            if value.starts_with("file:") {
                return false;
            }
            let authority = value.split_once("://").map_or("", |(_, rest)| rest);
            let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
            user.contains(':') || value.contains("password=")
        }
        _ => false,
    }
}

/// Environment variables of this process that are text.
fn environment() -> Vec<(String, String)> {
    let variables = std::env::vars_os();
    variables.filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

impl RootFlags {
    pub(super) fn push_overrides(self, overrides: &mut Overrides) {
        push_override(overrides, "agent.host_root", self.host_root);
        push_override(overrides, "agent.procfs", self.procfs);
        push_override(overrides, "agent.sysfs", self.sysfs);
        push_override(overrides, "agent.rootfs", self.rootfs);
    }
}

impl CommonFlags {
    /// Disables logging unless a level is given.
    #[cfg(feature = "hub")]
    pub(super) fn without_logs(mut self) -> Self {
        self.log_level.get_or_insert_with(|| "off".to_owned());
        self
    }

    /// Adds the flags to the overrides.
    fn push_overrides(&mut self, overrides: &mut Overrides) {
        push_override(overrides, "data", self.data.take());
        push_override(overrides, "log.level", self.log_level.take());
        push_override(overrides, "log.format", self.log_format.take());
    }

    /// Loads the settings for `doctor`, which reports what is wrong with them. Starts no logging.
    pub(super) fn inspect(mut self, mut overrides: Overrides) -> Result<Inspected, ConfigError> {
        self.push_overrides(&mut overrides);
        let environment = environment();
        let file = config::config_file(self.config.as_deref(), &environment);
        let (settings, warnings) =
            config::load_with_warnings(self.config.as_deref(), &environment, &overrides)?;
        telemetry::validate(&settings.log).map_err(|error| ConfigError {
            location: "settings".to_owned(),
            key: String::new(),
            message: error.to_string(),
        })?;
        Ok(Inspected { settings, file, warnings })
    }

    /// Loads the settings and starts logging.
    pub(super) fn load(mut self, mut overrides: Overrides) -> anyhow::Result<Settings> {
        self.push_overrides(&mut overrides);
        let environment = environment();
        let (settings, warnings) =
            config::load_with_warnings(self.config.as_deref(), &environment, &overrides)?;
        telemetry::start(&settings.log)?;
        for (key, _) in overrides.iter().filter(|(key, value)| has_secret(key, value)) {
            tracing::warn!(
                setting = key,
                "secret on the command line is visible to all users of this machine; \
                 use a file (file:PATH), the environment or the configuration"
            );
        }
        for warning in &warnings {
            tracing::warn!(warning, "ignored an environment variable");
        }
        reload::set_source(ConfigSource {
            file: self.config,
            environment,
            overrides,
            settings: settings.clone(),
        });
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L9: tokens and passwords of databases on the command line are reported.
    #[test]
    fn secrets_of_flags_are_recognized() {
        for (key, value, expected) in [
            ("agent.token", "pwe_1", true),
            ("agent.token", "file:/etc/perfwatch/token", false),
            ("agent.hub", "https://hub.example", false),
            ("hub.store", "postgres://perfwatch:secret@db/perfwatch", true),
            ("hub.store", "postgres://perfwatch@db:5432/perfwatch", false),
            ("hub.store", "postgres://db/perfwatch?user=perfwatch&password=secret", true),
            ("hub.store_replica", "postgres://perfwatch:secret@replica/perfwatch", true),
            ("hub.redis", "redis://:secret@cache:6379", true),
            ("hub.redis", "redis://cache:6379", false),
            ("hub.redis", "redis+sentinel://:secret@a:26379,b:26379/cache", true),
            ("hub.redis", "redis+sentinel://a,b/cache?sentinel_password=secret", true),
            ("hub.redis", "redis+sentinel://a:26379,b:26379/cache", false),
            ("hub.store", "file:/run/secrets/store?password=x", false),
            ("hub.store", "", false),
        ] {
            assert_eq!(has_secret(key, value), expected, "{key} {value}");
        }
    }
}
