//! `/api/v1/incidents`: open and past incidents with their alerts, timeline and notifications.

pub(crate) mod actions;
mod response;

use crate::app::App;
use crate::host_access;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use perfwatch_alerting::response::{IncidentResponse, to_alert_response, to_response};
use perfwatch_alerting::{Alert, IncidentState, IncidentStatistics, MAX_STATISTICS_RANGE_MS, OpenIncident};
use perfwatch_auth::Identity;
use perfwatch_http::{ApiError, Caller, params};
use perfwatch_rules::incident::IncidentPhase;
use perfwatch_rules::rule::Severity;
use perfwatch_store::incidents::{AlertFilter, AlertRow, IncidentEventRow, IncidentFilter, IncidentRow};
use perfwatch_store::outbox::{NotificationFilter, Outbox};
use response::{
    HostAlertsResponse, IncidentDetailResponse, IncidentEventResponse, IncidentHistoryResponse,
    IncidentListResponse, IncidentNotificationResponse,
};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::IntoParams;
use uuid::Uuid;

/// Maximum number of alerts in a page of incidents, give or take an incident.
const MAX_PAGE_ALERTS: usize = 5_000;
/// Maximum number of incidents that are read for a page. A page with fewer incidents than requested follows.
const MAX_PAGE_READS: usize = 2_000;
/// Minimum number of incidents that the store reads at once for callers that are limited by host tags.
const MIN_READ_INCIDENTS: i64 = 200;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct IncidentHistoryQuery {
    /// Substring of the title.
    text: Option<String>,
    /// Severity of the incident.
    severity: Option<Severity>,
    /// State of the incident.
    state: Option<IncidentState>,
    /// Id or name of a host.
    host: Option<String>,
    /// Id of a rule.
    rule: Option<Uuid>,
    /// Opened at or after: milliseconds since 1970, RFC 3339, or an offset such as `-7d`.
    from: Option<String>,
    /// Opened before.
    to: Option<String>,
    /// `next` of the previous page.
    after: Option<String>,
    /// Maximum number of incidents: 1 to 200, default 50.
    limit: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RangeQuery {
    /// Start of the range; default: one hour before `to`.
    from: Option<String>,
    /// End of the range; default: now.
    to: Option<String>,
}

/// List open incidents
#[utoipa::path(
    get, path = "/api/v1/incidents", tag = "incidents",
    responses((status = 200, body = IncidentListResponse)),
)]
pub(crate) async fn list_incidents(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<IncidentListResponse> {
    let (state, auth_snapshot) = (app.alerting.snapshot(), app.directory.snapshot());
    let now_ms = app.clock.wall_ms();
    let to_visible = |open: &Arc<OpenIncident>| {
        let mut incident = to_response(open, &identity, &auth_snapshot, &mut HashMap::new())?;
        let first = incident.alerts.first().map(|alert| alert.id);
        let first = open.alerts.iter().find(|alert| Some(alert.id) == first)?;
        incident.silenced_until_ms = state.silenced_until_ms(first, &auth_snapshot, now_ms);
        Some(incident)
    };
    let visible = state.incidents.iter().filter_map(to_visible);
    let mut incidents: Vec<IncidentResponse> =
        visible.filter(|incident| incident.phase != IncidentPhase::Resolved).collect();
    incidents.sort_by_key(|incident| {
        (
            incident.firing_count == 0,
            incident.ack.is_some(),
            Reverse(incident.severity),
            Reverse(incident.opened_ms),
        )
    });
    let sparks =
        app.alerting.sparks(incidents.iter().filter_map(IncidentResponse::spark_key).collect()).await;
    for incident in &mut incidents {
        incident.spark = incident.spark_key().and_then(|key| sparks.get(&key).cloned());
    }
    Json(IncidentListResponse { incidents, now_ms })
}

/// Get statistics of incidents
///
/// Counts the incidents that opened in the range, which is at most 31 days; default: the last 7 days.
#[utoipa::path(
    get, path = "/api/v1/alerts/stats", tag = "incidents",
    params(RangeQuery),
    responses((status = 200, body = IncidentStatistics), (status = 422)),
)]
pub(crate) async fn statistics(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<RangeQuery>, QueryRejection>,
) -> Result<Json<IncidentStatistics>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let from = query.from.as_deref().or(Some("-7d"));
    let range = params::range(from, query.to.as_deref(), app.clock.wall_ms())?;
    if range.1 - range.0 > MAX_STATISTICS_RANGE_MS {
        return Err(ApiError::unprocessable("range_too_long", "the range must be at most 31 days"));
    }
    Ok(Json(app.alerting.statistics(range, &identity, app.directory.snapshot()).await?))
}

/// List past incidents
#[utoipa::path(
    get, path = "/api/v1/incidents/history", tag = "incidents",
    params(IncidentHistoryQuery),
    responses((status = 200, body = IncidentHistoryResponse), (status = 404)),
)]
pub(crate) async fn list_incident_history(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    query: Result<Query<IncidentHistoryQuery>, QueryRejection>,
) -> Result<Json<IncidentHistoryResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let now_ms = app.clock.wall_ms();
    let time = |key, text: Option<&str>, default_ms| {
        text.map_or(Ok(default_ms), |text| params::time_ms(key, text, now_ms))
    };
    let host = query.host.as_deref().map(|host| host_access::host(&app, &identity, host)).transpose()?;
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
        state: query.state.map(|state| state.name().to_owned()),
        text: query.text.unwrap_or_default(),
        from_ms: time("from", query.from.as_deref(), 0)?,
        to_ms,
        to_id,
        limit: query.limit.unwrap_or(50).clamp(1, 200),
        host_tags: identity.host_tags.clone(),
    };
    Ok(Json(history_page(&app, &identity, filter).await?))
}

