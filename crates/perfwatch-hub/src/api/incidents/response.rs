//! Responses of the incident endpoints, limited to what the caller may see.

use perfwatch_alerting::{Alert, AlertingSnapshot, OpenIncident};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_rules::explain::Explanation;
use perfwatch_rules::incident::{Ack, IncidentPhase};
use perfwatch_rules::rule::Severity;
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// One alert.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertResponse {
    pub(super) id: Uuid,
    pub(super) rule: Uuid,
    pub(super) rule_name: String,
    /// None for the hub itself.
    pub(super) host: Option<Uuid>,
    pub(super) host_name: String,
    /// Of which instance; empty where there are none.
    pub(super) instance: String,
    /// The metric, where it is about one; else empty.
    pub(super) metric: String,
    pub(super) severity: Severity,
    /// What is so, in words.
    pub(super) summary: String,
    /// What to do about it.
    pub(super) runbook: String,
    /// Since when the condition held.
    pub(super) pending_since_ms: i64,
    pub(super) fired_ms: i64,
    /// None while it fires.
    pub(super) resolved_ms: Option<i64>,
    /// When it fired.
    pub(super) value: Option<f64>,
    /// The threshold at that time.
    pub(super) threshold: Option<f64>,
    /// The furthest beyond.
    pub(super) peak_value: Option<f64>,
    /// Nobody was told for a silence.
    pub(super) silenced: bool,
    /// Why it ended: `clear`, `gone`, `rule_gone`; `past` for what came to light when it was over.
    pub(super) resolve_reason: Option<String>,
    /// What was seen when it fired: largest consumers and movers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) explanation: Option<Explanation>,
}

/// Alerts that belong together.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentResponse {
    pub(super) id: Uuid,
    pub(super) title: String,
    pub(super) severity: Severity,
    pub(super) phase: IncidentPhase,
    pub(super) opened_ms: i64,
    /// When it was last over.
    pub(super) quiet_since_ms: Option<i64>,
    /// How often it came back.
    pub(super) reopen_count: u32,
    pub(super) ack: Option<Ack>,
    /// Alerts of it that fire.
    pub(super) firing_count: usize,
    /// Those that one may see; the worst and newest first.
    pub(super) alerts: Vec<AlertResponse>,
}

impl IncidentResponse {
    /// Whether nothing of it is hidden from who sees this.
    pub(super) fn is_complete(&self, live: &OpenIncident) -> bool {
        self.alerts.len() == live.alerts.len()
    }
}

/// List open incidents.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentListResponse {
    /// The worst and newest first.
    pub(super) incidents: Vec<IncidentResponse>,
    /// The hub's clock.
    pub(super) now_ms: i64,
}

/// What was, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentHistoryResponse {
    pub(super) incidents: Vec<IncidentResponse>,
    /// Give it back as `after` for the next page; none at the end.
    pub(super) next: Option<String>,
}

/// Something that happened to an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentEventResponse {
    pub(super) at_ms: i64,
    /// `fired`, `resolved`, `acknowledged`, `comment`, `told`…
    pub(super) kind: String,
    /// Who; empty for the hub itself.
    pub(super) actor: String,
    pub(super) text: String,
}

/// A message of an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentNotificationResponse {
    pub(super) channel: String,
    pub(super) reason: String,
    /// `waiting`, `sent`, `dead`, `skipped`.
    pub(super) state: String,
    pub(super) created_ms: i64,
    pub(super) due_ms: i64,
    pub(super) finished_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) error: Option<String>,
}

/// An incident with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentDetailResponse {
    pub(super) incident: IncidentResponse,
    /// Oldest first.
    pub(super) timeline: Vec<IncidentEventResponse>,
    /// Newest first.
    pub(super) notifications: Vec<IncidentNotificationResponse>,
}

/// Alerts of one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostAlertsResponse {
    pub(super) alerts: Vec<AlertResponse>,
}

pub(super) fn to_alert_response(alert: &Alert, explanation: Option<Explanation>) -> AlertResponse {
    let body = alert.body.clone();
    AlertResponse {
        id: alert.id,
        rule: alert.rule,
        rule_name: body.rule_name,
        host: Some(alert.host.0).filter(|host| !host.is_nil()),
        host_name: body.host_name,
        instance: body.instance,
        metric: body.metric,
        severity: alert.severity,
        summary: body.summary,
        runbook: body.runbook,
        pending_since_ms: body.pending_since_ms,
        fired_ms: alert.fired_ms,
        resolved_ms: alert.resolved_ms,
        value: body.value,
        threshold: body.threshold,
        peak_value: body.peak_value,
        silenced: body.silenced,
        resolve_reason: body.resolve_reason,
        explanation,
    }
}

/// Whether one may see an alert: those of the hub itself are for who sees all.
fn can_view(identity: &Identity, auth_snapshot: &AuthSnapshot, alert: &Alert) -> bool {
    match alert.host.0.is_nil() {
        true => identity.host_tags.is_empty(),
        false => identity.can_view(auth_snapshot, alert.host),
    }
}

/// An incident as one may see it; none where one may see nothing of it.
pub(super) fn to_response(
    live: &OpenIncident,
    identity: &Identity,
    auth_snapshot: &AuthSnapshot,
    explanations: &mut HashMap<Uuid, Explanation>,
) -> Option<IncidentResponse> {
    let mut seen = live.clone();
    seen.alerts.retain(|alert| can_view(identity, auth_snapshot, alert));
    if seen.alerts.is_empty() {
        return None;
    }
    let incident = &live.incident;
    Some(IncidentResponse {
        id: incident.id,
        title: seen.title(),
        severity: incident.severity,
        phase: incident.phase,
        opened_ms: incident.opened_ms,
        quiet_since_ms: incident.quiet_since_ms,
        reopen_count: incident.reopen_count,
        ack: incident.ack.clone(),
        firing_count: seen.firing().count(),
        alerts: seen
            .by_severity()
            .into_iter()
            .map(|alert| to_alert_response(alert, explanations.remove(&alert.id)))
            .collect(),
    })
}

/// How many incidents are open by severity, as one may see them: info, warning, critical.
pub(crate) fn open_incident_counts(
    state: &AlertingSnapshot,
    identity: &Identity,
    auth_snapshot: &AuthSnapshot,
) -> [usize; 3] {
    let mut counts = [0; 3];
    for live in state.incidents.iter().filter(|live| live.incident.phase != IncidentPhase::Resolved) {
        if live.alerts.iter().any(|alert| can_view(identity, auth_snapshot, alert)) {
            counts[live.incident.severity as usize] += 1;
        }
    }
    counts
}
