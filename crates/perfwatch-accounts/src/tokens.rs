//! `/api/v1/tokens`: API tokens of the current user.

use crate::services::Accounts;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::identity::{token_actor_name, validate_scope};
use perfwatch_auth::revocation::revoke_token;
use perfwatch_auth::{Identity, secret};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller, params};
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Role, Token};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Maximum number of tokens per account.
const MAX_TOKENS_PER_ACCOUNT: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// API token without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenResponse {
    id: Uuid,
    name: String,
    /// `viewer`, `operator` or `admin`, or `ingest` for ingestion only.
    scope: String,
    created_ms: i64,
    /// Time of expiry; `null` for tokens without expiry.
    expires_ms: Option<i64>,
    last_used_ms: Option<i64>,
}

/// API tokens of the current user, oldest first.
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

fn tokens_of_caller(accounts: &Accounts, identity: &Identity) -> Vec<Token> {
    let auth_snapshot = accounts.directory.snapshot();
    let tokens = auth_snapshot.tokens.values().filter(|token| Some(token.account) == identity.account_id());
    let mut tokens: Vec<Token> = tokens.cloned().collect();
    tokens.sort_by_key(|token| token.created_ms);
    tokens
}

/// List your API tokens
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = TokenListResponse)),
)]
pub(crate) async fn list_tokens(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Json<TokenListResponse> {
    Json(TokenListResponse {
        tokens: tokens_of_caller(&accounts, &identity).iter().map(to_response).collect(),
    })
}

/// Settings of a new API token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTokenRequest {
    /// Label of the token.
    name: String,
    /// `viewer`, `operator` or `admin` up to the caller's role, or `ingest` for ingestion only.
    scope: String,
    /// Lifetime in days; without expiry if missing.
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<i64>,
}

/// New API token; the secret is returned only here.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    /// Secret of the token (`pwt_`).
    #[serde(rename = "token")]
    secret: String,
    #[serde(flatten)]
    token: TokenResponse,
}

/// Create an API token
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens",
    request_body = CreateTokenRequest,
    responses((status = 201, body = CreatedToken), (status = 409), (status = 422)),
)]
pub(crate) async fn create_token(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<CreateTokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let name = params::validate_label(&request.name)?;
    let invalid = |message: String| Err(ApiError::unprocessable("invalid_token", message));
    let role = actor.identity.role.unwrap_or(Role::Viewer);
    if let Some(message) = validate_scope(&request.scope, role) {
        return invalid(message);
    }
    if request.expires_in_days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        return invalid("expires_in_days must be between 1 and 3,650, or omitted".to_owned());
    }
    let secret = secret::generate(secret::SecretKind::Token);
    let now_ms = accounts.clock.wall_ms();
    let account = actor.identity.account_id().ok_or(perfwatch_auth::AuthError::Unauthenticated)?;
    let token = Token {
        expires_ms: request.expires_in_days.map(|days| now_ms + days * DAY_MS),
        ..Token::new(secret::hash_secret(&secret), account, name, request.scope, now_ms)
    };
    let guard = accounts.directory.begin_write(&actor).await?;
    if tokens_of_caller(&accounts, &actor.identity).len() >= MAX_TOKENS_PER_ACCOUNT {
        return Err(ApiError::conflict(
            "too_many_tokens",
            format!("at most {MAX_TOKENS_PER_ACCOUNT} tokens are allowed; revoke one first"),
        ));
    }
    let response = to_response(&token);
    let entry = actor.audit_change("token.create", format!("token {}", token.name), None, Some(&response));
    guard.commit(Transaction::build(|tx| tx.tokens().insert(&token)), Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { secret, token: response })))
}

/// Revoke an API token
///
/// The enrollment tokens that it created end with it.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "Id of the API token")),
    responses((status = 204)),
)]
pub(crate) async fn delete_token(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = accounts.directory.begin_write(&actor).await?;
    let token =
        tokens_of_caller(&accounts, &actor.identity).into_iter().find(|token| token.id.to_string() == id);
    let token = token.ok_or_else(|| ApiError::not_found("token not found"))?;
    let entry =
        actor.audit_change("token.delete", format!("token {}", token.name), Some(&to_response(&token)), None);
    let auth_snapshot = accounts.directory.snapshot();
    let owner = auth_snapshot.accounts.get(&token.account).map_or("", |account| &account.name);
    let actor_name = token_actor_name(&token.name, owner);
    let tx = Transaction::build(|tx| revoke_token(&auth_snapshot, &token, &actor_name, tx));
    guard.commit(tx, Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