/// Page of incidents that match a filter.
async fn history_page(
    app: &App,
    identity: &Identity,
    mut filter: IncidentFilter,
) -> Result<IncidentHistoryResponse, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let (text, severity, state) = (filter.text.to_lowercase(), filter.severity.clone(), filter.state.clone());
    let is_limited = !identity.host_tags.is_empty();
    // Title, severity and state of a limited caller depend on the visible alerts, so that the store cannot filter them.
    let matches = |incident: &IncidentResponse| {
        !is_limited
            || (severity.as_deref().is_none_or(|name| incident.severity.name() == name)
                && state.as_deref().is_none_or(|name| incident.state.name() == name)
                && incident.title.to_lowercase().contains(&text))
    };
    let (limit, mut incidents) = (usize::try_from(filter.limit).unwrap_or(1), Vec::new());
    let (mut alerts, mut read) = (0, 0);
    // The store reads all visible alerts for each page: few large pages.
    filter.limit = if is_limited { filter.limit.max(MIN_READ_INCIDENTS) } else { filter.limit };
    let read_limit = usize::try_from(filter.limit).unwrap_or(1);
    loop {
        let rows = IncidentRow::list(app.alerting.store(), filter.clone()).await?;
        let is_last = rows.len() < read_limit;
        for row in rows {
            let incident = app.alerting.load_with_alerts(&row).await?;
            (alerts, read) = (alerts + incident.alerts.len(), read + 1);
            let response = to_response(&incident, identity, &auth_snapshot, &mut HashMap::new());
            incidents.extend(response.filter(&matches));
            if incidents.len() == limit || alerts >= MAX_PAGE_ALERTS || read >= MAX_PAGE_READS {
                return Ok(IncidentHistoryResponse {
                    incidents,
                    next: Some(format!("{}:{}", row.opened_ms, row.id)),
                });
            }
            (filter.to_ms, filter.to_id) = (row.opened_ms, Some(row.id));
        }
        if is_last {
            return Ok(IncidentHistoryResponse { incidents, next: None });
        }
    }
}

pub(super) fn incident_not_found() -> ApiError {
    ApiError::not_found("incident not found")
}

pub(super) fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| incident_not_found())
}

/// Get an incident
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}", tag = "incidents",
    params(("id" = String, Path, description = "Id of the incident")),
    responses((status = 200, body = IncidentDetailResponse)),
)]
pub(crate) async fn get_incident(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
) -> Result<Json<IncidentDetailResponse>, ApiError> {
    let id = parse_id(&id)?;
    let store = app.alerting.store();
    let open = app.alerting.get(id).await?.ok_or_else(incident_not_found)?;
    let rows = AlertRow::explanations(store, id).await?.into_iter();
    let mut explanations =
        rows.filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?))).collect();
    let incident = to_response(&open, &identity, &app.directory.snapshot(), &mut explanations)
        .ok_or_else(incident_not_found)?;
    // The timeline names hosts: callers who cannot view all alerts get none.
    let is_complete = incident.is_complete(&open);
    let to_event = |event: IncidentEventRow| IncidentEventResponse {
        at_ms: event.at_ms,
        kind: event.kind,
        actor: event.actor,
        text: event.text,
    };
    let events = IncidentEventRow::list(store, id).await?.into_iter();
    let timeline = events.filter(|_| is_complete).map(to_event).collect();
    let filter = NotificationFilter { incident: Some(id), limit: 200, ..NotificationFilter::default() };
    let state = app.alerting.snapshot();
    let rows = Outbox::list(store, filter).await?.into_iter().filter(|_| is_complete);
    let notifications = rows.map(|row| IncidentNotificationResponse {
        channel: state
            .definitions
            .channel(row.channel)
            .map_or("deleted channel", |channel| &channel.name)
            .to_owned(),
        reason: row.reason,
        state: row.state,
        created_ms: row.created_ms,
        due_ms: row.due_ms.max(row.retry_at_ms),
        finished_ms: row.finished_ms,
        attempts: row.attempts,
        error: row.error,
    });
    Ok(Json(IncidentDetailResponse { incident, timeline, notifications: notifications.collect() }))
}

/// List alerts of a host in a time range
#[utoipa::path(
    get, path = "/api/v1/hosts/{id}/alerts", tag = "incidents",
    params(("id" = String, Path, description = "Id or name of the host"), RangeQuery),
    responses((status = 200, body = HostAlertsResponse)),
)]
pub(crate) async fn list_host_alerts(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Path(id): Path<String>,
    query: Result<Query<RangeQuery>, QueryRejection>,
) -> Result<Json<HostAlertsResponse>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
    let host = host_access::host(&app, &identity, &id)?;
    let (from_ms, to_ms) = params::range(query.from.as_deref(), query.to.as_deref(), app.clock.wall_ms())?;
    let filter = AlertFilter::Host(host.record.id.0, from_ms, to_ms);
    let rows = AlertRow::list(app.alerting.store(), filter).await?;
    let alerts =
        rows.iter().filter_map(Alert::from_row).map(|alert| to_alert_response(&alert, None)).collect();
    Ok(Json(HostAlertsResponse { alerts }))
}
