//! `/api/v1/alerts`: what is the matter, and what was.

use super::params;
use crate::alerting::{Alert, LiveIncident, State as Alerts};
use crate::app::App;
use crate::auth::Identity;
use crate::auth::people::State as Everyone;
use crate::error::ApiError;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use perfwatch_alert::explain::Explanation;
use perfwatch_alert::incident::{Ack, Phase};
use perfwatch_alert::rule::Severity;
use perfwatch_store::alerts::{
    AlertRow, AlertsOf, EventRow, IncidentFilter, IncidentRow, Outbox, OutboxFilter,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// One alert.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertJson {
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
    note: String,
    /// Since when the condition held.
    since_ms: i64,
    fired_ms: i64,
    /// None while it fires.
    resolved_ms: Option<i64>,
    /// When it fired.
    figure: Option<f64>,
    /// The threshold at that time.
    threshold: Option<f64>,
    /// The furthest beyond.
    worst: Option<f64>,
    /// Nobody was told for a silence.
    silenced: bool,
    /// Why it ended: `clear`, `gone`, `rule_gone`; `past` for what came to light when it was over.
    ended: Option<String>,
    /// What was seen when it fired: largest consumers and movers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explanation: Option<Explanation>,
}

/// Alerts that belong together.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentJson {
    id: Uuid,
    title: String,
    severity: Severity,
    phase: Phase,
    opened_ms: i64,
    /// When it was last over.
    calm_ms: Option<i64>,
    /// How often it came back.
    reopened: u32,
    ack: Option<Ack>,
    /// Alerts of it that fire.
    firing: usize,
    /// Those that one may see; the worst and newest first.
    alerts: Vec<AlertJson>,
}

impl IncidentJson {
    /// Whether nothing of it is hidden from who sees this.
    pub(super) fn is_whole(&self, live: &LiveIncident) -> bool {
        self.alerts.len() == live.alerts.len()
    }
}

/// What is the matter now.
#[derive(Serialize, ToSchema)]
pub(crate) struct ActiveJson {
    /// The worst and newest first.
    incidents: Vec<IncidentJson>,
    /// The hub's clock.
    now_ms: i64,
}

/// What was, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlertHistoryJson {
    incidents: Vec<IncidentJson>,
    /// Give it back as `after` for the next page; none at the end.
    next: Option<String>,
}

/// Something that happened to an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventJson {
    at_ms: i64,
    /// `fired`, `resolved`, `acknowledged`, `comment`, `told`…
    kind: String,
    /// Who; empty for the hub itself.
    actor: String,
    text: String,
}

/// A message of an incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeliveryJson {
    channel: String,
    notice: String,
    /// `waiting`, `sent`, `dead`, `skipped`.
    state: String,
    created_ms: i64,
    due_ms: i64,
    done_ms: Option<i64>,
    tries: i64,
    error: Option<String>,
}

/// An incident with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct IncidentDetailJson {
    incident: IncidentJson,
    /// Oldest first.
    timeline: Vec<EventJson>,
    /// Newest first.
    deliveries: Vec<DeliveryJson>,
}

/// Alerts of one host.
#[derive(Serialize, ToSchema)]
pub(crate) struct HostAlertsJson {
    alerts: Vec<AlertJson>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
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

fn show_alert(alert: &Alert, explanation: Option<Explanation>) -> AlertJson {
    let body = alert.body.clone();
    AlertJson {
        id: alert.id,
        rule: alert.rule,
        rule_name: body.rule_name,
        host: Some(alert.host.0).filter(|host| !host.is_nil()),
        host_name: body.host_name,
        instance: body.instance,
        metric: body.metric,
        severity: alert.severity,
        summary: body.summary,
        note: body.note,
        since_ms: body.since_ms,
        fired_ms: alert.fired_ms,
        resolved_ms: alert.resolved_ms,
        figure: body.figure,
        threshold: body.threshold,
        worst: body.worst,
        silenced: body.silenced,
        ended: body.ended,
        explanation,
    }
}

/// Whether one may see an alert: those of the hub itself are for who sees all.
fn sees(identity: &Identity, everyone: &Everyone, alert: &Alert) -> bool {
    match alert.host.0.is_nil() {
        true => identity.host_tags.is_empty(),
        false => identity.sees(everyone, alert.host),
    }
}

/// An incident as one may see it; none where one may see nothing of it.
pub(super) fn show(
    live: &LiveIncident,
    identity: &Identity,
    everyone: &Everyone,
    explanations: &mut HashMap<Uuid, Explanation>,
) -> Option<IncidentJson> {
    let mut seen = live.clone();
    seen.alerts.retain(|alert| sees(identity, everyone, alert));
    if seen.alerts.is_empty() {
        return None;
    }
    let incident = &live.incident;
    Some(IncidentJson {
        id: incident.id,
        title: seen.title(),
        severity: incident.severity,
        phase: incident.phase,
        opened_ms: incident.opened_ms,
        calm_ms: incident.calm_ms,
        reopened: incident.reopened,
        ack: incident.ack.clone(),
        firing: seen.firing().count(),
        alerts: seen
            .worst_first()
            .into_iter()
            .map(|alert| show_alert(alert, explanations.remove(&alert.id)))
            .collect(),
    })
}

/// How many incidents are open by severity, as one may see them: info, warning, critical.
pub(crate) fn counts(state: &Alerts, identity: &Identity, everyone: &Everyone) -> [usize; 3] {
    let mut counts = [0; 3];
    for live in state.board.incidents().filter(|live| live.incident.phase != Phase::Closed) {
        if live.alerts.iter().any(|alert| sees(identity, everyone, alert)) {
            counts[live.incident.severity as usize] += 1;
        }
    }
    counts
}

/// What is the matter now
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", responses((status = 200, body = ActiveJson)))]
pub(crate) async fn active(State(app): State<Arc<App>>, identity: Identity) -> Json<ActiveJson> {
    let (state, everyone) = (app.alerting.now(), app.people.now());
    let open = state.board.incidents().filter(|live| live.incident.phase != Phase::Closed);
    let mut incidents: Vec<IncidentJson> =
        open.filter_map(|live| show(live, &identity, &everyone, &mut HashMap::new())).collect();
    incidents.sort_by_key(|one| {
        (
            one.firing == 0,
            one.ack.is_some(),
            std::cmp::Reverse(one.severity),
            std::cmp::Reverse(one.opened_ms),
        )
    });
    Json(ActiveJson { incidents, now_ms: app.clock.wall_ms() })
}

/// What was the matter
#[utoipa::path(get, path = "/api/v1/alerts/history", tag = "alerts", params(HistoryQuery),
    responses((status = 200, body = AlertHistoryJson), (status = 404)))]
