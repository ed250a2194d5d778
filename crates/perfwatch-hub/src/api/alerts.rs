//! `/api/v1/incidents`: what is the matter, and what was.

use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::http::query;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use perfwatch_alerting::{Alert, AlertingSnapshot as Alerts, OpenIncident};
use perfwatch_auth::Identity;
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_rules::explain::Explanation;
use perfwatch_rules::incident::{Ack, IncidentPhase};
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::{AlertFilter, AlertRow, IncidentEventRow, IncidentFilter, IncidentRow};
use perfwatch_store::outbox::{NotificationFilter, Outbox};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// One alert.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertResponse {
    id: Uuid,
    rule: Uuid,
    rule_name: String,
    /// None for the hub itself.
    host: Option<Uuid>,
    host_name: String,
    /// Of which instance; empty where there are none.
    instance: String,
    /// The metric, where it is about one; else empty.
    metric: String,
    severity: Severity,
    /// What is so, in words.
    summary: String,
    /// What to do about it.
    runbook: String,
    /// Since when the condition held.
    pending_since_ms: i64,
    fired_ms: i64,
    /// None while it fires.
    resolved_ms: Option<i64>,
    /// When it fired.
    value: Option<f64>,
    /// The threshold at that time.
    threshold: Option<f64>,
    /// The furthest beyond.
    peak_value: Option<f64>,
    /// Nobody was told for a silence.
    silenced: bool,
    /// Why it ended: `clear`, `gone`, `rule_gone`; `past` for what came to light when it was over.
    resolve_reason: Option<String>,
    /// What was seen when it fired: largest consumers and movers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explanation: Option<Explanation>,
}

/// Alerts that belong together.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentResponse {
    id: Uuid,
    title: String,
    severity: Severity,
    phase: IncidentPhase,
    opened_ms: i64,
    /// When it was last over.
    quiet_since_ms: Option<i64>,
    /// How often it came back.
    reopen_count: u32,
    ack: Option<Ack>,
    /// Alerts of it that fire.
    firing_count: usize,
    /// Those that one may see; the worst and newest first.
    alerts: Vec<AlertResponse>,
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
    incidents: Vec<IncidentResponse>,
    /// The hub's clock.
    now_ms: i64,
}

/// What was, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentHistoryResponse {
    incidents: Vec<IncidentResponse>,
    /// Give it back as `after` for the next page; none at the end.
    next: Option<String>,
}

/// Something that happened to an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentEventResponse {
    at_ms: i64,
    /// `fired`, `resolved`, `acknowledged`, `comment`, `told`…
    kind: String,
    /// Who; empty for the hub itself.
    actor: String,
    text: String,
}

/// A message of an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentNotificationResponse {
    channel: String,
    reason: String,
    /// `waiting`, `sent`, `dead`, `skipped`.
    state: String,
    created_ms: i64,
    due_ms: i64,
    finished_ms: Option<i64>,
    attempts: i64,
    error: Option<String>,
}

/// An incident with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentDetailResponse {
    incident: IncidentResponse,
    /// Oldest first.
    timeline: Vec<IncidentEventResponse>,
    /// Newest first.
    notifications: Vec<IncidentNotificationResponse>,
}

