//! How a person gets in: by name and password, with the second factor where they have one, not
//! too often; and the session that their browser has from then on.

use super::client_addr::ClientAddr;
use super::directory::WriteGuard;
use super::identity::SESSION_COOKIE;
use super::{password, secret, totp};
use crate::app::App;
use crate::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use perfwatch_store::SqlStatement;
use perfwatch_store::accounts::{Account, Session};
use perfwatch_store::audit::AuditEntry;
use serde::Deserialize;
use utoipa::ToSchema;

/// What a person types.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    pub(crate) name: String,
    pub(crate) password: String,
    /// Of an authenticator app, or a one-time code; where the second factor is on.
    #[serde(default)]
    pub(crate) code: Option<String>,
}

/// Browsers of one account; the one that was not used for longest makes room.
const MAX_SESSIONS_PER_ACCOUNT: usize = 50;
/// Bytes of what a browser says it is.
const MAX_USER_AGENT_BYTES: usize = 200;

pub(crate) fn invalid_credentials() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_credentials", "invalid name, password or code")
}

/// The password was right; no code of an app can be.
fn totp_unavailable() -> ApiError {
    let why = "two-factor codes cannot be verified at the moment; use a recovery code";
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_credentials", why)
}

/// Someone whose name and password were right.
pub(crate) struct VerifiedPassword {
    /// As it was when the password was looked at.
    account: Account,
    code: Option<String>,
}

/// Who it is, if name and password are right. Decided by [`confirm`], under the turn that lets
/// them in.
///
/// # Errors
/// They are not, the code is missing, or too many tries came before.
pub(crate) async fn verify_password(
    app: &App,
    client: &ClientAddr,
    login: LoginRequest,
) -> Result<VerifiedPassword, ApiError> {
    let name = login.name.trim().to_lowercase();
    check_throttle(app, client, &name)?;
    if name.len() > 200 || login.password.len() > password::MAX_PASSWORD_BYTES {
        return Err(invalid_credentials());
    }
    let account = app.directory.snapshot().account_by_name(&name).filter(|account| account.enabled).cloned();
    let kept = account.as_ref().and_then(|account| account.password.clone());
    let right = password::verify(login.password, kept).await;
    // Many at one moment: those that came while we looked count too.
    check_throttle(app, client, &name)?;
    let Some(account) = account.filter(|_| right) else {
        record_failure(app, client, &name, "password").await;
        return Err(invalid_credentials());
    };
    let code = login.code.filter(|code| !code.trim().is_empty());
    if account.totp_secret.is_some() && code.is_none() {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "totp_required", "two-factor code required"));
    }
    Ok(VerifiedPassword { account, code })
}

/// The account as it is now, with the code used up, to be saved in the commit of the turn: what was
/// verified must still be so.
///
/// # Errors
/// A wrong or used code, or an account that changed since.
pub(crate) async fn confirm_login(
    app: &App,
    client: &ClientAddr,
    verified: VerifiedPassword,
) -> Result<Account, ApiError> {
    let was = verified.account;
    let now = app.directory.snapshot().enabled_account(was.id).cloned().ok_or_else(invalid_credentials)?;
    if (now.token_epoch, &now.password, &now.totp_secret)
        != (was.token_epoch, &was.password, &was.totp_secret)
    {
        return Err(invalid_credentials());
    }
    let now_ms = app.clock.wall_ms();
    let mut account = Account { last_login_ms: Some(now_ms), ..now };
    if let (Some(_), Some(code)) = (&account.totp_secret, &verified.code) {
        // Without the key, there are the codes for who lost the app.
        let key = app.directory.decrypt_totp_secret(&account).inspect_err(
            |why| tracing::error!(user = account.name, %why, "failed to decrypt a two-factor secret"),
        );
        let closed = key.is_err();
        let step =
            key.ok().flatten().and_then(|key| totp::verify_code(&key, code, now_ms, account.totp_step));
        let hash = totp::hash_recovery_code(code);
        let left: Vec<String> =
            account.recovery_codes.iter().filter(|kept| **kept != hash).cloned().collect();
        match step {
            Some(step) => account.totp_step = step,
            None if left.len() < account.recovery_codes.len() => account.recovery_codes = left,
            None => {
                record_failure(app, client, &account.name, "code").await;
                return Err(if closed { totp_unavailable() } else { invalid_credentials() });
            }
        }
    }
    app.login_throttle.record_success(client.address, &account.name, app.clock.monotonic());
    Ok(account)
}

