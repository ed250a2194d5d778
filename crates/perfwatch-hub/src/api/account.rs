//! `/api/v1/auth/{me,password,totp,sessions}`: what people do with their own account.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::{Audited, Caller};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use data_encoding::HEXLOWER;
use perfwatch_auth::directory::WriteGuard;
use perfwatch_auth::identity::{Credential, is_session_valid};
use perfwatch_auth::{Actor, Identity, jwt, password, totp};
use perfwatch_store::accounts::{Account, Role, Session};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Get the current user.
#[derive(Serialize, ToSchema)]
pub(crate) struct CurrentUserResponse {
    id: Uuid,
    name: String,
    /// What this login or token may do; never more than the account.
    role: Role,
    /// Sees hosts with one of these tags only; empty for all.
    host_tags: Vec<String>,
    /// The second factor is on.
    totp_enabled: bool,
    /// One-time codes that are left.
    recovery_codes: usize,
    /// Logs in by name and password.
    has_password: bool,
}

pub(super) fn to_current_user_response(app: &App, account: &Account, role: Role) -> CurrentUserResponse {
    // Used codes are gone meanwhile.
    let now = app.directory.snapshot();
    let account = now.enabled_account(account.id).unwrap_or(account);
    CurrentUserResponse {
        id: account.id,
        name: account.name.clone(),
        role: role.min(account.role),
        host_tags: account.host_tags.clone(),
        totp_enabled: account.totp_secret.is_some(),
        recovery_codes: account.recovery_codes.len(),
        has_password: account.password.is_some(),
    }
}

fn current_account(app: &App, identity: &Identity) -> Result<Account, ApiError> {
    let account = identity.account_id().and_then(|id| app.directory.snapshot().enabled_account(id).cloned());
    account.ok_or_else(|| perfwatch_auth::AuthError::Unauthenticated.into())
}

/// Get the current user
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "account", responses((status = 200, body = CurrentUserResponse)))]
pub(crate) async fn me(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<CurrentUserResponse>, ApiError> {
    let role = identity.role.unwrap_or(Role::Viewer);
    Ok(Json(to_current_user_response(&app, &current_account(&app, &identity)?, role)))
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    /// The present one.
    current_password: String,
    new_password: String,
}

type CookieReply = (StatusCode, [(HeaderName, HeaderValue); 1]);

/// Logs out everywhere else: all that was signed or is open of this account ends, and this
/// browser gets a session anew.
async fn rotate_sessions(
    app: &App,
    turn: &WriteGuard<'_>,
    actor: &Actor,
    headers: &HeaderMap,
    account: Account,
    action: &str,
) -> Result<CookieReply, ApiError> {
    let account = Account { token_epoch: account.token_epoch + 1, ..account };
    let changes = vec![account.update(), Session::delete_for_account(account.id)];
    let entry = actor.audit(action, format!("user {}", account.name));
    let cookie =
        super::auth::create_session(app, turn, &account, (&actor.client_addr, headers), changes, entry)
            .await?;
    Ok((StatusCode::NO_CONTENT, [cookie]))
}

/// Change your password
///
/// Other browsers of this account are logged out, and what was signed for it is void.
#[utoipa::path(put, path = "/api/v1/auth/password", tag = "account", request_body = ChangePasswordRequest,
    responses((status = 204), (status = 422)))]
pub(crate) async fn password(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<ChangePasswordRequest>,
) -> Result<CookieReply, ApiError> {
    let account = current_account(&app, &actor.identity)?;
    if account.password.is_none() {
        // Or they could come in when their login service has long shut them out.
        let why = "your account uses single sign-on; only an administrator can set a password";
        return Err(ApiError::unprocessable("password_managed_by_sso", why));
    }
    app.login.reauthenticate(&actor.client_addr, &account, wish.current_password).await?;
    if let Some(why) = password::validate(&wish.new_password, &account.name) {
        return Err(ApiError::unprocessable("password_policy", why));
    }
    let hash = password::hash(wish.new_password).await?;
    let turn = app.directory.begin_write().await?;
    let now = current_account(&app, &actor.identity)?;
    if now.password != account.password {
        return Err(ApiError::conflict("conflict", "the password was changed concurrently; retry"));
    }
    let account = Account { password: Some(hash), ..now };
    rotate_sessions(&app, &turn, &actor, &headers, account, "user.change_password").await
}

/// A second factor that is not on yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotpSetupResponse {
    /// To type into an app (base32).
    secret: String,
    /// What a QR code tells an app.
    uri: String,
    /// That QR code: the path of an SVG of `size` × `size`.
    qr_path: String,
    size: i32,
    /// To be given back with the first code.
    setup_token: String,
}

/// What an offer holds.
#[derive(Serialize, Deserialize)]
struct TotpEnrollmentToken {
    account: Uuid,
    key: String,
}

const TOTP_ENROLLMENT_PURPOSE: &str = "perfwatch-second-factor";
const TOTP_ENROLLMENT_TTL: Duration = Duration::from_secs(15 * 60);

/// Start two-factor setup
///
/// It is on once `PUT` has been given a code of it.
#[utoipa::path(post, path = "/api/v1/auth/totp", tag = "account",
    responses((status = 200, body = TotpSetupResponse), (status = 409)))]
