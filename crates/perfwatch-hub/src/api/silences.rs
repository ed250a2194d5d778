//! `/api/v1/silences`: when nobody is told.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alerting::{AlertingSnapshot as Alerts, MAX_SILENCES, StateChange, to_json};
use perfwatch_auth::Actor;
use perfwatch_model::HostId;
use perfwatch_rules::silence::{Matcher, Silence};
use perfwatch_rules::weekly_window::WeeklyWindow;
use perfwatch_store::definitions::DefinitionKind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A silence, and whether it holds now.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilenceResponse {
    silence: Silence,
    active: bool,
    /// Over for good.
    expired: bool,
}

/// Silences.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilenceListResponse {
    silences: Vec<SilenceResponse>,
}

/// A silence that somebody wants.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SilenceRequest {
    /// Which alerts; all if empty.
    #[serde(default)]
    matcher: Matcher,
    /// Why.
    #[serde(default)]
    comment: String,
    /// From now on if none.
    starts_ms: Option<i64>,
    /// For good if none.
    ends_ms: Option<i64>,
    /// Only in these hours of the week: maintenance.
    weekly: Option<WeeklyWindow>,
}

fn to_response(silence: &Silence, now_ms: i64) -> SilenceResponse {
    SilenceResponse {
        silence: silence.clone(),
        active: silence.is_active(now_ms),
        expired: silence.ends_ms.is_some_and(|ends| ends <= now_ms),
    }
}

/// List silences
#[utoipa::path(get, path = "/api/v1/silences", tag = "silences", responses((status = 200, body = SilenceListResponse)))]
pub(crate) async fn list_silences(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<SilenceListResponse> {
    let now_ms = app.clock.wall_ms();
    let everyone = app.directory.snapshot();
    // Of hosts that one does not see, one sees no silence.
    let sees = |silence: &Silence| {
        let hosts = &silence.matcher.hosts;
        hosts.is_empty() || hosts.iter().any(|host| identity.can_view(&everyone, HostId(*host)))
    };
    let state = app.alerting.snapshot();
    let shown = state.definitions.silences.iter().filter(|silence| sees(silence));
    let mut silences: Vec<SilenceResponse> = shown.map(|silence| to_response(silence, now_ms)).collect();
    silences.sort_by_key(|one| (one.expired, !one.active, std::cmp::Reverse(one.silence.created_ms)));
    Json(SilenceListResponse { silences })
}

fn validate(wish: SilenceRequest, id: Uuid, by: String, now_ms: i64) -> Result<Silence, ApiError> {
    let invalid = |why: String| ApiError::unprocessable("invalid_silence", why);
    let starts_ms = wish.starts_ms.unwrap_or(now_ms);
    if wish.ends_ms.is_some_and(|ends| ends <= starts_ms) {
        return Err(invalid("ends_ms must be after starts_ms".to_owned()));
    }
    if wish.ends_ms.is_some_and(|ends| ends <= now_ms) {
        return Err(invalid("ends_ms is in the past".to_owned()));
    }
    if let Some(why) = wish.weekly.as_ref().and_then(WeeklyWindow::validate) {
        return Err(invalid(why));
    }
    let matcher = &wish.matcher;
    if matcher.hosts.len() > 1_000 || matcher.tags.len() > 100 || matcher.rules.len() > MAX_SILENCES {
        return Err(invalid("too many hosts, tags or rules".to_owned()));
    }
    if wish.comment.len() > 1_000 {
        return Err(invalid("comment must have at most 1,000 bytes".to_owned()));
    }
    Ok(Silence {
        id,
        matcher: wish.matcher,
        comment: wish.comment.trim().to_owned(),
        created_by: by,
        created_ms: now_ms,
        starts_ms,
        ends_ms: wish.ends_ms,
        weekly: wish.weekly,
    })
}

async fn save(app: &App, actor: &Actor, silence: Silence, new: bool) -> Result<SilenceResponse, ApiError> {
    let known = |state: &Alerts| state.definitions.silences.iter().position(|one| one.id == silence.id);
    let before = app.alerting.snapshot();
    let before = known(&before).map(|at| before.definitions.silences[at].clone());
    let action = if new { "silence.create" } else { "silence.update" };
    let entry =
        actor.audit_change(action, format!("silence {}", silence.id), before.as_deref(), Some(&silence));
    let plan = |state: &Alerts, now_ms: i64| {
        let (mut asked, mut changes) = (state.definitions.clone(), Vec::new());
        match (known(state), new) {
            (Some(at), false) => {
                // Who made it stays who made it.
                let (created_by, created_ms) =
                    (asked.silences[at].created_by.clone(), asked.silences[at].created_ms);
                asked.silences[at] = Arc::new(Silence { created_by, created_ms, ..silence.clone() });
            }
            (None, true) => asked.silences.push(Arc::new(silence.clone())),
            _ => return Err(ApiError::not_found("there is no such silence")),
        }
        // Those that have been over for a month make room.
        let old = |one: &Arc<Silence>| one.ends_ms.is_some_and(|ends| ends < now_ms - 30 * 86_400_000);
        changes.extend(
            asked.silences.iter().filter(|one| old(one)).map(|one| DefinitionKind::Silence.delete(one.id)),
        );
        asked.silences.retain(|one| !old(one));
        if asked.silences.len() > MAX_SILENCES {
            return Err(ApiError::conflict("limit_reached", format!("no more than {MAX_SILENCES} silences")));
        }
        let kept = asked.silences.iter().find(|one| one.id == silence.id).cloned();
        let kept =
            kept.ok_or_else(|| ApiError::unprocessable("invalid_silence", "ends_ms is in the past"))?;
        changes.push(DefinitionKind::Silence.upsert(kept.id, &to_json(&*kept)));
        Ok((StateChange { definitions: Some(asked), statements: changes, incidents: None }, kept))
    };
    let kept = app.alerting.update(Some(entry), plan).await?;
    Ok(to_response(&kept, app.clock.wall_ms()))
}

/// Create a silence
#[utoipa::path(post, path = "/api/v1/silences", tag = "silences", request_body = SilenceRequest,
    responses((status = 201, body = SilenceResponse), (status = 409), (status = 422)))]
