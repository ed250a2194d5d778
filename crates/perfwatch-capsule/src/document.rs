//! Document of a capsule: everything except series and processes, as JSON.

use crate::CapsuleError;
use crate::limits::{MAX_EVENTS, MAX_HOSTS, MAX_PROCESS_ROWS, MAX_ROWS, MAX_SERIES, MAX_VALUES};
use perfwatch_model::HostFacts;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Kinds of names that are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Masks {
    /// Removes the command lines of processes.
    pub commands: bool,
    /// Replaces the names of users, of processes and of the hub.
    pub users: bool,
    /// Replaces names and ids of hosts, and removes their tags.
    pub hosts: bool,
}

/// Name of a series: metric, instance and number of decimals of its integers.
pub type SeriesName = (String, String, u8);

/// Host of a capsule. Its series and processes are in sections of their own, in the order of the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapsuleHost {
    /// Id on the hub that wrote the capsule; the position in the list if hosts are masked.
    pub id: String,
    /// Display name of the host.
    pub name: String,
    /// Tags of the host.
    pub tags: Vec<String>,
    /// Operating system and hardware.
    pub facts: Option<HostFacts>,
    /// Expected interval of the rows in milliseconds.
    pub interval_ms: u32,
    /// Number of rows of the series.
    pub rows: usize,
    /// Names of the series.
    pub series: Vec<SeriesName>,
    /// Number of processes in all rows.
    pub process_rows: usize,
    /// Gaps, alerts, reboots and changes, as in the API.
    pub events: Vec<Value>,
    /// Alerts with their explanations, as in the API.
    pub alerts: Vec<Value>,
}

/// Incident of a capsule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentPart {
    /// Incident with the alerts of the hosts of the capsule, as in the API.
    pub incident: Value,
    /// Timeline with comments; empty if the incident has alerts of other hosts.
    pub timeline: Vec<Value>,
}

/// Document of a capsule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapsuleDocument {
    /// Title, of an incident or chosen by the author.
    pub title: String,
    /// Note of the author.
    pub note: String,
    /// Time of creation, Unix milliseconds.
    pub created_ms: i64,
    /// User or token that created the capsule.
    pub created_by: String,
    /// Version of the hub that wrote the capsule.
    pub created_with: String,
    /// Start of the window, Unix milliseconds.
    pub from_ms: i64,
    /// End of the window, exclusive.
    pub to_ms: i64,
    /// Names that were replaced.
    pub masked: Masks,
    /// Units of the metrics.
    pub units: BTreeMap<String, String>,
    /// Hosts in the order of their sections.
    pub hosts: Vec<CapsuleHost>,
    /// Incidents of the hosts in the window; the incident that the capsule was made from is the first.
    pub incidents: Vec<IncidentPart>,
}

impl CapsuleDocument {
    /// Parses the JSON and checks its counts, from which memory is allocated.
    ///
    /// # Errors
    /// Returns [`CapsuleError::Invalid`] for other JSON and [`CapsuleError::TooLarge`] above a limit.
    pub fn parse(json: &[u8]) -> Result<Self, CapsuleError> {
        let document: Self = serde_json::from_slice(json).map_err(|_| CapsuleError::Invalid("document"))?;
        document.check()?;
        Ok(document)
    }

    /// Name of the file: the title without characters that file systems or shells treat differently.
    pub fn file_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = self.title.chars().take(80).map(safe).collect();
        let parts = name.split('-').map(|part| part.trim_matches('.')).filter(|part| !part.is_empty());
        let name = parts.collect::<Vec<_>>().join("-");
        format!("{}.pwcap", if name.is_empty() { "capsule" } else { &name })
    }

    /// Checks the counts.
    ///
    /// # Errors
    /// Returns [`CapsuleError::TooLarge`] above a limit and [`CapsuleError::Invalid`] for a window without time.
    pub(crate) fn check(&self) -> Result<(), CapsuleError> {
        if self.from_ms >= self.to_ms {
            return Err(CapsuleError::Invalid("window"));
        }
        if self.hosts.len() > MAX_HOSTS {
            return Err(CapsuleError::TooLarge("hosts"));
        }
        let mut values = 0_usize;
        for host in &self.hosts {
            if host.rows > MAX_ROWS || host.series.len() > MAX_SERIES {
                return Err(CapsuleError::TooLarge("values"));
            }
            values += host.rows * host.series.len();
            if host.process_rows > MAX_PROCESS_ROWS {
                return Err(CapsuleError::TooLarge("processes"));
            }
            if host.events.len() > MAX_EVENTS || host.alerts.len() > MAX_EVENTS {
                return Err(CapsuleError::TooLarge("events"));
            }
        }
        if values > MAX_VALUES {
            return Err(CapsuleError::TooLarge("values"));
        }
        if self.incidents.len() > MAX_EVENTS {
            return Err(CapsuleError::TooLarge("incidents"));
        }
        Ok(())
    }
}