pub(crate) async fn begin_totp(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<TotpSetupResponse>, ApiError> {
    let account = current_account(&app, &identity)?;
    if account.totp_secret.is_some() {
        return Err(ApiError::conflict(
            "totp_already_enabled",
            "two-factor authentication is already enabled",
        ));
    }
    let key = totp::generate();
    let offer = totp::provisioning_uri(&key, &account.name).and_then(|(uri, secret)| {
        let (qr_path, size) = totp::qr_path(&uri)?;
        let offered = TotpEnrollmentToken { account: account.id, key: HEXLOWER.encode(&key) };
        let offer = jwt::sign_payload(
            &app.directory.snapshot(),
            offered,
            TOTP_ENROLLMENT_PURPOSE,
            TOTP_ENROLLMENT_TTL,
            app.clock.wall_ms(),
        )?;
        Some(TotpSetupResponse { secret, uri, qr_path, size, setup_token: offer })
    });
    offer.map(Json).ok_or_else(|| ApiError::unavailable("internal_error", "no QR code can be made", 5))
}

/// A code of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnableTotpRequest {
    /// As `POST` gave it.
    setup_token: String,
    /// What the app shows.
    code: String,
}

/// Codes for who lost the app; shown once.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// Enable two-factor authentication
#[utoipa::path(put, path = "/api/v1/auth/totp", tag = "account", request_body = EnableTotpRequest,
    responses((status = 200, body = RecoveryCodes), (status = 409), (status = 422)))]
pub(crate) async fn enable_totp(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<EnableTotpRequest>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let turn = app.directory.begin_write().await?;
    let account = current_account(&app, &actor.identity)?;
    if account.totp_secret.is_some() {
        return Err(ApiError::conflict(
            "totp_already_enabled",
            "two-factor authentication is already enabled",
        ));
    }
    let offered: Option<TotpEnrollmentToken> = jwt::verify_payload(
        &app.directory.snapshot(),
        &wish.setup_token,
        TOTP_ENROLLMENT_PURPOSE,
        app.clock.wall_ms(),
    );
    let key = offered
        .filter(|offered| offered.account == account.id)
        .and_then(|token| HEXLOWER.decode(token.key.as_bytes()).ok());
    let key =
        key.ok_or_else(|| ApiError::conflict("totp_setup_expired", "two-factor setup expired; start again"))?;
    let step = totp::verify_code(&key, &wish.code, app.clock.wall_ms(), 0)
        .ok_or_else(|| ApiError::unprocessable("invalid_totp_code", "invalid two-factor code"))?;
    let (recovery_codes, recovery) = totp::generate_recovery_codes();
    let key = app.directory.encrypt_totp_secret(account.id, &key)?;
    let account = Account { totp_secret: Some(key), totp_step: step, recovery_codes: recovery, ..account };
    let entry = actor.audit("user.enable_totp", format!("user {}", account.name));
    turn.commit([account.update()], Some(entry)).await?;
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// The present password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordRequest {
    password: String,
}

/// Disable two-factor authentication
#[utoipa::path(delete, path = "/api/v1/auth/totp", tag = "account", request_body = PasswordRequest,
    responses((status = 204), (status = 422)))]
pub(crate) async fn disable_totp(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<PasswordRequest>,
) -> Result<StatusCode, ApiError> {
    app.login
        .reauthenticate(&actor.client_addr, &current_account(&app, &actor.identity)?, wish.password)
        .await?;
    let turn = app.directory.begin_write().await?;
    let account =
        Account { totp_secret: None, recovery_codes: Vec::new(), ..current_account(&app, &actor.identity)? };
    let entry = actor.audit("user.disable_totp", format!("user {}", account.name));
    turn.commit([account.update()], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A browser that is logged in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionResponse {
    /// The one that asks.
    current: bool,
    created_ms: i64,
    last_used_ms: i64,
    address: String,
    user_agent: String,
}

/// Browsers that are logged in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionListResponse {
    sessions: Vec<SessionResponse>,
}

/// List your sessions
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "account", responses((status = 200, body = SessionListResponse)))]
pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    Caller(identity): Caller,
) -> Result<Json<SessionListResponse>, ApiError> {
    let account = current_account(&app, &identity)?;
    let now = app.directory.snapshot();
    let own = now
        .sessions
        .values()
        .filter(|one| one.account == account.id && is_session_valid(&app.directory, one));
    let mut sessions: Vec<SessionResponse> = own
        .map(|session| SessionResponse {
            current: identity.credential == Credential::Session(session.hash),
            created_ms: session.created_ms,
            last_used_ms: app.directory.session_last_used_ms(session),
            address: session.address.clone(),
            user_agent: session.user_agent.clone(),
        })
        .collect();
    sessions.sort_by_key(|session| (!session.current, -session.last_used_ms));
    Ok(Json(SessionListResponse { sessions }))
}

/// End all other sessions
///
/// Other browsers end, and so does what was signed for this account.
#[utoipa::path(delete, path = "/api/v1/auth/sessions", tag = "account", responses((status = 204)))]
pub(crate) async fn end_sessions(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    headers: HeaderMap,
) -> Result<CookieReply, ApiError> {
    let turn = app.directory.begin_write().await?;
    let account = current_account(&app, &actor.identity)?;
    rotate_sessions(&app, &turn, &actor, &headers, account, "user.end_sessions").await
}
