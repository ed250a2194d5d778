//! `/api/v1/auth/{state,setup,login,logout,token}`: in and out.

use super::account::{CurrentUserResponse, to_current_user_response};
use crate::app::App;
use crate::error::ApiError;
use crate::http::body::{JsonBody, OptionalBody};
use crate::http::cookies;
use crate::http::extract::{Caller, Client};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use perfwatch_auth::directory::WriteGuard;
use perfwatch_auth::identity::{Credential, Principal};
use perfwatch_auth::login::{Browser, LoginRequest};
use perfwatch_auth::{AuthError, ClientAddr, Identity, actor, jwt, password, secret};
use perfwatch_store::SqlStatement;
use perfwatch_store::accounts::{Account, Role, Session};
use perfwatch_store::audit::AuditEntry;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a login page must know.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginOptionsResponse {
    /// There is no administrator yet: the link that the hub printed makes the first.
    setup_required: bool,
    /// Shortest password that is taken.
    min_password_length: usize,
    /// What to write on the button of single sign-on, where there is one.
    sso_label: Option<String>,
}

/// Login options and setup state
#[utoipa::path(get, path = "/api/v1/auth/state", tag = "auth", responses((status = 200, body = LoginOptionsResponse)))]
pub(crate) async fn login_options(State(app): State<Arc<App>>) -> Json<LoginOptionsResponse> {
    Json(LoginOptionsResponse {
        setup_required: !app.directory.snapshot().has_admin_except(None),
        min_password_length: password::MIN_PASSWORD_CHARS,
        sso_label: app.oidc.as_ref().map(|oidc| oidc.config.name.clone()),
    })
}

/// The first administrator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRequest {
    /// From the link that the hub printed when it started.
    secret: String,
    name: String,
    password: String,
}

/// Commits a new browser session with `statements`; returns its `Set-Cookie` header.
pub(super) async fn create_session(
    app: &App,
    guard: &WriteGuard<'_>,
    account: &Account,
    (client, headers): (&ClientAddr, &HeaderMap),
    statements: Vec<SqlStatement>,
    entry: AuditEntry,
) -> Result<(HeaderName, HeaderValue), ApiError> {
    let user_agent =
        headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let previous_cookie = cookies::get(headers, cookies::SESSION_COOKIE);
    let browser = Browser { client, user_agent, previous_cookie };
    let cookie = app.login.create_session(guard, account, browser, statements, entry).await?;
    Ok(cookies::session(&cookie, client.is_tls, app.directory.session_lifetimes().max_age.as_secs()))
}

type LoginReply = ([(HeaderName, HeaderValue); 2], Json<CurrentUserResponse>);

fn login_response(app: &App, account: &Account, cookie: (HeaderName, HeaderValue)) -> LoginReply {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([cookie, no_store], Json(to_current_user_response(app, account, account.role)))
}

/// Create the first administrator
#[utoipa::path(post, path = "/api/v1/auth/setup", tag = "auth", request_body = SetupRequest,
    responses((status = 200, body = CurrentUserResponse), (status = 401), (status = 409), (status = 422)))]
pub(crate) async fn setup(
    State(app): State<Arc<App>>,
    Client(client): Client,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<SetupRequest>,
) -> Result<LoginReply, ApiError> {
    let done = || ApiError::conflict("already_set_up", "this hub is already set up; log in");
    let secret_now = app.directory.set_up_secret().ok_or_else(done)?;
    app.login.check_throttle(&client, "")?;
    // Hashes are compared, so that the time tells nothing.
    if secret::hash_secret(&wish.secret) != secret::hash_secret(&secret_now) {
        app.login.record_failed_setup(&client);
        let message = "invalid or expired setup link";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_setup_link", message));
    }
    let account = app.directory.new_account(&wish.name, Role::Admin, wish.password).await?;
    let turn = app.directory.begin_write().await?;
    if app.directory.snapshot().has_admin_except(None) {
        return Err(done());
    }
    if app.directory.snapshot().account_by_name(&account.name).is_some() {
        return Err(ApiError::conflict("name_taken", "there is a user of that name already; choose another"));
    }
    let entry =
        actor::audit_entry("anonymous".into(), &client, "user.create", format!("user {}", account.name));
    let changes = vec![account.insert()];
    let cookie = create_session(&app, &turn, &account, (&client, &headers), changes, entry).await?;
    tracing::info!(name = account.name, "first administrator created");
    Ok(login_response(&app, &account, cookie))
}

