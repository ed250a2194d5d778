//! Responses of the incident endpoints.

use perfwatch_alerting::response::{AlertResponse, IncidentResponse};
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::NotificationState;
use serde::Serialize;
use utoipa::ToSchema;

/// Open incidents visible to the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentListResponse {
    /// Firing and unacknowledged first, then by severity and time.
    pub(super) incidents: Vec<IncidentResponse>,
    /// Current time of the hub.
    pub(super) now_ms: i64,
}

/// Page of incidents, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentHistoryResponse {
    pub(super) incidents: Vec<IncidentResponse>,
    /// Value of `after` for the next page; `null` on the last page.
    pub(super) next: Option<String>,
}

/// Entry of an incident's timeline.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentEventResponse {
    pub(super) at_ms: i64,
    pub(super) kind: IncidentEventKind,
    /// User or token; empty for the hub.
    pub(super) actor: String,
    pub(super) text: String,
}

/// Notification of an incident to one channel.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentNotificationResponse {
    /// Name of the channel.
    pub(super) channel: String,
    pub(super) reason: String,
    pub(super) state: NotificationState,
    pub(super) created_ms: i64,
    /// Earliest time of the next attempt.
    pub(super) due_ms: i64,
    pub(super) finished_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) error: Option<String>,
}

/// Incident with timeline and notifications.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentDetailResponse {
    pub(super) incident: IncidentResponse,
    /// Timeline, oldest entry first.
    pub(super) timeline: Vec<IncidentEventResponse>,
    /// Notifications, newest first.
    pub(super) notifications: Vec<IncidentNotificationResponse>,
}

/// Alerts of one host in a time range.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostAlertsResponse {
    pub(super) alerts: Vec<AlertResponse>,
}
