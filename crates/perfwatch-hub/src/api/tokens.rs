//! `/api/v1/tokens`: one's own tokens, for scripts.

use super::body::JsonBody;
use super::params;
use crate::app::App;
use crate::auth::identity::scope_problem;
use crate::auth::{Doer, Identity, secret};
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_store::people::{Role, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Tokens of one account.
const MOST: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// A token of a script, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenJson {
    id: Uuid,
    name: String,
    /// `ingest` only sends snapshots; else a role.
    scope: String,
    created_ms: i64,
    expires_ms: Option<i64>,
    used_ms: Option<i64>,
}

/// One's own tokens.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokensJson {
    tokens: Vec<TokenJson>,
}

fn show(token: &Token) -> TokenJson {
    TokenJson {
        id: token.id,
        name: token.name.clone(),
        scope: token.scope.clone(),
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
        used_ms: token.used_ms,
    }
}

fn of(app: &App, identity: &Identity) -> Vec<Token> {
    let now = app.people.now();
    let mut tokens: Vec<Token> =
        now.tokens.values().filter(|token| Some(token.account) == identity.account()).cloned().collect();
    tokens.sort_by_key(|token| token.created_ms);
    tokens
}

/// One's own tokens
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = TokensJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>, identity: Identity) -> Json<TokensJson> {
    Json(TokensJson { tokens: of(&app, &identity).iter().map(show).collect() })
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
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
pub(crate) struct MadeToken {
    token: String,
    #[serde(flatten)]
    made: TokenJson,
}

/// Makes a token for a script
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = MadeToken), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), ApiError> {
    let name = params::label(&wish.name)?;
    let invalid = |why: String| Err(ApiError::unprocessable("invalid_token", why));
    let role = doer.identity.role.unwrap_or(Role::Viewer);
    if let Some(why) = scope_problem(&wish.scope, role) {
        return invalid(why);
    }
    if wish.expires_in_days.is_some_and(|days| !(1..=3_650).contains(&days)) {
        return invalid("a token lasts 1 to 3,650 days, or without end".to_owned());
    }
    let text = secret::generate(secret::Kind::Token);
    let now_ms = app.clock.wall_ms();
    let account = doer.identity.account().ok_or_else(crate::auth::access::login_needed)?;
    let token = Token {
        expires_ms: wish.expires_in_days.map(|days| now_ms + days * DAY_MS),
        ..Token::new(secret::hash(&text), account, name, wish.scope, now_ms)
    };
    let turn = app.people.turn().await?;
    if of(&app, &doer.identity).len() >= MOST {
        return Err(ApiError::conflict(
            "too_many_tokens",
            format!("no more than {MOST} tokens; remove one first"),
        ));
    }
    let made = show(&token);
    let entry = doer.changed("token.create", format!("token {}", token.name), None, Some(&made));
    turn.commit([token.add()], Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token: text, made })))
}

/// Ends a token
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let token = of(&app, &doer.identity).into_iter().find(|token| token.id.to_string() == id);
    let token = token.ok_or_else(|| ApiError::not_found("you have no such token"))?;
    let entry = doer.changed("token.remove", format!("token {}", token.name), Some(&show(&token)), None);
    turn.commit([Token::remove(token.id)], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
