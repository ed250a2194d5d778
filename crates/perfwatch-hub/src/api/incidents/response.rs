//! Responses of the incident endpoints, limited to what the caller may see.

use perfwatch_alerting::{Alert, IncidentState, OpenIncident, Spark, SparkKey};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::HostId;
use perfwatch_rules::explain::{Explanation, LargestConsumer};
use perfwatch_rules::incident::{Ack, IncidentPhase};
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::IncidentEventKind;
use perfwatch_store::outbox::NotificationState;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Alert of a rule on an instance of a host.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertResponse {
    pub(super) id: Uuid,
    pub(super) rule: Uuid,
    pub(super) rule_name: String,
    /// Host of the alert; `null` for alerts about the hub.
    pub(super) host: Option<Uuid>,
    pub(super) host_name: String,
    /// Instance of the metric, such as `eth0`; empty without instances.
    pub(super) instance: String,
    /// Metric of the condition; empty for conditions without a metric.
    pub(super) metric: String,
    pub(super) severity: Severity,
    /// Description of the condition and its value.
    pub(super) summary: String,
    /// Runbook of the rule.
    pub(super) runbook: String,
    /// Time since which the condition holds.
    pub(super) pending_since_ms: i64,
    pub(super) fired_ms: i64,
    /// Time of the resolution; `null` while the alert fires.
    pub(super) resolved_ms: Option<i64>,
    /// Value at the time of firing.
    pub(super) value: Option<f64>,
    /// Threshold at the time of firing.
    pub(super) threshold: Option<f64>,
    /// Most extreme value while the condition held.
    pub(super) peak_value: Option<f64>,
    /// Notifications were suppressed by a silence.
    pub(super) silenced: bool,
    /// Reason of the resolution: `condition_cleared`, `instance_gone`, `rule_deleted`, `host_deleted`, or
    /// `backfilled` for an alert that fired and resolved in backfilled data.
    pub(super) resolve_reason: Option<String>,
    /// Process with the highest usage at the time of firing.
    pub(super) largest_consumer: Option<LargestConsumer>,
    /// Top consumers and movers at the time of firing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) explanation: Option<Explanation>,
}

/// Group of alerts with one timeline and one state.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentResponse {
    pub(super) id: Uuid,
    pub(super) title: String,
    pub(super) severity: Severity,
    /// State shown to users, derived from phase and acknowledgment.
    pub(super) state: IncidentState,
    pub(super) phase: IncidentPhase,
    pub(super) opened_ms: i64,
    /// Time since which no alert fires.
    pub(super) quiet_since_ms: Option<i64>,
    /// Number of times the incident reopened.
    pub(super) reopen_count: u32,
    pub(super) ack: Option<Ack>,
    /// Number of visible alerts that fire.
    pub(super) firing_count: usize,
    /// Alerts visible to the caller, by severity and time, highest and newest first.
    pub(super) alerts: Vec<AlertResponse>,
    /// Time until which silences hold back the first alert; `null` without an end, and if it is not silenced.
    pub(super) silenced_until_ms: Option<i64>,
    /// Recent values of the metric of the first alert; only in the list of open incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Spark>, nullable = false)]
    pub(super) spark: Option<Arc<Spark>>,
}

impl IncidentResponse {
    /// Series that the first alert is about.
    pub(super) fn spark_key(&self) -> Option<SparkKey> {
        let alert = self.alerts.first().filter(|alert| !alert.metric.is_empty())?;
        let (metric, instance) = (alert.metric.clone(), alert.instance.clone());
        Some(SparkKey { host: HostId(alert.host?), metric, instance })
    }

    /// Returns whether the response contains all alerts of the incident.
    pub(super) fn is_complete(&self, open: &OpenIncident) -> bool {
        self.alerts.len() == open.alerts.len()
    }
}

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
        largest_consumer: body.largest_consumer,
        explanation,
    }
}

/// Response with the alerts that the caller may view; `None` without such alerts.
pub(super) fn to_response(
    open: &OpenIncident,
    identity: &Identity,
    auth_snapshot: &AuthSnapshot,
    explanations: &mut HashMap<Uuid, Explanation>,
) -> Option<IncidentResponse> {
    let visible = open.visible_to(identity, auth_snapshot)?;
    let incident = &visible.incident;
    Some(IncidentResponse {
        id: incident.id,
        title: visible.title(),
        severity: incident.severity,
        state: IncidentState::new(incident),
        phase: incident.phase,
        opened_ms: incident.opened_ms,
        quiet_since_ms: incident.quiet_since_ms,
        reopen_count: incident.reopen_count,
        ack: incident.ack.clone(),
        firing_count: visible.firing().count(),
        alerts: visible
            .by_severity()
            .into_iter()
            .map(|alert| to_alert_response(alert, explanations.remove(&alert.id)))
            .collect(),
        silenced_until_ms: None,
        spark: None,
    })
}