/// Log in
///
/// The answer's cookie is the session. 401 `code_needed` asks for the second factor.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = LoginRequest,
    responses((status = 200, body = CurrentUserResponse), (status = 401), (status = 409)))]
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    Client(client): Client,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<LoginRequest>,
) -> Result<LoginReply, ApiError> {
    let verified = app.login.verify_password(&client, wish).await?;
    let turn = app.directory.begin_write().await?;
    let account = app.login.confirm_login(&client, verified).await?;
    let actor = format!("user {}", account.name);
    let entry = actor::audit_entry(actor.clone(), &client, "login", actor);
    let changes = vec![account.update()];
    let cookie = create_session(&app, &turn, &account, (&client, &headers), changes, entry).await?;
    Ok(login_response(&app, &account, cookie))
}

/// Log out
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses((status = 204)))]
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
    Client(client): Client,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1]), ApiError> {
    if let Credential::Session(hash) = &identity.credential {
        let entry = actor::audit_entry(identity.actor_name(), &client, "logout", identity.actor_name());
        app.directory.begin_write().await?.commit([Session::delete(hash)], Some(entry)).await?;
    }
    Ok((StatusCode::NO_CONTENT, [cookies::session("", client.is_tls, 0)]))
}

/// A signed token of some minutes.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedTokenResponse {
    /// For `Authorization: Bearer`, or `?token=` of the WebSocket.
    token: String,
    expires_in_s: u64,
}

/// Create a signed token (15 minutes)
///
/// By name and password in the body, or without a body by the session or token that asks.
#[utoipa::path(post, path = "/api/v1/auth/token", tag = "auth", request_body = Option<LoginRequest>,
    responses((status = 200, body = SignedTokenResponse), (status = 401), (status = 403)))]
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    identity: Option<axum::Extension<Identity>>,
    Client(client): Client,
    OptionalBody(wish): OptionalBody<LoginRequest>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SignedTokenResponse>), ApiError> {
    let of = match (wish, identity) {
        (Some(wish), _) => {
            let verified = app.login.verify_password(&client, wish).await?;
            let turn = app.directory.begin_write().await?;
            let account = app.login.confirm_login(&client, verified).await?;
            let actor = format!("user {}", account.name);
            let entry = actor::audit_entry(actor.clone(), &client, "token.sign", actor);
            turn.commit([account.update()], Some(entry)).await?;
            (account.id, None)
        }
        (None, Some(identity)) => token_owner(&identity)?,
        (None, None) => return Err(AuthError::Unauthenticated.into()),
    };
    let now = app.directory.snapshot();
    let account = now.enabled_account(of.0).ok_or(AuthError::InvalidCredentials)?;
    let signed = jwt::sign(&now, account, of.1, app.clock.wall_ms());
    let token =
        signed.ok_or_else(|| ApiError::unavailable("internal_error", "no signing key is available", 5))?;
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store], Json(SignedTokenResponse { token, expires_in_s: jwt::TOKEN_TTL.as_secs() })))
}

fn token_owner(identity: &Identity) -> Result<(Uuid, Option<Uuid>), ApiError> {
    // One that was signed must not make itself last.
    let lasting = match &identity.credential {
        Credential::Session(_) => true,
        Credential::Bearer(text) => !jwt::has_jwt_shape(text),
    };
    match &identity.principal {
        Principal::Account { id, .. } if lasting => Ok((*id, None)),
        Principal::Token { id, account, .. } if lasting => Ok((*account, Some(*id))),
        _ => {
            let message =
                "a signed token cannot create another; authenticate with name and password or an API token";
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
        }
    }
}
