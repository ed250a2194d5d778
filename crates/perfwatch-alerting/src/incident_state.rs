//! State of incidents as users see it.

use perfwatch_rules::incident::{Incident, IncidentPhase};
use serde::{Deserialize, Serialize};

/// State of an incident as shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IncidentState {
    /// Neither resolved nor acknowledged.
    Open,
    /// Acknowledged by a user and not resolved.
    Acknowledged,
    /// All alerts are resolved and the incident is closed.
    Resolved,
}

impl IncidentState {
    /// Name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// State of an incident.
    pub fn new(incident: &Incident) -> Self {
        match (incident.phase, &incident.ack) {
            (IncidentPhase::Resolved, _) => Self::Resolved,
            (_, Some(_)) => Self::Acknowledged,
            (_, None) => Self::Open,
        }
    }
}
