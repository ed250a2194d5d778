//! Long-running roles: the agent alone, the hub alone, both in one process.

mod agent;
#[cfg(feature = "hub")]
mod configured;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_config;

use crate::config::Settings;
use perfwatch_files::Directory;

pub(crate) use agent::{Revoked, run_agent};
#[cfg(feature = "hub")]
pub(crate) use hub::{run_all, run_hub};
#[cfg(feature = "hub")]
pub(crate) use hub_config::hub_config;

/// Restricts the data directory and its keys to the user of this process. The directory may be read-only or
/// missing: what needs it reports the reason.
fn restrict_data(settings: &Settings) {
    if let Ok(directory) = Directory::create_private(&settings.data) {
        directory.restrict_files(["encryption.key", "hub-id"]);
    }
}
