//! `/api/v1/auth/{state,setup,login,logout,token}`: setup, login and signed tokens.

use crate::account::{CurrentUserResponse, to_current_user_response};
use crate::browser_session::create_session;
use crate::services::Accounts;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use perfwatch_auth::identity::Credential;
use perfwatch_auth::jwt::TokenParent;
use perfwatch_auth::login::LoginRequest;
use perfwatch_auth::{Actor, AuthError, Grant, actor, jwt, secret};
use perfwatch_http::body::{JsonBody, OptionalBody};
use perfwatch_http::{ApiError, Audited, Client};
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Account, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Options of the login page.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginOptionsResponse {
    /// No administrator exists; the setup link in the hub's log creates the first.
    setup_required: bool,
    /// Minimum length of a password in characters.
    min_password_length: usize,
    /// Label of the single sign-on button; `null` without single sign-on.
    sso_label: Option<String>,
}

/// Login options and setup state
#[utoipa::path(
    get, path = "/api/v1/auth/state", tag = "auth",
    responses((status = 200, body = LoginOptionsResponse)),
)]
pub(crate) async fn login_options(State(accounts): State<Accounts>) -> Json<LoginOptionsResponse> {
    Json(LoginOptionsResponse {
        setup_required: !accounts.directory.snapshot().has_admin_except(None),
        min_password_length: accounts.directory.min_password_length(),
        sso_label: accounts.oidc.as_ref().map(|oidc| oidc.config.name.clone()),
    })
}

/// Account of the first administrator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupRequest {
    /// Secret of the setup link in the hub's log.
    secret: String,
    name: String,
    password: String,
}

type LoginReply = ([(HeaderName, HeaderValue); 2], Json<CurrentUserResponse>);

fn login_response(accounts: &Accounts, account: &Account, cookie: (HeaderName, HeaderValue)) -> LoginReply {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([cookie, no_store], Json(to_current_user_response(accounts, account, account.role)))
}

/// Create the first administrator
#[utoipa::path(
    post, path = "/api/v1/auth/setup", tag = "auth",
    request_body = SetupRequest,
    responses(
        (status = 200, body = CurrentUserResponse),
        (status = 401),
        (status = 409),
        (status = 422),
        (status = 429),
    ),
)]
pub(crate) async fn setup(
    State(accounts): State<Accounts>,
    Client(client): Client,
    headers: HeaderMap,
    JsonBody(request): JsonBody<SetupRequest>,
) -> Result<LoginReply, ApiError> {
    let already_set_up = || ApiError::conflict("already_set_up", "this hub is already set up; log in");
    let setup_secret = accounts.directory.setup_secret().ok_or_else(already_set_up)?;
    // Hashes are compared, so that the duration does not leak the secret.
    if secret::hash_secret(&request.secret) != secret::hash_secret(&setup_secret) {
        accounts.login.record_failed_secret(&client, "setup.failed").await?;
        let message = "invalid or expired setup link";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_setup_link", message));
    }
    let account = accounts.directory.new_account(&request.name, Role::Admin, request.password).await?;
    let guard = accounts.directory.begin_unattended_write().await?;
    if accounts.directory.snapshot().has_admin_except(None) {
        return Err(already_set_up());
    }
    if accounts.directory.snapshot().account_by_name(&account.name).is_some() {
        return Err(ApiError::conflict("name_taken", "user name is already taken"));
    }
    let entry =
        actor::audit_entry("anonymous".into(), &client, "user.create", format!("user {}", account.name));
    let tx = Transaction::build(|tx| tx.accounts().insert(&account));
    let cookie = create_session(&accounts, &guard, &account, (&client, &headers), None, (tx, entry)).await?;
    tracing::info!(user = account.name, "first administrator created");
    Ok(login_response(&accounts, &account, cookie))
}

