//! Alerts and incidents in the API, limited to what the caller may see.

use crate::{Alert, IncidentState, OpenIncident, Spark, SparkKey};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_model::HostId;
use perfwatch_rules::explain::{Explanation, LargestConsumer};
use perfwatch_rules::incident::{Ack, IncidentPhase};
use perfwatch_rules::rule::Severity;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Alert of a rule on an instance of a host.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertResponse {
    /// Id of the alert.
    pub id: Uuid,
    /// Id of the rule.
    pub rule: Uuid,
    /// Name of the rule at the time of firing.
    pub rule_name: String,
    /// Host of the alert; `null` for alerts about the hub.
    pub host: Option<Uuid>,
    /// Name of the host.
    pub host_name: String,
    /// Instance of the metric, such as `eth0`; empty without instances.
    pub instance: String,
    /// Metric of the condition; empty for conditions without a metric.
    pub metric: String,
    /// Severity of the rule.
    pub severity: Severity,
    /// Description of the condition and its value.
    pub summary: String,
    /// Runbook of the rule.
    pub runbook: String,
    /// Time since which the condition holds.
    pub pending_since_ms: i64,
    /// Time of firing, Unix milliseconds.
    pub fired_ms: i64,
    /// Time of the resolution; `null` while the alert fires.
    pub resolved_ms: Option<i64>,
    /// Value at the time of firing.
    pub value: Option<f64>,
    /// Threshold at the time of firing.
    pub threshold: Option<f64>,
    /// Most extreme value while the condition held.
    pub peak_value: Option<f64>,
    /// Notifications were suppressed by a silence.
    pub silenced: bool,
    /// Reason of the resolution: `condition_cleared`, `instance_gone`, `rule_deleted`, `host_deleted`, or
    /// `backfilled` for an alert that fired and resolved in backfilled data.
    pub resolve_reason: Option<String>,
    /// Process with the highest usage at the time of firing.
    pub largest_consumer: Option<LargestConsumer>,
    /// Top consumers and movers at the time of firing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub explanation: Option<Explanation>,
}

/// Group of alerts with one timeline and one state.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentResponse {
    /// Id of the incident.
    pub id: Uuid,
    /// Title of the visible alerts.
    pub title: String,
    /// Highest severity of the visible alerts.
    pub severity: Severity,
    /// State shown to users, derived from phase and acknowledgment.
    pub state: IncidentState,
    /// Phase of the incident.
    pub phase: IncidentPhase,
    /// Time of opening, Unix milliseconds.
    pub opened_ms: i64,
    /// Time since which no alert fires.
    pub quiet_since_ms: Option<i64>,
    /// Number of times the incident reopened.
    pub reopen_count: u32,
    /// Acknowledgment, if there is one.
    pub ack: Option<Ack>,
    /// Number of visible alerts that fire.
    pub firing_count: usize,
    /// Alerts visible to the caller, by severity and time, highest and newest first.
    pub alerts: Vec<AlertResponse>,
    /// Time until which silences hold back the first alert; `null` without an end, and if it is not silenced.
    pub silenced_until_ms: Option<i64>,
    /// Recent values of the metric of the first alert; only in the list of open incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Spark>, nullable = false))]
    pub spark: Option<Arc<Spark>>,
}

impl IncidentResponse {
    /// Series that the first alert is about.
    pub fn spark_key(&self) -> Option<SparkKey> {
        let alert = self.alerts.first().filter(|alert| !alert.metric.is_empty())?;
        let (metric, instance) = (alert.metric.clone(), alert.instance.clone());
        Some(SparkKey { host: HostId(alert.host?), metric, instance })
    }

    /// Returns whether the response contains all alerts of the incident.
    pub fn is_complete(&self, open: &OpenIncident) -> bool {
        self.alerts.len() == open.alerts.len()
    }
}

/// Alert with its explanation.
pub fn to_alert_response(alert: &Alert, explanation: Option<Explanation>) -> AlertResponse {
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
pub fn to_response(
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
