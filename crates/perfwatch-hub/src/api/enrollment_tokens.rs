//! `/api/v1/enrollment-tokens`: tokens with which agents enroll.

use crate::app::App;
use crate::host_access;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use perfwatch_auth::{Identity, secret};
use perfwatch_http::body::JsonBody;
use perfwatch_http::install_script::{self, InstallCommands};
use perfwatch_http::public_address::BaseUrl;
use perfwatch_http::{ApiError, Audited, Caller, params};
use perfwatch_model::{HostId, limits};
use perfwatch_store::Transaction;
use perfwatch_store::agents::EnrollmentToken;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
/// Maximum lifetime of a token: one year.
const MAX_EXPIRY_HOURS: i64 = 366 * 24;
/// Maximum number of stored tokens, expired tokens included.
const MAX_ENROLLMENT_TOKENS: usize = 1_000;

/// Enrollment token without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrollmentTokenResponse {
    id: Uuid,
    name: String,
    /// Tags of hosts that enroll with the token.
    tags: Vec<String>,
    /// Number of agents that can still enroll.
    uses_left: i64,
    /// User or token that created the token.
    created_by: String,
    created_ms: i64,
    expires_ms: i64,
    /// Existing host that the token enrolls again; `null` for new hosts.
    #[schema(value_type = Option<String>, format = Uuid)]
    host: Option<HostId>,
}

/// Valid enrollment tokens, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrollmentTokenListResponse {
    enrollment_tokens: Vec<EnrollmentTokenResponse>,
}

fn to_response(token: &EnrollmentToken) -> EnrollmentTokenResponse {
    EnrollmentTokenResponse {
        id: token.id,
        name: token.name.clone(),
        tags: token.tags.clone(),
        uses_left: token.uses_left,
        created_by: token.created_by.clone(),
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        host: token.host,
    }
}

/// List valid enrollment tokens
#[utoipa::path(
    get, path = "/api/v1/enrollment-tokens", tag = "agents",
    responses((status = 200, body = EnrollmentTokenListResponse)),
)]
pub(crate) async fn list_enrollment_tokens(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<EnrollmentTokenListResponse> {
    let now_ms = app.clock.wall_ms();
    let auth_snapshot = app.directory.snapshot();
    let tokens = auth_snapshot.enrollment_tokens.values();
    let valid = tokens.filter(|token| token.uses_left > 0 && token.expires_ms > now_ms);
    let visible = valid.filter(|token| is_in_scope(&app, &identity, token));
    let mut enrollment_tokens: Vec<EnrollmentTokenResponse> = visible.map(to_response).collect();
    enrollment_tokens.sort_by_key(|token| -token.created_ms);
    Json(EnrollmentTokenListResponse { enrollment_tokens })
}

/// Returns whether the caller may manage the token: for a host that the caller may see, or with tags in scope.
fn is_in_scope(app: &App, identity: &Identity, token: &EnrollmentToken) -> bool {
    match token.host {
        Some(host) => identity.can_view(&app.directory.snapshot(), host),
        None => identity.includes_scope(&token.tags),
    }
}

fn default_uses() -> i64 {
    1
}

fn default_expiry_hours() -> i64 {
    24
}

/// Settings of a new enrollment token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateEnrollmentTokenRequest {
    /// Label of the token.
    name: String,
    /// Tags of hosts that enroll with the token.
    #[serde(default)]
    tags: Vec<String>,
    /// Number of agents that may enroll.
    #[serde(default = "default_uses")]
    #[schema(minimum = 1, maximum = 10000)]
    uses: i64,
    /// Lifetime in hours.
    #[serde(default = "default_expiry_hours")]
    #[schema(minimum = 1, maximum = 8784)]
    expires_in_hours: i64,
    /// Id or name of an existing host to enroll again, for one use and without tags.
    #[serde(default)]
    host: Option<String>,
}

/// New enrollment token; the secret is returned only here.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedEnrollmentToken {
    /// Secret of the token (`pwe_`).
    #[serde(rename = "token")]
    secret: String,
    /// Shell command that installs and enrolls the agent on a host.
    command: String,
    /// The same with the SHA-256 of the script: for plain HTTP, where others could change it on the way.
    verified_command: String,
    #[serde(flatten)]
    token: EnrollmentTokenResponse,
}

/// Host to enroll again: one that the caller may see, and whose agents the caller may therefore revoke. A
/// deleted host is known by its agents.
fn known_host(app: &App, identity: &Identity, host: &str) -> Result<HostId, ApiError> {
    let auth_snapshot = app.directory.snapshot();
    let of_agent = host.parse().ok().filter(|id: &HostId| {
        auth_snapshot.agents.values().any(|agent| agent.host == *id) && identity.can_view(&auth_snapshot, *id)
    });
    of_agent.map_or_else(|| Ok(host_access::host(app, identity, host)?.record.id), Ok)
}

