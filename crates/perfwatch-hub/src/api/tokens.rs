//! `/api/v1/tokens`: one's own tokens, for scripts.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use crate::http::query;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::identity::validate_scope;
use perfwatch_auth::{Identity, secret};
use perfwatch_store::accounts::{Role, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Tokens of one account.
const MAX_TOKENS_PER_ACCOUNT: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// A token of a script, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenResponse {
    id: Uuid,
    name: String,
    /// `ingest` only sends snapshots; else a role.
    scope: String,
    created_ms: i64,
    expires_ms: Option<i64>,
    last_used_ms: Option<i64>,
}

/// List your API tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenListResponse {
    tokens: Vec<TokenResponse>,
}

fn to_response(token: &Token) -> TokenResponse {
    TokenResponse {
        id: token.id,
        name: token.name.clone(),
        scope: token.scope.clone(),
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        last_used_ms: token.last_used_ms,
    }
}

fn tokens_of_caller(app: &App, identity: &Identity) -> Vec<Token> {
    let now = app.directory.snapshot();
    let mut tokens: Vec<Token> =
        now.tokens.values().filter(|token| Some(token.account) == identity.account_id()).cloned().collect();
    tokens.sort_by_key(|token| token.created_ms);
    tokens
}

/// List your API tokens
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = TokenListResponse)))]
pub(crate) async fn list_tokens(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Json<TokenListResponse> {
    Json(TokenListResponse { tokens: tokens_of_caller(&app, &identity).iter().map(to_response).collect() })
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTokenRequest {
    /// What it is for.
    name: String,
    /// `viewer`, `operator`, `admin`, or `ingest` to only send snapshots.
    scope: String,
    /// Without it, it does not end by itself.
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<i64>,
}

/// A token; it is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    token: String,
    #[serde(flatten)]
    made: TokenResponse,
}

/// Create an API token
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = CreateTokenRequest,
    responses((status = 201, body = CreatedToken), (status = 409), (status = 422)))]
pub(crate) async fn create_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<CreateTokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let name = query::validate_label(&wish.name)?;
    let invalid = |why: String| Err(ApiError::unprocessable("invalid_token", why));
    let role = actor.identity.role.unwrap_or(Role::Viewer);
    if let Some(why) = validate_scope(&wish.scope, role) {
        return invalid(why);
    }
    if wish.expires_in_days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        return invalid("expires_in_days must be between 1 and 3,650, or omitted".to_owned());
    }
    let text = secret::generate(secret::SecretKind::Token);
    let now_ms = app.clock.wall_ms();
    let account = actor.identity.account_id().ok_or(perfwatch_auth::AuthError::Unauthenticated)?;
    let token = Token {
        expires_ms: wish.expires_in_days.map(|days| now_ms + days * DAY_MS),
        ..Token::new(secret::hash_secret(&text), account, name, wish.scope, now_ms)
    };
    let turn = app.directory.begin_write().await?;
    if tokens_of_caller(&app, &actor.identity).len() >= MAX_TOKENS_PER_ACCOUNT {
        return Err(ApiError::conflict(
            "too_many_tokens",
            format!("no more than {MAX_TOKENS_PER_ACCOUNT} tokens; remove one first"),
        ));
    }
    let made = to_response(&token);
    let entry = actor.audit_change("token.create", format!("token {}", token.name), None, Some(&made));
    turn.commit([token.insert()], Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token: text, made })))
}

/// Revoke an API token
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn delete_token(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let token = tokens_of_caller(&app, &actor.identity).into_iter().find(|token| token.id.to_string() == id);
    let token = token.ok_or_else(|| ApiError::not_found("token not found"))?;
    let entry =
        actor.audit_change("token.delete", format!("token {}", token.name), Some(&to_response(&token)), None);
    turn.commit([Token::delete(token.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
