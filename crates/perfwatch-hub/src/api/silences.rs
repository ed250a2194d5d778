//! `/api/v1/silences`: when nobody is told.

use super::body::JsonBody;
use super::params;
use crate::alerting::{MOST_SILENCES, Planned, State as Alerts, body};
use crate::app::App;
use crate::auth::{Doer, Identity};
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_alert::calendar::Weekly;
use perfwatch_alert::silence::{Matcher, Silence};
use perfwatch_model::HostId;
use perfwatch_store::alerts::Noun;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A silence, and whether it holds now.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilenceJson {
    silence: Silence,
    holds: bool,
    /// Over for good.
    over: bool,
}

/// Silences.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilencesJson {
    silences: Vec<SilenceJson>,
}

/// A silence that somebody wants.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SilenceWish {
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
    weekly: Option<Weekly>,
}

fn show(silence: &Silence, now_ms: i64) -> SilenceJson {
    SilenceJson {
        silence: silence.clone(),
        holds: silence.holds(now_ms),
        over: silence.ends_ms.is_some_and(|ends| ends <= now_ms),
    }
}

/// All silences, those that are over for long apart
#[utoipa::path(get, path = "/api/v1/silences", tag = "silences", responses((status = 200, body = SilencesJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, identity: Identity) -> Json<SilencesJson> {
    let now_ms = app.clock.wall_ms();
    let everyone = app.people.now();
    // Of hosts that one does not see, one sees no silence.
    let sees = |silence: &Silence| {
        let hosts = &silence.matcher.hosts;
        hosts.is_empty() || hosts.iter().any(|host| identity.sees(&everyone, HostId(*host)))
    };
    let state = app.alerting.now();
    let shown = state.asked.silences.iter().filter(|silence| sees(silence));
    let mut silences: Vec<SilenceJson> = shown.map(|silence| show(silence, now_ms)).collect();
    silences.sort_by_key(|one| (one.over, !one.holds, std::cmp::Reverse(one.silence.created_ms)));
    Json(SilencesJson { silences })
}

fn checked(wish: SilenceWish, id: Uuid, by: String, now_ms: i64) -> Result<Silence, ApiError> {
    let invalid = |why: String| ApiError::unprocessable("invalid_silence", why);
    let starts_ms = wish.starts_ms.unwrap_or(now_ms);
    if wish.ends_ms.is_some_and(|ends| ends <= starts_ms) {
        return Err(invalid("it ends before it begins".to_owned()));
    }
    if wish.ends_ms.is_some_and(|ends| ends <= now_ms) {
        return Err(invalid("it would be over already".to_owned()));
    }
    if let Some(why) = wish.weekly.as_ref().and_then(Weekly::problem) {
        return Err(invalid(why));
    }
    let matcher = &wish.matcher;
    if matcher.hosts.len() > 1_000 || matcher.tags.len() > 100 || matcher.rules.len() > MOST_SILENCES {
        return Err(invalid("too many hosts, tags or rules".to_owned()));
    }
    if wish.comment.len() > 1_000 {
        return Err(invalid("a comment has no more than 1,000 bytes".to_owned()));
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

async fn put(app: &App, doer: &Doer, silence: Silence, new: bool) -> Result<SilenceJson, ApiError> {
    let known = |state: &Alerts| state.asked.silences.iter().position(|one| one.id == silence.id);
    let before = app.alerting.now();
    let before = known(&before).map(|at| before.asked.silences[at].clone());
    let action = if new { "silence.create" } else { "silence.change" };
    let entry = doer.changed(action, format!("silence {}", silence.id), before.as_deref(), Some(&silence));
    let plan = |state: &Alerts, now_ms: i64| {
        let (mut asked, mut changes) = (state.asked.clone(), Vec::new());
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
        changes.extend(asked.silences.iter().filter(|one| old(one)).map(|one| Noun::Silence.remove(one.id)));
        asked.silences.retain(|one| !old(one));
        if asked.silences.len() > MOST_SILENCES {
            return Err(ApiError::conflict("too_many", format!("no more than {MOST_SILENCES} silences")));
        }
        let kept = asked.silences.iter().find(|one| one.id == silence.id).cloned();
        let kept =
            kept.ok_or_else(|| ApiError::unprocessable("invalid_silence", "it would be over already"))?;
        changes.push(Noun::Silence.put(kept.id, &body(&*kept)));
        Ok((Planned { asked: Some(asked), changes, board: None }, kept))
    };
    let kept = app.alerting.change(Some(entry), plan).await?;
    Ok(show(&kept, app.clock.wall_ms()))
}

/// A new silence
#[utoipa::path(post, path = "/api/v1/silences", tag = "silences", request_body = SilenceWish,
    responses((status = 201, body = SilenceJson), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<SilenceWish>,
) -> Result<(StatusCode, Json<SilenceJson>), ApiError> {
    params::everywhere(&doer.identity)?;
    let silence = checked(wish, Uuid::now_v7(), doer.identity.actor(), app.clock.wall_ms())?;
    Ok((StatusCode::CREATED, Json(put(&app, &doer, silence, true).await?)))
}

fn parse(id: &str) -> Result<Uuid, ApiError> {
    id.parse().map_err(|_| ApiError::not_found("there is no such silence"))
}

/// Another silence in its place
#[utoipa::path(put, path = "/api/v1/silences/{id}", tag = "silences", params(("id" = String, Path)),
    request_body = SilenceWish, responses((status = 200, body = SilenceJson), (status = 409), (status = 422)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<SilenceWish>,
) -> Result<Json<SilenceJson>, ApiError> {
    params::everywhere(&doer.identity)?;
    let silence = checked(wish, parse(&id)?, doer.identity.actor(), app.clock.wall_ms())?;
    Ok(Json(put(&app, &doer, silence, false).await?))
}

/// Ends a silence: what fires still is told of now
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "silences", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    params::everywhere(&doer.identity)?;
    let id = parse(&id)?;
    let entry = doer.did("silence.remove", format!("silence {id}"));
    let plan = |state: &Alerts, _: i64| {
        let mut asked = state.asked.clone();
        asked.silences.retain(|silence| silence.id != id);
        if asked.silences.len() == state.asked.silences.len() {
            return Err(ApiError::not_found("there is no such silence"));
        }
        Ok((Planned { asked: Some(asked), changes: vec![Noun::Silence.remove(id)], board: None }, ()))
    };
    app.alerting.change(Some(entry), plan).await?;
    Ok(StatusCode::NO_CONTENT)
}