/// Alerts of one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostAlertsResponse {
    alerts: Vec<AlertResponse>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct IncidentHistoryQuery {
    /// Part of the title.
    text: Option<String>,
    severity: Option<Severity>,
    /// Id or name of a host.
    host: Option<String>,
    rule: Option<Uuid>,
    /// Begun from here on: milliseconds since 1970, RFC 3339, or `-7d`.
    from: Option<String>,
    /// Begun before.
    to: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 200 at most.
    limit: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RangeQuery {
    from: Option<String>,
    to: Option<String>,
}

fn to_alert_response(alert: &Alert, explanation: Option<Explanation>) -> AlertResponse {
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
fn can_view(identity: &Identity, everyone: &Everyone, alert: &Alert) -> bool {
    match alert.host.0.is_nil() {
        true => identity.host_tags.is_empty(),
        false => identity.can_view(everyone, alert.host),
    }
}

/// An incident as one may see it; none where one may see nothing of it.
pub(super) fn to_response(
    live: &OpenIncident,
    identity: &Identity,
    everyone: &Everyone,
    explanations: &mut HashMap<Uuid, Explanation>,
) -> Option<IncidentResponse> {
    let mut seen = live.clone();
    seen.alerts.retain(|alert| can_view(identity, everyone, alert));
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
pub(crate) fn open_incident_counts(state: &Alerts, identity: &Identity, everyone: &Everyone) -> [usize; 3] {
    let mut counts = [0; 3];
    for live in state.incidents.iter().filter(|live| live.incident.phase != IncidentPhase::Resolved) {
        if live.alerts.iter().any(|alert| can_view(identity, everyone, alert)) {
            counts[live.incident.severity as usize] += 1;
        }
    }
    counts
}

/// List open incidents
#[utoipa::path(get, path = "/api/v1/incidents", tag = "alerts", responses((status = 200, body = IncidentListResponse)))]
pub(crate) async fn list_incidents(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<IncidentListResponse> {
    let (state, everyone) = (app.alerting.snapshot(), app.directory.snapshot());
    let open = state.incidents.iter().filter(|live| live.incident.phase != IncidentPhase::Resolved);
    let mut incidents: Vec<IncidentResponse> =
        open.filter_map(|live| to_response(live, &identity, &everyone, &mut HashMap::new())).collect();
    incidents.sort_by_key(|one| {
        (
            one.firing_count == 0,
            one.ack.is_some(),
            std::cmp::Reverse(one.severity),
            std::cmp::Reverse(one.opened_ms),
        )
    });
    Json(IncidentListResponse { incidents, now_ms: app.clock.wall_ms() })
}

/// List past incidents
#[utoipa::path(get, path = "/api/v1/incidents/history", tag = "alerts", params(IncidentHistoryQuery),
    responses((status = 200, body = IncidentHistoryResponse), (status = 404)))]
pub(crate) async fn list_incident_history(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<IncidentHistoryQuery>, QueryRejection>,
) -> Result<Json<IncidentHistoryResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let now_ms = app.clock.wall_ms();
    let time =
        |key, text: Option<&str>, usual| text.map_or(Ok(usual), |text| query::time_ms(key, text, now_ms));
    let host = query.host.as_deref().map(|host| query::host(&app, &identity, host)).transpose()?;
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let (to_ms, to_id) = match query.after.as_deref() {
        None => (time("to", query.to.as_deref(), i64::MAX)?, None),
        Some(after) => after
            .split_once(':')
            .and_then(|(ms, id)| Some((ms.parse().ok()?, Some(id.parse().ok()?))))
            .ok_or_else(|| {
                ApiError::bad_request("invalid_query", "after: must be the `next` value of the previous page")
            })?,
    };
    let filter = IncidentFilter {
        host: host.map(|host| host.record.id.0),
        rule: query.rule,
        severity: query.severity.map(|severity| severity.name().to_owned()),
        text: query.text.unwrap_or_default(),
        from_ms: time("from", query.from.as_deref(), 0)?,
        to_ms,
        to_id,
        limit,
    };
    let everyone = app.directory.snapshot();
    let rows = IncidentRow::list(app.alerting.store(), filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| format!("{}:{}", row.opened_ms, row.id));
    let mut incidents = Vec::with_capacity(rows.len());
    for row in rows {
        let live = app.alerting.load_with_alerts(&row).await?;
        incidents.extend(to_response(&live, &identity, &everyone, &mut HashMap::new()));
    }
    Ok(Json(IncidentHistoryResponse { incidents, next }))
}

pub(super) fn incident_not_found() -> ApiError {
    ApiError::not_found("there is no such incident")
}

pub(super) fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| incident_not_found())
}

/// Get an incident
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = IncidentDetailResponse)))]
pub(crate) async fn get_incident(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<IncidentDetailResponse>, ApiError> {
    let id = parse_id(&id)?;
    let store = app.alerting.store();
    let live = app.alerting.get(id).await?.ok_or_else(incident_not_found)?;
    let explained = AlertRow::explanations(store, id).await?.into_iter();
    let mut explanations =
        explained.filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?))).collect();
    let incident = to_response(&live, &identity, &app.directory.snapshot(), &mut explanations)
        .ok_or_else(incident_not_found)?;
    // What one may not see stands in no timeline either.
    let whole = incident.is_complete(&live);
    let event = |event: IncidentEventRow| IncidentEventResponse {
        at_ms: event.at_ms,
        kind: event.kind.name().to_owned(),
        actor: event.actor,
        text: event.text,
    };
    let events = IncidentEventRow::list(store, id).await?.into_iter();
    let timeline = events.filter(|_| whole).map(event).collect();
    let filter = NotificationFilter { incident: Some(id), limit: 200, ..NotificationFilter::default() };
    let state = app.alerting.snapshot();
    let messages = Outbox::list(store, filter).await?.into_iter().filter(|_| whole);
    let deliveries = messages.map(|row| IncidentNotificationResponse {
        channel: state
            .definitions
            .channel(row.channel)
            .map_or("deleted channel", |channel| &channel.name)
            .to_owned(),
        reason: row.reason,
        state: row.state.name().to_owned(),
        created_ms: row.created_ms,
        due_ms: row.due_ms.max(row.retry_at_ms),
        finished_ms: row.finished_ms,
        attempts: row.attempts,
        error: row.error,
    });
    Ok(Json(IncidentDetailResponse { incident, timeline, notifications: deliveries.collect() }))
}

/// List alerts of a host in a time range
#[utoipa::path(get, path = "/api/v1/hosts/{id}/alerts", tag = "alerts",
    params(("id" = String, Path, description = "Id or name"), RangeQuery), responses((status = 200, body = HostAlertsResponse)))]
pub(crate) async fn list_host_alerts(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    query: Result<Query<RangeQuery>, QueryRejection>,
) -> Result<Json<HostAlertsResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let host = query::host(&app, &identity, &id)?;
    let (from_ms, to_ms) = query::range(query.from.as_deref(), query.to.as_deref(), app.clock.wall_ms())?;
    let of = AlertFilter::Host(host.record.id.0, from_ms, to_ms);
    let rows = AlertRow::list(app.alerting.store(), of).await?;
    let alerts =
        rows.iter().filter_map(Alert::from_row).map(|alert| to_alert_response(&alert, None)).collect();
    Ok(Json(HostAlertsResponse { alerts }))
}
