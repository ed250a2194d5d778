//! People take incidents on, give them back, and say what they know.

use super::alerts::{parse, show, unknown};
use super::body::{JsonBody, OptionalBody};
use crate::alerting::LiveIncident;
use crate::app::App;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alert::incident::{Ack, Notice, Phase};
use perfwatch_model::Span;
use perfwatch_store::alerts::EventRow;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Somebody takes it on.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckWish {
    /// For how long; for as long as it lasts if none.
    lasts: Option<Span>,
    /// What they know.
    #[serde(default)]
    comment: String,
}

/// Something said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommentWish {
    text: String,
}

/// One may change what one sees all of.
async fn visible(app: &App, identity: &Identity, id: &str) -> Result<Uuid, ApiError> {
    let id = parse(id)?;
    let live = app.alerting.find(id).await?.ok_or_else(unknown)?;
    let shown = show(&live, identity, &app.people.now(), &mut HashMap::new()).ok_or_else(unknown)?;
    if shown.is_whole(&live) {
        return Ok(id);
    }
    let why = "this incident is about hosts that you don't see, too";
    Err(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", why))
}

fn said(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    match text.len() {
        0..=4_000 => Ok(text.to_owned()),
        _ => Err(ApiError::unprocessable("invalid_comment", "no more than 4,000 bytes")),
    }
}

fn over(live: &LiveIncident) -> Result<(), ApiError> {
    match live.incident.phase {
        Phase::Closed => Err(ApiError::conflict("over", "this incident is over")),
        _ => Ok(()),
    }
}

/// Takes an incident on
#[utoipa::path(post, path = "/api/v1/alerts/{id}/ack", tag = "alerts", params(("id" = String, Path)),
    request_body = Option<AckWish>, responses((status = 204), (status = 409), (status = 422)))]
pub(crate) async fn acknowledge(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    OptionalBody(wish): OptionalBody<AckWish>,
) -> Result<StatusCode, ApiError> {
    let id = visible(&app, &doer.identity, &id).await?;
    let wish = wish.unwrap_or_default();
    let comment = said(&wish.comment)?;
    let actor = doer.identity.actor();
    let entry = doer.did("alert.acknowledge", format!("incident {id}"));
    let change = |live: &mut LiveIncident, now_ms: i64| {
        over(live)?;
        let until_ms =
            wish.lasts.filter(|lasts| lasts.ms() > 0).map(|lasts| now_ms.saturating_add(lasts.ms()));
        live.incident.ack = Some(Ack { by: actor.clone(), at_ms: now_ms, until_ms });
        let mut text = match wish.lasts.filter(|_| until_ms.is_some()) {
            Some(lasts) => format!("takes it on for {lasts}"),
            None => "takes it on".to_owned(),
        };
        if !comment.is_empty() {
            text = format!("{text}: {comment}");
        }
        Ok::<_, ApiError>((
            EventRow {
                incident: id,
                at_ms: now_ms,
                kind: "acknowledged".to_owned(),
                actor: actor.clone(),
                text,
            },
            None,
        ))
    };
    changed(app.alerting.change_incident(id, Some(entry), change).await?)
}

/// What is over for long is not on the board any more.
fn changed(known: bool) -> Result<StatusCode, ApiError> {
    match known {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::conflict("over", "this incident is over")),
    }
}

/// Gives an incident back
#[utoipa::path(delete, path = "/api/v1/alerts/{id}/ack", tag = "alerts", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn unacknowledge(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = visible(&app, &doer.identity, &id).await?;
    let actor = doer.identity.actor();
    let entry = doer.did("alert.unacknowledge", format!("incident {id}"));
    let change = |live: &mut LiveIncident, now_ms: i64| {
        over(live)?;
        live.incident.ack = None;
        let text = "gives it back".to_owned();
        // Reminders and escalation begin anew.
        let tells = live.incident.told.then_some(Notice::Reminder);
        Ok::<_, ApiError>((
            EventRow {
                incident: id,
                at_ms: now_ms,
                kind: "unacknowledged".to_owned(),
                actor: actor.clone(),
                text,
            },
            tells,
        ))
    };
    changed(app.alerting.change_incident(id, Some(entry), change).await?)
}

/// Says something about an incident
#[utoipa::path(post, path = "/api/v1/alerts/{id}/comments", tag = "alerts", params(("id" = String, Path)),
    request_body = CommentWish, responses((status = 204), (status = 409), (status = 422)))]
pub(crate) async fn comment(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<CommentWish>,
) -> Result<StatusCode, ApiError> {
    let id = visible(&app, &doer.identity, &id).await?;
    let text = said(&wish.text)?;
    if text.is_empty() {
        return Err(ApiError::unprocessable("invalid_comment", "say something"));
    }
    let event = EventRow {
        incident: id,
        at_ms: app.clock.wall_ms(),
        kind: "comment".to_owned(),
        actor: doer.identity.actor(),
        text,
    };
    app.alerting.note(event).await?;
    Ok(StatusCode::NO_CONTENT)
}
