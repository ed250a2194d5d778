//! Acknowledgment of incidents and comments.

use super::{incident_not_found, parse_id};
use crate::app::App;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alerting::OpenIncident;
use perfwatch_alerting::response::to_response;
use perfwatch_auth::Identity;
use perfwatch_http::body::{JsonBody, OptionalBody};
use perfwatch_http::params::validate_comment;
use perfwatch_http::{ApiError, Audited};
use perfwatch_model::{HumanDuration, limit_table, limits};
use perfwatch_rules::incident::{Ack, IncidentPhase, NotificationReason};
use perfwatch_store::incidents::{IncidentEventKind, IncidentEventRow};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

const MAX_COMMENT_BYTES: usize = 4_000;

/// Acknowledgment of an incident.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckRequest {
    /// Time until the acknowledgment expires; until the incident is resolved if missing.
    duration: Option<HumanDuration>,
    /// Comment for the timeline, at most 4,000 bytes.
    #[serde(default)]
    comment: String,
}

/// Comment on an incident.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommentRequest {
    /// Text for the timeline, 1 to 4,000 bytes.
    text: String,
}

/// Id of an incident that the caller may change.
///
/// # Errors
/// Returns `forbidden` if the incident contains alerts that the caller cannot view.
async fn require_visible(app: &App, identity: &Identity, id: &str) -> Result<Uuid, ApiError> {
    let id = parse_id(id)?;
    let open = app.alerting.get(id).await?.ok_or_else(incident_not_found)?;
    let response = to_response(&open, identity, &app.directory.snapshot(), &mut HashMap::new())
        .ok_or_else(incident_not_found)?;
    if response.is_complete(&open) {
        return Ok(id);
    }
    let message = "this incident includes hosts that you cannot access";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// Checks that the caller may add entries to the timeline of an incident.
///
/// # Errors
/// Returns `too_many_entries` for an account or a token with many entries.
async fn require_entries_left(app: &App, identity: &Identity, id: Uuid) -> Result<(), ApiError> {
    let count = IncidentEventRow::count_of_actor(app.alerting.store(), id, &identity.actor_name()).await?;
    if count < limits::MAX_INCIDENT_ENTRIES_PER_ACTOR {
        return Ok(());
    }
    limit_table::INCIDENT_ENTRIES.refuse();
    let message = format!(
        "you added {} entries to this incident, which is the limit",
        limits::MAX_INCIDENT_ENTRIES_PER_ACTOR
    );
    Err(ApiError::conflict("too_many_entries", &message))
}

fn require_open(open: &OpenIncident) -> Result<(), ApiError> {
    match open.incident.phase {
        IncidentPhase::Resolved => {
            Err(ApiError::conflict("incident_resolved", "this incident is already resolved"))
        }
        _ => Ok(()),
    }
}

/// Acknowledge an incident
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/ack", tag = "incidents",
    params(("id" = String, Path, description = "Id of the incident")),
    request_body = Option<AckRequest>,
    responses((status = 204), (status = 409), (status = 422)),
)]
pub(crate) async fn acknowledge(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<AckRequest>,
) -> Result<StatusCode, ApiError> {
    let id = require_visible(&app, &actor.identity, &id).await?;
    require_entries_left(&app, &actor.identity, id).await?;
    let request = request.unwrap_or_default();
    let comment = validate_comment(&request.comment, MAX_COMMENT_BYTES)?;
    let actor_name = actor.identity.actor_name();
    let entry = actor.audit_change("incident.acknowledge", format!("incident {id}"), None, Some(&request));
    let change = |open: &mut OpenIncident, now_ms: i64| {
        require_open(open)?;
        let until_ms = request
            .duration
            .filter(|duration| duration.ms() > 0)
            .map(|duration| now_ms.saturating_add(duration.ms()));
        open.incident.ack = Some(Ack { by: actor_name.clone(), at_ms: now_ms, until_ms });
        let mut text = match request.duration.filter(|_| until_ms.is_some()) {
            Some(duration) => format!("acknowledged for {duration}"),
            None => "acknowledged".to_owned(),
        };
        if !comment.is_empty() {
            text = format!("{text}: {comment}");
        }
        Ok::<_, ApiError>((
            IncidentEventRow {
                incident: id,
                at_ms: now_ms,
                kind: IncidentEventKind::Acknowledged,
                actor: actor_name.clone(),
                text,
            },
            None,
        ))
    };
    not_open_unless(app.alerting.update_incident(id, Some((&actor, entry)), change).await?)
}

/// `204`, or a conflict if the incident was resolved and is no longer in memory.
fn not_open_unless(is_open: bool) -> Result<StatusCode, ApiError> {
    match is_open {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::conflict("incident_resolved", "this incident is already resolved")),
    }
}

/// Remove an acknowledgment
#[utoipa::path(
    delete, path = "/api/v1/incidents/{id}/ack", tag = "incidents",
    params(("id" = String, Path, description = "Id of the incident")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn unacknowledge(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = require_visible(&app, &actor.identity, &id).await?;
    require_entries_left(&app, &actor.identity, id).await?;
    let actor_name = actor.identity.actor_name();
    let entry = actor.audit("incident.unacknowledge", format!("incident {id}"));
    let change = |open: &mut OpenIncident, now_ms: i64| {
        require_open(open)?;
        open.incident.ack = None;
        let text = "acknowledgment removed".to_owned();
        // Restarts reminders and escalation.
        let reason = open.incident.notified.then_some(NotificationReason::Reminder);
        Ok::<_, ApiError>((
            IncidentEventRow {
                incident: id,
                at_ms: now_ms,
                kind: IncidentEventKind::Unacknowledged,
                actor: actor_name.clone(),
                text,
            },
            reason,
        ))
    };
    not_open_unless(app.alerting.update_incident(id, Some((&actor, entry)), change).await?)
}

/// Add a comment
#[utoipa::path(
    post, path = "/api/v1/incidents/{id}/comments", tag = "incidents",
    params(("id" = String, Path, description = "Id of the incident")),
    request_body = CommentRequest,
    responses((status = 204), (status = 409), (status = 422)),
)]
pub(crate) async fn comment(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<CommentRequest>,
) -> Result<StatusCode, ApiError> {
    let id = require_visible(&app, &actor.identity, &id).await?;
    require_entries_left(&app, &actor.identity, id).await?;
    let text = validate_comment(&request.text, MAX_COMMENT_BYTES)?;
    if text.is_empty() {
        return Err(ApiError::unprocessable("invalid_comment", "comment must not be empty"));
    }
    let event = IncidentEventRow {
        incident: id,
        at_ms: app.clock.wall_ms(),
        kind: IncidentEventKind::Comment,
        actor: actor.identity.actor_name(),
        text,
    };
    let entry = actor.audit("incident.comment", format!("incident {id}"));
    app.alerting.add_event((&actor, entry), event).await?;
    Ok(StatusCode::NO_CONTENT)
}