pub(crate) async fn history(
    State(app): State<Arc<App>>,
    identity: Identity,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<AlertHistoryJson>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let now_ms = app.clock.wall_ms();
    let time =
        |key, text: Option<&str>, usual| text.map_or(Ok(usual), |text| params::time_ms(key, text, now_ms));
    let host = query.host.as_deref().map(|host| params::host(&app, &identity, host)).transpose()?;
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let (to_ms, to_id) = match query.after.as_deref() {
        None => (time("to", query.to.as_deref(), i64::MAX)?, None),
        Some(after) => after
            .split_once(':')
            .and_then(|(ms, id)| Some((ms.parse().ok()?, Some(id.parse().ok()?))))
            .ok_or_else(|| ApiError::bad_request("bad_query", "after: what next of the page before said"))?,
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
    let everyone = app.people.now();
    let rows = IncidentRow::list(app.alerting.store(), filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| format!("{}:{}", row.opened_ms, row.id));
    let mut incidents = Vec::with_capacity(rows.len());
    for row in rows {
        let live = app.alerting.whole(&row).await?;
        incidents.extend(show(&live, &identity, &everyone, &mut HashMap::new()));
    }
    Ok(Json(AlertHistoryJson { incidents, next }))
}

pub(super) fn unknown() -> ApiError {
    ApiError::not_found("there is no such incident")
}

pub(super) fn parse(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| unknown())
}

/// One incident, with its explanation and timeline
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = IncidentDetailJson)))]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Json<IncidentDetailJson>, ApiError> {
    let id = parse(&id)?;
    let store = app.alerting.store();
    let live = app.alerting.find(id).await?.ok_or_else(unknown)?;
    let explained = AlertRow::explanations(store, id).await?.into_iter();
    let mut explanations =
        explained.filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?))).collect();
    let incident = show(&live, &identity, &app.people.now(), &mut explanations).ok_or_else(unknown)?;
    // What one may not see stands in no timeline either.
    let whole = incident.is_whole(&live);
    let event = |event: EventRow| EventJson {
        at_ms: event.at_ms,
        kind: event.kind,
        actor: event.actor,
        text: event.text,
    };
    let events = EventRow::all(store, id).await?.into_iter();
    let timeline = events.filter(|_| whole).map(event).collect();
    let filter = OutboxFilter { incident: Some(id), limit: 200, ..OutboxFilter::default() };
    let state = app.alerting.now();
    let messages = Outbox::list(store, filter).await?.into_iter().filter(|_| whole);
    let deliveries = messages.map(|row| DeliveryJson {
        channel: state
            .asked
            .channel(row.channel)
            .map_or("a removed channel", |channel| &channel.name)
            .to_owned(),
        notice: row.notice,
        state: row.state,
        created_ms: row.created_ms,
        due_ms: row.due_ms.max(row.next_ms),
        done_ms: row.done_ms,
        tries: row.tries,
        error: row.error,
    });
    Ok(Json(IncidentDetailJson { incident, timeline, deliveries: deliveries.collect() }))
}

/// Alerts of a host over a time
#[utoipa::path(get, path = "/api/v1/hosts/{id}/alerts", tag = "alerts",
    params(("id" = String, Path, description = "Id or name"), RangeQuery), responses((status = 200, body = HostAlertsJson)))]
pub(crate) async fn of_host(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
    query: Result<Query<RangeQuery>, QueryRejection>,
) -> Result<Json<HostAlertsJson>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request("bad_query", error.body_text()))?;
    let host = params::host(&app, &identity, &id)?;
    let (from_ms, to_ms) = params::range(query.from.as_deref(), query.to.as_deref(), app.clock.wall_ms())?;
    let of = AlertsOf::Host(host.record.id.0, from_ms, to_ms);
    let rows = AlertRow::all(app.alerting.store(), of).await?;
    let alerts = rows.iter().filter_map(Alert::of_row).map(|alert| show_alert(&alert, None)).collect();
    Ok(Json(HostAlertsJson { alerts }))
}
