//! `doctor`: checks of an installation, each with its result and the remedy. They read only: no file is created,
//! no setting changed, and the service may run or not.

mod agent;
mod clock;
mod data;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_listener;
#[cfg(feature = "hub")]
mod hub_store;
mod report;

use crate::config::{ConfigError, Settings};
use crate::stdout::write_stdout;
use report::Report;
use std::path::PathBuf;

pub(crate) use agent::check_agent_installation;
#[cfg(feature = "hub")]
pub(crate) use hub::check_hub_installation;

/// Flags of `doctor`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct DoctorFlags {
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Loaded configuration with what its sources contain beside the settings.
pub(crate) struct Inspected {
    pub(crate) settings: Settings,
    /// Configuration file, if one is used.
    pub(crate) file: Option<PathBuf>,
    /// Ignored environment variables.
    pub(crate) warnings: Vec<String>,
}

/// Reports the configuration; returns the settings if they could be loaded.
fn check_configuration(report: &mut Report, inspected: Result<Inspected, ConfigError>) -> Option<Settings> {
    const CHECK: &str = "configuration";
    match inspected {
        Ok(Inspected { settings, file, warnings }) => {
            for warning in warnings {
                report.warning(CHECK, warning, "correct the name of the variable, or remove it");
            }
            match file {
                Some(file) => report.ok(CHECK, file.display().to_string()),
                None => report.ok(CHECK, "no file; defaults, environment and flags apply"),
            }
            Some(settings)
        }
        Err(error) => {
            report.error(CHECK, error.to_string(), "correct the setting; docs/CONFIG.md lists all of them");
            None
        }
    }
}

/// Prints the results; fails if a check failed.
fn finish(report: &Report, flags: DoctorFlags) -> anyhow::Result<()> {
    let text = if flags.json { report.to_json() } else { report.to_text() };
    write_stdout(text.as_bytes())?;
    match report.errors() {
        0 => Ok(()),
        1 => anyhow::bail!("1 check failed"),
        errors => anyhow::bail!("{errors} checks failed"),
    }
}
