//! `/api/v1/enrolments`: what lets agents in for the first time.

use super::body::JsonBody;
use super::params;
use crate::app::App;
use crate::auth::{Doer, Identity, secret};
use crate::config::Site;
use crate::error::ApiError;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use perfwatch_model::limits;
use perfwatch_store::people::Enrolment;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
/// A year.
const MOST_HOURS: i64 = 366 * 24;
const MOST: usize = 1_000;

/// What lets agents in, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrolmentJson {
    id: Uuid,
    name: String,
    /// Of the hosts that come in by it.
    tags: Vec<String>,
    uses_left: i64,
    created_by: String,
    created_ms: i64,
    expires_ms: i64,
}

/// What lets agents in.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrolmentsJson {
    enrolments: Vec<EnrolmentJson>,
}

fn show(enrolment: &Enrolment) -> EnrolmentJson {
    EnrolmentJson {
        id: enrolment.id,
        name: enrolment.name.clone(),
        tags: enrolment.tags.clone(),
        uses_left: enrolment.uses_left,
        created_by: enrolment.created_by.clone(),
        created_ms: enrolment.created_ms,
        expires_ms: enrolment.expires_ms,
    }
}

/// Enrolment tokens that are good
#[utoipa::path(get, path = "/api/v1/enrolments", tag = "agents", responses((status = 200, body = EnrolmentsJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, identity: Identity) -> Json<EnrolmentsJson> {
    let now_ms = app.clock.wall_ms();
    let now = app.people.now();
    let good = now.enrolments.values().filter(|one| one.uses_left > 0 && one.expires_ms > now_ms);
    let good = good.filter(|one| within(&identity, &one.tags));
    let mut enrolments: Vec<EnrolmentJson> = good.map(show).collect();
    enrolments.sort_by_key(|one| -one.created_ms);
    Json(EnrolmentsJson { enrolments })
}

/// Who is limited to hosts by tags lets others in with these alone.
fn within(identity: &Identity, tags: &[String]) -> bool {
    identity.host_tags.is_empty()
        || (!tags.is_empty() && tags.iter().all(|tag| identity.host_tags.contains(tag)))
}

fn one() -> i64 {
    1
}

fn a_day() -> i64 {
    24
}

/// A new enrolment token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEnrolment {
    /// What it is for.
    name: String,
    /// Of the hosts that come in by it.
    #[serde(default)]
    tags: Vec<String>,
    /// How many agents may come.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10000)]
    uses: i64,
    #[serde(default = "a_day")]
    #[schema(minimum = 1, maximum = 8784)]
    expires_in_hours: i64,
}

/// An enrolment token; it is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeEnrolment {
    token: String,
    /// To paste into a shell of the machine that is to be watched.
    command: String,
    #[serde(flatten)]
    made: EnrolmentJson,
}

/// Makes a token that lets agents in
#[utoipa::path(post, path = "/api/v1/enrolments", tag = "agents", request_body = NewEnrolment,
    responses((status = 201, body = MadeEnrolment), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    Extension(site): Extension<Site>,
    JsonBody(wish): JsonBody<NewEnrolment>,
) -> Result<(StatusCode, Json<MadeEnrolment>), ApiError> {
    let name = params::label(&wish.name)?;
    let invalid = |why: String| Err(ApiError::unprocessable("invalid_enrolment", why));
    if !(1..=limits::HOSTS as i64).contains(&wish.uses) {
        return invalid(format!("it lets in 1 to {} agents", limits::HOSTS));
    }
    if !(1..=MOST_HOURS).contains(&wish.expires_in_hours) {
        return invalid(format!("it lasts 1 to {MOST_HOURS} hours"));
    }
    let tags = params::tags(&wish.tags)?;
    if !within(&doer.identity, &tags) {
        let own = doer.identity.host_tags.join(", ");
        return invalid(format!("you see hosts tagged {own}: give it one of these, and no other"));
    }
    let text = secret::generate(secret::Kind::Enrolment);
    let now_ms = app.clock.wall_ms();
    let enrolment = Enrolment {
        id: Uuid::now_v7(),
        hash: secret::hash(&text),
        name,
        tags,
        uses_left: wish.uses,
        created_by: doer.identity.actor(),
        created_ms: now_ms,
        expires_ms: now_ms + wish.expires_in_hours * HOUR_MS,
    };
    let turn = app.people.turn().await?;
    if app.people.now().enrolments.len() >= MOST {
        return Err(ApiError::conflict("too_many_enrolments", "remove some enrolment tokens first"));
    }
    let made = show(&enrolment);
    let entry = doer.changed("enrolment.create", format!("enrolment {}", enrolment.name), None, Some(&made));
    turn.commit([enrolment.add()], Some(entry)).await?;
    let command = super::install::command(&site, &text)?;
    Ok((StatusCode::CREATED, Json(MadeEnrolment { token: text, command, made })))
}

/// Ends an enrolment token; agents that came by it stay
#[utoipa::path(delete, path = "/api/v1/enrolments/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let now = app.people.now();
    let enrolment = now.enrolments.values().find(|one| one.id.to_string() == id);
    let enrolment = enrolment.filter(|one| within(&doer.identity, &one.tags));
    let enrolment = enrolment.ok_or_else(|| ApiError::not_found("there is no such enrolment token"))?;
    let was = show(enrolment);
    let entry = doer.changed("enrolment.remove", format!("enrolment {}", enrolment.name), Some(&was), None);
    turn.commit([Enrolment::remove(enrolment.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
