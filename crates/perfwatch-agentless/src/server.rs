//! Configuration of an agentless host as it is stored.

use perfwatch_model::HumanDuration;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Alert thresholds of a server in percent; no alert for a threshold of `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Threshold of the CPU usage.
    #[serde(default = "default_cpu_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub cpu: Option<f64>,
    /// Threshold of the memory usage.
    #[serde(default = "default_memory_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub memory: Option<f64>,
    /// Threshold of the usage of each filesystem.
    #[serde(default = "default_disk_threshold")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub disk: Option<f64>,
}

#[expect(clippy::unnecessary_wraps, reason = "serde requires the type of the field")]
fn default_cpu_threshold() -> Option<f64> {
    Some(90.0)
}

#[expect(clippy::unnecessary_wraps, reason = "serde requires the type of the field")]
fn default_memory_threshold() -> Option<f64> {
    Some(95.0)
}

#[expect(clippy::unnecessary_wraps, reason = "serde requires the type of the field")]
fn default_disk_threshold() -> Option<f64> {
    Some(90.0)
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu: default_cpu_threshold(),
            memory: default_memory_threshold(),
            disk: default_disk_threshold(),
        }
    }
}

/// Authentication method of an SSH login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Password or keyboard-interactive login.
    Password,
    /// Login with a private key.
    Key,
}

/// Configuration of an agentless host, without its credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Display name of the server and its host.
    pub name: String,
    /// DNS name or IP address.
    pub address: String,
    /// TCP port of the SSH service.
    pub port: u16,
    /// Login name on the server.
    pub user: String,
    /// Authentication method of the credentials.
    pub auth_method: AuthMethod,
    /// Server that is used as jump host.
    pub jump: Option<Uuid>,
    /// Interval of scheduled collections.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub interval: HumanDuration,
    /// Alert thresholds of the host.
    pub thresholds: Thresholds,
}

impl Server {
    /// Parses the configuration of a stored server; `None` if this version cannot read it.
    pub fn from_row(row: &ServerRow) -> Option<Self> {
        serde_json::from_str(&row.body)
            .inspect_err(|error| {
                tracing::error!(server.id = %row.id, error = %error, "failed to parse a server record");
            })
            .ok()
    }

    /// Serializes the configuration for the store.
    pub fn to_body(&self) -> String {
        // Serializing strings and numbers never fails.
        serde_json::to_string(self).unwrap_or_default()
    }
}
