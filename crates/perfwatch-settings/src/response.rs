//! Types of the settings that the API shows and accepts.

use crate::key::SettingGroup;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Origin of the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// Built-in default.
    Default,
    /// Configuration file.
    File,
    /// Environment variable.
    Environment,
    /// Flag of the command line.
    CommandLine,
    /// Database: changed while the hub ran.
    Database,
}

/// Setting that can be changed while the hub runs.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettingResponse {
    /// Name, which ends with the unit of the value.
    pub name: &'static str,
    /// Group of related settings.
    pub group: SettingGroup,
    /// Value in effect; `null` if an optional setting has none.
    pub value: Option<i64>,
    /// Value of the configuration, or the built-in default.
    pub default: Option<i64>,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
    /// Origin of the value.
    pub source: SettingSource,
    /// The configuration sets the value; it cannot be changed here.
    pub locked: bool,
    /// Key in the configuration file.
    pub config_key: Option<&'static str>,
}

/// Setting of the configuration that cannot be changed while the hub runs.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FixedSetting {
    /// Key in the configuration file.
    pub key: String,
    /// Value as text, without secrets; empty if there is none.
    pub value: String,
    /// Description of the setting.
    pub description: &'static str,
    /// Origin of the value.
    pub source: SettingSource,
}

/// Settings of the hub.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettingsResponse {
    /// Version of the stored settings, required by a change.
    pub version: i64,
    /// Time of the last change, Unix milliseconds.
    pub changed_ms: Option<i64>,
    /// Actor of the last change.
    pub changed_by: Option<String>,
    /// Settings that can be changed while the hub runs.
    pub settings: Vec<SettingResponse>,
    /// Settings of the configuration of the hub that answers.
    pub fixed: Vec<FixedSetting>,
}

/// Change of settings.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateSettingsRequest {
    /// Version that the change is based on. A preview ignores it.
    #[serde(default)]
    pub version: i64,
    /// New values by name; others stay as they are. `null` returns to the default.
    pub values: BTreeMap<String, Option<i64>>,
}