/// Create an enrollment token
#[utoipa::path(
    post, path = "/api/v1/enrollment-tokens", tag = "agents",
    request_body = CreateEnrollmentTokenRequest,
    responses((status = 201, body = CreatedEnrollmentToken), (status = 404), (status = 409), (status = 422)),
)]
pub(crate) async fn create_enrollment_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Extension(base_url): Extension<BaseUrl>,
    JsonBody(request): JsonBody<CreateEnrollmentTokenRequest>,
) -> Result<(StatusCode, Json<CreatedEnrollmentToken>), ApiError> {
    let name = params::validate_label(&request.name)?;
    let invalid = |message: String| Err(ApiError::unprocessable("invalid_enrollment_request", message));
    if !(1..=limits::MAX_HOSTS as i64).contains(&request.uses) {
        return invalid(format!("uses must be between 1 and {}", limits::MAX_HOSTS));
    }
    if !(1..=MAX_EXPIRY_HOURS).contains(&request.expires_in_hours) {
        return invalid(format!("expires_in_hours must be between 1 and {MAX_EXPIRY_HOURS}"));
    }
    let tags = params::validate_tags(&request.tags)?;
    let host = match &request.host {
        Some(host) => Some(known_host(&app, &actor.identity, host)?),
        None => None,
    };
    if host.is_some() && (request.uses != 1 || !tags.is_empty()) {
        return invalid("a token for an existing host has one use and no tags".to_owned());
    }
    if host.is_none() && !actor.identity.includes_scope(&tags) {
        let host_tags = actor.identity.host_tags.join(", ");
        return invalid(format!("tags must be among your host tags ({host_tags})"));
    }
    let secret = secret::generate(secret::SecretKind::EnrollmentToken);
    let InstallCommands { command, verified_command } =
        install_script::commands(&base_url.0, &app.config.downloads, &secret).await?;
    let now_ms = app.clock.wall_ms();
    // Ends with the API token that creates it.
    let auth_snapshot = app.directory.snapshot();
    let creator = auth_snapshot.tokens.values().find(|token| Some(token.id) == actor.identity.token_id());
    let creator_expires_ms = creator.and_then(|token| token.expires_ms).unwrap_or(i64::MAX);
    let token = EnrollmentToken {
        id: Uuid::now_v7(),
        hash: secret::hash_secret(&secret),
        name,
        tags,
        uses_left: request.uses,
        created_by: actor.identity.actor_name(),
        created_by_token: actor.identity.token_id(),
        created_ms: now_ms,
        expires_ms: (now_ms + request.expires_in_hours * HOUR_MS).min(creator_expires_ms),
        host,
    };
    let guard = app.directory.begin_write(&actor).await?;
    let max_tokens = actor.identity.max_objects(MAX_ENROLLMENT_TOKENS);
    if app.directory.snapshot().enrollment_tokens.len() >= max_tokens {
        return Err(ApiError::conflict(
            "too_many_enrollment_tokens",
            "the limit of enrollment tokens is reached; revoke some first",
        ));
    }
    let response = to_response(&token);
    let entry = actor.audit_change(
        "enrollment_token.create",
        format!("enrollment token {}", token.name),
        None,
        Some(&response),
    );
    guard.commit(Transaction::build(|tx| tx.enrollment_tokens().insert(&token)), Some(entry)).await?;
    let created = CreatedEnrollmentToken { secret, command, verified_command, token: response };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revoke an enrollment token
#[utoipa::path(
    delete, path = "/api/v1/enrollment-tokens/{id}", tag = "agents",
    params(("id" = String, Path, description = "Id of the enrollment token")),
    responses((status = 204)),
)]
pub(crate) async fn delete_enrollment_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = app.directory.begin_write(&actor).await?;
    let auth_snapshot = app.directory.snapshot();
    let token = auth_snapshot.enrollment_tokens.values().find(|token| token.id.to_string() == id);
    let token = token.filter(|token| is_in_scope(&app, &actor.identity, token));
    let token = token.ok_or_else(|| ApiError::not_found("enrollment token not found"))?;
    let before = to_response(token);
    let entry = actor.audit_change(
        "enrollment_token.delete",
        format!("enrollment token {}", token.name),
        Some(&before),
        None,
    );
    guard.commit(Transaction::build(|tx| tx.enrollment_tokens().delete(token.id)), Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
