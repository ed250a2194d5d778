//! `/api/v1/auth/{me,confirm,password,totp,sessions}`: account settings of the current user.

use crate::services::Accounts;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use data_encoding::HEXLOWER;
use perfwatch_auth::confirmation::CONFIRMATION_TTL;
use perfwatch_auth::directory::WriteGuard;
use perfwatch_auth::identity::{Credential, is_session_valid};
use perfwatch_auth::revocation::revoke_derived;
use perfwatch_auth::{Actor, Identity, jwt, password, totp};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller};
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Account, Role};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// The current user with role and scope.
#[derive(Serialize, ToSchema)]
pub(crate) struct CurrentUserResponse {
    id: Uuid,
    name: String,
    /// Role of the session or token; at most the role of the account.
    role: Role,
    /// Tags that limit the visible hosts; empty for all hosts.
    host_tags: Vec<String>,
    /// Two-factor authentication is enabled.
    totp_enabled: bool,
    /// Number of unused recovery codes.
    recovery_codes: usize,
    /// Password login is possible.
    has_password: bool,
}

pub(crate) fn to_current_user_response(
    accounts: &Accounts,
    account: &Account,
    role: Role,
) -> CurrentUserResponse {
    // The stored account lacks recovery codes that were used since `account` was read.
    let auth_snapshot = accounts.directory.snapshot();
    let account = auth_snapshot.enabled_account(account.id).unwrap_or(account);
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

fn current_account(accounts: &Accounts, identity: &Identity) -> Result<Account, ApiError> {
    let account =
        identity.account_id().and_then(|id| accounts.directory.snapshot().enabled_account(id).cloned());
    account.ok_or_else(|| perfwatch_auth::AuthError::Unauthenticated.into())
}

/// Get the current user
#[utoipa::path(
    get, path = "/api/v1/auth/me", tag = "account",
    responses((status = 200, body = CurrentUserResponse)),
)]
pub(crate) async fn me(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Result<Json<CurrentUserResponse>, ApiError> {
    let role = identity.role.unwrap_or(Role::Viewer);
    Ok(Json(to_current_user_response(&accounts, &current_account(&accounts, &identity)?, role)))
}

/// Confirm lasting changes
///
/// Sets a cookie with which the session may create users and tokens for 10 minutes. Accounts of an identity
/// provider confirm with a new login there: `/api/v1/auth/oidc/login?confirm=true`.
#[utoipa::path(
    post, path = "/api/v1/auth/confirm", tag = "account",
    request_body = PasswordRequest,
    responses((status = 204), (status = 422)),
)]
pub(crate) async fn confirm(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    headers: HeaderMap,
    JsonBody(request): JsonBody<PasswordRequest>,
) -> Result<CookieReply, ApiError> {
    let account = current_account(&accounts, &actor.identity)?;
    let cookie = accounts.login.confirm(&actor, &account, request.password).await?;
    let name = &accounts.public_address.cookies.confirmation;
    let is_tls = actor.client_addr.is_tls;
    Ok((StatusCode::NO_CONTENT, [name.set(&headers, &cookie, is_tls, CONFIRMATION_TTL.as_secs())]))
}

/// Request to change the password of the current user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    /// Current password, for confirmation.
    current_password: String,
    new_password: String,
}

type CookieReply = (StatusCode, [(HeaderName, HeaderValue); 1]);

/// Ends everything derived from the account and creates a new session for this browser. `logged_in_ms` is the
/// time of the login that the session continues, `None` if the user has just entered the password.
async fn rotate_sessions(
    accounts: &Accounts,
    guard: &WriteGuard<'_>,
    actor: &Actor,
    headers: &HeaderMap,
    account: Account,
    (action, logged_in_ms): (&str, Option<i64>),
) -> Result<CookieReply, ApiError> {
    let (mut account, mut tx) = (account, Transaction::default());
    revoke_derived(&accounts.directory.snapshot(), &mut account, &mut tx);
    tx.accounts().update(&account);
    let entry = actor.audit(action, format!("user {}", account.name));
    let cookie = crate::browser_session::create_session(
        accounts,
        guard,
        &account,
        (&actor.client_addr, headers),
        logged_in_ms,
        (tx, entry),
    )
    .await?;
    Ok((StatusCode::NO_CONTENT, [cookie]))
}

