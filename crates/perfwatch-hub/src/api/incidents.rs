//! `/api/v1/incidents`: open and past incidents with their alerts, timeline and notifications.

pub(crate) mod actions;
mod response;

pub(crate) use response::open_incident_counts;

use crate::app::App;
use crate::error::ApiError;
use crate::http::extract::Caller;
use crate::http::query;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use perfwatch_alerting::Alert;
use perfwatch_rules::incident::IncidentPhase;
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::{AlertFilter, AlertRow, IncidentEventRow, IncidentFilter, IncidentRow};
use perfwatch_store::outbox::{NotificationFilter, Outbox};
use response::{
    HostAlertsResponse, IncidentDetailResponse, IncidentEventResponse, IncidentHistoryResponse,
    IncidentListResponse, IncidentNotificationResponse, IncidentResponse, to_alert_response, to_response,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::IntoParams;
use uuid::Uuid;

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

/// List open incidents
#[utoipa::path(get, path = "/api/v1/incidents", tag = "alerts", responses((status = 200, body = IncidentListResponse)))]
pub(crate) async fn list_incidents(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<IncidentListResponse> {
    let (state, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    let open = state.incidents.iter().filter(|live| live.incident.phase != IncidentPhase::Resolved);
    let mut incidents: Vec<IncidentResponse> =
        open.filter_map(|live| to_response(live, &identity, &auth_snapshot, &mut HashMap::new())).collect();
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
    let auth_snapshot = app.directory.snapshot();
    let rows = IncidentRow::list(app.alerting.store(), filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| format!("{}:{}", row.opened_ms, row.id));
    let mut incidents = Vec::with_capacity(rows.len());
    for row in rows {
        let live = app.alerting.load_with_alerts(&row).await?;
        incidents.extend(to_response(&live, &identity, &auth_snapshot, &mut HashMap::new()));
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
