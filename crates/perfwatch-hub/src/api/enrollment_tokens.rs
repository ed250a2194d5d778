//! `/api/v1/enrollment-tokens`: what lets agents in for the first time.

use crate::app::App;
use crate::config::BaseUrl;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use perfwatch_auth::{Identity, secret};
use perfwatch_model::limits;
use perfwatch_store::agents::EnrollmentToken;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
/// A year.
const MAX_EXPIRY_HOURS: i64 = 366 * 24;
const MAX_ENROLLMENT_TOKENS: usize = 1_000;

/// What lets agents in, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrollmentTokenResponse {
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
pub(crate) struct EnrollmentTokenListResponse {
    enrollment_tokens: Vec<EnrollmentTokenResponse>,
}

fn to_response(enrolment: &EnrollmentToken) -> EnrollmentTokenResponse {
    EnrollmentTokenResponse {
        id: enrolment.id,
        name: enrolment.name.clone(),
        tags: enrolment.tags.clone(),
        uses_left: enrolment.uses_left,
        created_by: enrolment.created_by.clone(),
        created_ms: enrolment.created_ms,
        expires_ms: enrolment.expires_ms,
    }
}

/// List valid enrollment tokens
#[utoipa::path(get, path = "/api/v1/enrollment-tokens", tag = "agents", responses((status = 200, body = EnrollmentTokenListResponse)))]
pub(crate) async fn list_enrollment_tokens(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<EnrollmentTokenListResponse> {
    let now_ms = app.clock.wall_ms();
    let now = app.directory.snapshot();
    let good = now.enrollment_tokens.values().filter(|one| one.uses_left > 0 && one.expires_ms > now_ms);
    let good = good.filter(|one| tags_in_scope(&identity, &one.tags));
    let mut enrolments: Vec<EnrollmentTokenResponse> = good.map(to_response).collect();
    enrolments.sort_by_key(|one| -one.created_ms);
    Json(EnrollmentTokenListResponse { enrollment_tokens: enrolments })
}

/// Who is limited to hosts by tags lets others in with these alone.
fn tags_in_scope(identity: &Identity, tags: &[String]) -> bool {
    identity.host_tags.is_empty()
        || (!tags.is_empty() && tags.iter().all(|tag| identity.host_tags.contains(tag)))
}

fn default_uses() -> i64 {
    1
}

fn default_expiry_hours() -> i64 {
    24
}

/// A new enrolment token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateEnrollmentTokenRequest {
    /// What it is for.
    name: String,
    /// Of the hosts that come in by it.
    #[serde(default)]
    tags: Vec<String>,
    /// How many agents may come.
    #[serde(default = "default_uses")]
    #[schema(minimum = 1, maximum = 10000)]
    uses: i64,
    #[serde(default = "default_expiry_hours")]
    #[schema(minimum = 1, maximum = 8784)]
    expires_in_hours: i64,
}

/// An enrolment token; it is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedEnrollmentToken {
    token: String,
    /// To paste into a shell of the machine that is to be watched.
    command: String,
    #[serde(flatten)]
    made: EnrollmentTokenResponse,
}

/// Create an enrollment token
#[utoipa::path(post, path = "/api/v1/enrollment-tokens", tag = "agents", request_body = CreateEnrollmentTokenRequest,
    responses((status = 201, body = CreatedEnrollmentToken), (status = 409), (status = 422)))]
pub(crate) async fn create_enrollment_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Extension(site): Extension<BaseUrl>,
    JsonBody(wish): JsonBody<CreateEnrollmentTokenRequest>,
) -> Result<(StatusCode, Json<CreatedEnrollmentToken>), ApiError> {
    let name = query::validate_label(&wish.name)?;
    let invalid = |why: String| Err(ApiError::unprocessable("invalid_enrollment_request", why));
    if !(1..=limits::MAX_HOSTS as i64).contains(&wish.uses) {
        return invalid(format!("uses must be between 1 and {}", limits::MAX_HOSTS));
    }
    if !(1..=MAX_EXPIRY_HOURS).contains(&wish.expires_in_hours) {
        return invalid(format!("it lasts 1 to {MAX_EXPIRY_HOURS} hours"));
    }
    let tags = query::validate_tags(&wish.tags)?;
    if !tags_in_scope(&actor.identity, &tags) {
        let own = actor.identity.host_tags.join(", ");
        return invalid(format!("tags must be among your host tags ({own})"));
    }
    let text = secret::generate(secret::SecretKind::EnrollmentToken);
    let now_ms = app.clock.wall_ms();
    let enrolment = EnrollmentToken {
        id: Uuid::now_v7(),
        hash: secret::hash_secret(&text),
        name,
        tags,
        uses_left: wish.uses,
        created_by: actor.identity.actor_name(),
        created_ms: now_ms,
        expires_ms: now_ms + wish.expires_in_hours * HOUR_MS,
    };
    let turn = app.directory.begin_write().await?;
    if app.directory.snapshot().enrollment_tokens.len() >= MAX_ENROLLMENT_TOKENS {
        return Err(ApiError::conflict(
            "too_many_enrollment_tokens",
            "the limit of enrollment tokens is reached; revoke some first",
        ));
    }
    let made = to_response(&enrolment);
    let entry = actor.audit_change(
        "enrollment_token.create",
        format!("enrolment {}", enrolment.name),
        None,
        Some(&made),
    );
    turn.commit([enrolment.insert()], Some(entry)).await?;
    let command = super::install::command(&site, &text)?;
    Ok((StatusCode::CREATED, Json(CreatedEnrollmentToken { token: text, command, made })))
}

/// Revoke an enrollment token
#[utoipa::path(delete, path = "/api/v1/enrollment-tokens/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn delete_enrollment_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let now = app.directory.snapshot();
    let enrolment = now.enrollment_tokens.values().find(|one| one.id.to_string() == id);
    let enrolment = enrolment.filter(|one| tags_in_scope(&actor.identity, &one.tags));
    let enrolment = enrolment.ok_or_else(|| ApiError::not_found("there is no such enrolment token"))?;
    let was = to_response(enrolment);
    let entry = actor.audit_change(
        "enrollment_token.delete",
        format!("enrolment {}", enrolment.name),
        Some(&was),
        None,
    );
    turn.commit([EnrollmentToken::delete(enrolment.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