/// Change your password
///
/// Ends all other sessions, API tokens, signed tokens, and the enrollment tokens that you created.
#[utoipa::path(
    put, path = "/api/v1/auth/password", tag = "account",
    request_body = ChangePasswordRequest,
    responses((status = 204), (status = 422)),
)]
pub(crate) async fn password(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ChangePasswordRequest>,
) -> Result<CookieReply, ApiError> {
    let account = current_account(&accounts, &actor.identity)?;
    if account.password.is_none() {
        // A password would outlive a removal of the user at the identity provider.
        let message = "your account uses single sign-on; only an administrator can set a password";
        return Err(ApiError::unprocessable("password_managed_by_sso", message));
    }
    accounts.login.reauthenticate(&actor.client_addr, &account, request.current_password).await?;
    if let Some(message) = accounts.directory.validate_password(&request.new_password, &account.name) {
        return Err(ApiError::unprocessable("password_policy", message));
    }
    let hash = password::hash(request.new_password).await?;
    let guard = accounts.directory.begin_write(&actor).await?;
    let current = current_account(&accounts, &actor.identity)?;
    if current.password != account.password {
        return Err(ApiError::conflict("conflict", "the password was changed concurrently; retry"));
    }
    let account = Account { password: Some(hash), ..current };
    rotate_sessions(&accounts, &guard, &actor, &headers, account, ("user.change_password", None)).await
}

/// Secret for an authenticator app; two-factor authentication is not enabled yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotpSetupResponse {
    /// Secret to type into an app (base32).
    secret: String,
    /// Provisioning URI (`otpauth://`) for an app.
    uri: String,
    /// QR code of `uri`: path of an SVG of `size` × `size`.
    qr_path: String,
    /// Width and height of the QR code in modules.
    size: i32,
    /// Token to send back with the first code; valid for 15 minutes.
    setup_token: String,
}

/// Signed payload of [`TotpSetupResponse::setup_token`].
#[derive(Serialize, Deserialize)]
struct TotpEnrollmentToken {
    account: Uuid,
    key: String,
}

/// Purpose in the signature of setup tokens.
const TOTP_ENROLLMENT_PURPOSE: &str = "perfwatch-second-factor";
/// Lifetime of setup tokens.
const TOTP_ENROLLMENT_TTL: Duration = Duration::from_secs(15 * 60);

/// Start two-factor setup
///
/// Two-factor authentication is enabled by a `PUT` with a valid code.
#[utoipa::path(
    post, path = "/api/v1/auth/totp", tag = "account",
    responses((status = 200, body = TotpSetupResponse), (status = 409)),
)]
pub(crate) async fn begin_totp(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Result<Json<TotpSetupResponse>, ApiError> {
    let account = current_account(&accounts, &identity)?;
    if account.totp_secret.is_some() {
        return Err(ApiError::conflict(
            "totp_already_enabled",
            "two-factor authentication is already enabled",
        ));
    }
    let key = totp::generate();
    let response = totp::provisioning_uri(&key, &account.name).and_then(|(uri, secret)| {
        let (qr_path, size) = totp::qr_path(&uri)?;
        let payload = TotpEnrollmentToken { account: account.id, key: HEXLOWER.encode(&key) };
        let setup_token = jwt::sign_payload(
            &accounts.directory.snapshot(),
            payload,
            TOTP_ENROLLMENT_PURPOSE,
            TOTP_ENROLLMENT_TTL,
            accounts.clock.wall_ms(),
        )?;
        Some(TotpSetupResponse { secret, uri, qr_path, size, setup_token })
    });
    response.map(Json).ok_or_else(|| ApiError::unavailable("internal_error", "cannot create the QR code", 5))
}

/// Confirmation of the two-factor setup.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnableTotpRequest {
    /// Setup token of the `POST` response.
    setup_token: String,
    /// Current 6-digit code of the app.
    code: String,
}