/// Asks someone who is logged in for the password again, so that an open browser is not enough.
///
/// # Errors
/// It is not right, or too many tries came before.
pub(crate) async fn reauthenticate(
    app: &App,
    client: &ClientAddr,
    account: &Account,
    password: String,
) -> Result<(), ApiError> {
    check_throttle(app, client, &account.name)?;
    let right = password::verify(password, account.password.clone()).await;
    check_throttle(app, client, &account.name)?;
    if right {
        return Ok(());
    }
    record_failure(app, client, &account.name, "present password").await;
    Err(ApiError::unprocessable("wrong_password", "current password is wrong"))
}

/// Nothing while one may try; an account's name, or none.
///
/// # Errors
/// Too many wrong tries came before.
pub(crate) fn check_throttle(app: &App, client: &ClientAddr, name: &str) -> Result<(), ApiError> {
    match app.login_throttle.delay(client.address, name, app.clock.monotonic()) {
        Some(wait) => {
            Err(ApiError::too_many(format!("too many failed attempts; wait {} s", wait.as_secs() + 1), wait))
        }
        None => Ok(()),
    }
}

async fn record_failure(app: &App, client: &ClientAddr, name: &str, what: &str) {
    app.login_throttle.record_failure(client.address, name, app.clock.monotonic());
    // A name that nobody has may be a password typed into the wrong field.
    let known = app.directory.snapshot().account_by_name(name).is_some();
    let object = if known { format!("user {name}") } else { "user ?".to_owned() };
    tracing::info!(address = %client.address, what, known, "login failed");
    let entry = AuditEntry {
        actor: "nobody".to_owned(),
        address: client.address.to_string(),
        action: "login.failed".to_owned(),
        object,
        after: Some(serde_json::json!({ "wrong": what }).to_string()),
        ..AuditEntry::default()
    };
    app.directory.record_audit(entry).await;
}

/// A new session of a browser: what its cookie holds, and how it is kept.
fn session(app: &App, account: &Account, client: &ClientAddr, headers: &HeaderMap) -> (String, Session) {
    let text = secret::generate(secret::SecretKind::Session);
    let browser = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let now_ms = app.clock.wall_ms();
    let session = Session {
        hash: secret::hash_secret(&text),
        account: account.id,
        created_ms: now_ms,
        last_used_ms: now_ms,
        address: client.address.to_string(),
        user_agent: browser.chars().take(MAX_USER_AGENT_BYTES).collect(),
    };
    (text, session)
}

/// Lets a browser in: one commit with what else changes, and its cookie.
///
/// # Errors
/// The account is gone meanwhile, or the store does not answer.
pub(crate) async fn create_session(
    app: &App,
    turn: &WriteGuard<'_>,
    account: &Account,
    client: &ClientAddr,
    headers: &HeaderMap,
    changes: Vec<SqlStatement>,
    entry: AuditEntry,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let (text, session) = session(app, account, client, headers);
    let everyone = app.directory.snapshot();
    let mut own: Vec<&Session> = everyone.sessions.values().filter(|one| one.account == account.id).collect();
    own.sort_by_key(|one| app.directory.session_last_used_ms(one));
    let too_many = own.len().saturating_sub(MAX_SESSIONS_PER_ACCOUNT - 1);
    let oldest: Vec<SqlStatement> = own[..too_many].iter().map(|one| Session::delete(&one.hash)).collect();
    // What this browser had before ends with it: nobody rides on an old cookie.
    let before = super::identity::cookie(headers, SESSION_COOKIE)
        .map(|old| Session::delete(&secret::hash_secret(old)));
    let changes = changes.into_iter().chain(oldest).chain(before).chain([session.insert()]);
    turn.commit(changes, Some(entry)).await?;
    Ok(cookie(&text, client.is_tls, app.directory.session_lifetimes().max_age.as_secs()))
}

/// The cookie (RFC 6265); an empty one ends it.
pub(crate) fn cookie(text: &str, secure: bool, lasts_s: u64) -> (header::HeaderName, HeaderValue) {
    let secure = if secure { "; Secure" } else { "" };
    let age = if text.is_empty() { 0 } else { lasts_s };
    let text = format!("{SESSION_COOKIE}={text}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}");
    (header::SET_COOKIE, HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")))
}