/// Log in
///
/// Sets the session cookie. 401 `totp_required` means that a two-factor code is needed.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth",
    request_body = LoginRequest,
    responses((status = 200, body = CurrentUserResponse), (status = 401), (status = 409)),
)]
pub(crate) async fn login(
    State(accounts): State<Accounts>,
    Client(client): Client,
    headers: HeaderMap,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<LoginReply, ApiError> {
    let verified = accounts.login.verify_password(&client, request).await?;
    let guard = accounts.directory.begin_unattended_write().await?;
    let account = accounts.login.confirm_login(&client, verified).await?;
    let actor = format!("user {}", account.name);
    let entry = actor::audit_entry(actor.clone(), &client, "login", actor);
    let tx = Transaction::build(|tx| tx.accounts().update(&account));
    let cookie = create_session(&accounts, &guard, &account, (&client, &headers), None, (tx, entry)).await?;
    Ok(login_response(&accounts, &account, cookie))
}

/// Log out
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses((status = 204)))]
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    headers: HeaderMap,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1]), ApiError> {
    if let Credential::Session(hash) = &actor.identity.credential {
        let tx = Transaction::build(|tx| tx.sessions().delete(hash));
        let guard = accounts.directory.begin_write(&actor).await?;
        guard.commit(tx, Some(actor.audit_self("logout"))).await?;
    }
    let (cookie, is_tls) = (&accounts.public_address.cookies.session, actor.client_addr.is_tls);
    Ok((StatusCode::NO_CONTENT, [cookie.set(&headers, "", is_tls, 0)]))
}

/// Signed token (JWT) with a lifetime of minutes.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedTokenResponse {
    /// Token for `Authorization: Bearer`; a WebSocket token for `?token=`.
    token: String,
    expires_in_s: u64,
}

/// Create a signed token (15 minutes)
///
/// Authenticate with name and password in the body, or with the session or API token of the request.
#[utoipa::path(
    post, path = "/api/v1/auth/token", tag = "auth",
    request_body = Option<LoginRequest>,
    responses((status = 200, body = SignedTokenResponse), (status = 401), (status = 403)),
)]
pub(crate) async fn token(
    State(accounts): State<Accounts>,
    grant: Option<axum::Extension<Grant>>,
    Client(client): Client,
    OptionalBody(request): OptionalBody<LoginRequest>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SignedTokenResponse>), ApiError> {
    let (account_id, parent) = match (request, grant) {
        (Some(request), _) => {
            let verified = accounts.login.verify_password(&client, request).await?;
            let guard = accounts.directory.begin_unattended_write().await?;
            let account = accounts.login.confirm_login(&client, verified).await?;
            let actor = format!("user {}", account.name);
            let entry = actor::audit_entry(actor.clone(), &client, "token.sign", actor);
            let tx = Transaction::build(|tx| tx.accounts().update(&account));
            guard.commit(tx, Some(entry)).await?;
            (account.id, TokenParent::Password)
        }
        (None, Some(axum::Extension(grant))) => {
            let actor = Actor::new(grant, client);
            let owner = actor.identity.token_parent()?;
            actor.record(actor.audit_self("token.sign")).await?;
            owner
        }
        (None, None) => return Err(AuthError::Unauthenticated.into()),
    };
    let auth_snapshot = accounts.directory.snapshot();
    let account = auth_snapshot.enabled_account(account_id).ok_or(AuthError::InvalidCredentials)?;
    let signed = jwt::sign(&auth_snapshot, account, parent, accounts.clock.wall_ms());
    let token = signed.ok_or(AuthError::SigningKeyMissing)?;
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store], Json(SignedTokenResponse { token, expires_in_s: jwt::TOKEN_TTL.as_secs() })))
}

/// Create a WebSocket token (1 minute)
///
/// For `/api/ws/metrics?token=`; nothing else accepts it. The WebSocket ends with the credential of this request.
#[utoipa::path(
    post, path = "/api/v1/auth/websocket-token", tag = "auth",
    responses((status = 200, body = SignedTokenResponse)),
)]
pub(crate) async fn websocket_token(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
) -> Result<Json<SignedTokenResponse>, ApiError> {
    let token = actor.identity.sign_websocket_token(&accounts.directory)?;
    actor.record(actor.audit_self("token.sign_websocket")).await?;
    Ok(Json(SignedTokenResponse { token, expires_in_s: jwt::WEBSOCKET_TOKEN_TTL.as_secs() }))
}