/// Recovery codes, shown only in this response.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// Enable two-factor authentication
#[utoipa::path(
    put, path = "/api/v1/auth/totp", tag = "account",
    request_body = EnableTotpRequest,
    responses((status = 200, body = RecoveryCodes), (status = 409), (status = 422)),
)]
pub(crate) async fn enable_totp(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<EnableTotpRequest>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let guard = accounts.directory.begin_write(&actor).await?;
    let account = current_account(&accounts, &actor.identity)?;
    if account.totp_secret.is_some() {
        return Err(ApiError::conflict(
            "totp_already_enabled",
            "two-factor authentication is already enabled",
        ));
    }
    let setup: Option<TotpEnrollmentToken> = jwt::verify_payload(
        &accounts.directory.snapshot(),
        &request.setup_token,
        TOTP_ENROLLMENT_PURPOSE,
        accounts.clock.wall_ms(),
    );
    let key = setup
        .filter(|setup| setup.account == account.id)
        .and_then(|token| HEXLOWER.decode(token.key.as_bytes()).ok());
    let key =
        key.ok_or_else(|| ApiError::conflict("totp_setup_expired", "two-factor setup expired; start again"))?;
    let step = totp::verify_code(&key, &request.code, accounts.clock.wall_ms(), 0)
        .ok_or_else(|| ApiError::unprocessable("invalid_totp_code", "invalid two-factor code"))?;
    let (recovery_codes, recovery) = totp::generate_recovery_codes();
    let key = accounts.directory.encrypt_totp_secret(account.id, &key)?;
    let account = Account { totp_secret: Some(key), totp_step: step, recovery_codes: recovery, ..account };
    let entry = actor.audit("user.enable_totp", format!("user {}", account.name));
    guard.commit(Transaction::build(|tx| tx.accounts().update(&account)), Some(entry)).await?;
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// Current password, for confirmation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordRequest {
    password: String,
}

/// Disable two-factor authentication
#[utoipa::path(
    delete, path = "/api/v1/auth/totp", tag = "account",
    request_body = PasswordRequest,
    responses((status = 204), (status = 422)),
)]
pub(crate) async fn disable_totp(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<PasswordRequest>,
) -> Result<StatusCode, ApiError> {
    accounts
        .login
        .reauthenticate(&actor.client_addr, &current_account(&accounts, &actor.identity)?, request.password)
        .await?;
    let guard = accounts.directory.begin_write(&actor).await?;
    let account = Account {
        totp_secret: None,
        recovery_codes: Vec::new(),
        ..current_account(&accounts, &actor.identity)?
    };
    let entry = actor.audit("user.disable_totp", format!("user {}", account.name));
    guard.commit(Transaction::build(|tx| tx.accounts().update(&account)), Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Browser session of the current user.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionResponse {
    /// Session of this request.
    current: bool,
    created_ms: i64,
    last_used_ms: i64,
    address: String,
    user_agent: String,
}

/// Valid sessions of the current user.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionListResponse {
    sessions: Vec<SessionResponse>,
}

/// List your sessions
#[utoipa::path(
    get, path = "/api/v1/auth/sessions", tag = "account",
    responses((status = 200, body = SessionListResponse)),
)]
pub(crate) async fn sessions(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Result<Json<SessionListResponse>, ApiError> {
    let account = current_account(&accounts, &identity)?;
    let auth_snapshot = accounts.directory.snapshot();
    let mut sessions: Vec<SessionResponse> = auth_snapshot
        .sessions
        .values()
        .filter(|session| session.account == account.id && is_session_valid(&accounts.directory, session))
        .map(|session| SessionResponse {
            current: identity.credential == Credential::Session(session.hash),
            created_ms: session.created_ms,
            last_used_ms: accounts.directory.session_last_used_ms(session),
            address: session.address.clone(),
            user_agent: session.user_agent.clone(),
        })
        .collect();
    sessions.sort_by_key(|session| (!session.current, -session.last_used_ms));
    Ok(Json(SessionListResponse { sessions }))
}

/// Log out everywhere
///
/// Ends all other sessions, API tokens, signed tokens, and the enrollment tokens that you created.
#[utoipa::path(delete, path = "/api/v1/auth/sessions", tag = "account", responses((status = 204)))]
pub(crate) async fn end_sessions(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    headers: HeaderMap,
) -> Result<CookieReply, ApiError> {
    let guard = accounts.directory.begin_write(&actor).await?;
    let account = current_account(&accounts, &actor.identity)?;
    // A found cookie must not become a recent login.
    let (auth_snapshot, credential) = (accounts.directory.snapshot(), &actor.identity.credential);
    let mut sessions = auth_snapshot.sessions.values();
    let current = sessions.find(|session| *credential == Credential::Session(session.hash));
    let logged_in_ms = Some(current.map_or(0, |session| session.created_ms));
    rotate_sessions(&accounts, &guard, &actor, &headers, account, ("user.end_sessions", logged_in_ms)).await
}