pub(crate) async fn create_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<SilenceRequest>,
) -> Result<(StatusCode, Json<SilenceResponse>), ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let silence = validate(wish, Uuid::now_v7(), actor.identity.actor_name(), app.clock.wall_ms())?;
    Ok((StatusCode::CREATED, Json(save(&app, &actor, silence, true).await?)))
}

fn parse_id(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("there is no such silence"))
}

/// Replace a silence
#[utoipa::path(put, path = "/api/v1/silences/{id}", tag = "silences", params(("id" = String, Path)),
    request_body = SilenceRequest, responses((status = 200, body = SilenceResponse), (status = 409), (status = 422)))]
pub(crate) async fn update_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<SilenceRequest>,
) -> Result<Json<SilenceResponse>, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let silence = validate(wish, parse_id(&id)?, actor.identity.actor_name(), app.clock.wall_ms())?;
    Ok(Json(save(&app, &actor, silence, false).await?))
}

/// Expire a silence
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "silences", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_silence(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    query::require_all_hosts(&actor.identity)?;
    let id = parse_id(&id)?;
    let entry = actor.audit("silence.delete", format!("silence {id}"));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.definitions.clone();
        asked.silences.retain(|silence| silence.id != id);
        if asked.silences.len() == state.definitions.silences.len() {
            return Err(ApiError::not_found("there is no such silence"));
        }
        Ok((
            StateChange {
                definitions: Some(asked),
                statements: vec![DefinitionKind::Silence.delete(id)],
                incidents: None,
            },
            (),
        ))
    };
    app.alerting.update(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
