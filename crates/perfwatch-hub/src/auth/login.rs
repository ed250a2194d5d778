//! How a person gets in: by name and password, with the second factor where they have one, not
//! too often; and the session that their browser has from then on.

use super::client::Client;
use super::identity::COOKIE;
use super::people::Turn;
use super::{password, secret, totp};
use crate::app::App;
use crate::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use perfwatch_store::Change;
use perfwatch_store::people::{Account, AuditEntry, Session};
use serde::Deserialize;
use utoipa::ToSchema;

/// What a person types.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: String,
    /// Of an authenticator app, or a one-time code; where the second factor is on.
    #[serde(default)]
    pub(crate) code: Option<String>,
}

/// Browsers of one account; the one that was not used for longest makes room.
const SESSIONS: usize = 50;
/// Bytes of what a browser says it is.
const BROWSER_BYTES: usize = 200;

pub(crate) fn wrong() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "wrong_login", "name, password or code is not right")
}

/// The password was right; no code of an app can be.
fn no_app() -> ApiError {
    let why = "this hub can't check codes of apps now: log in with one of the one-time codes";
    ApiError::new(StatusCode::UNAUTHORIZED, "wrong_login", why)
}

/// Someone whose name and password were right.
pub(crate) struct Verified {
    /// As it was when the password was looked at.
    account: Account,
    code: Option<String>,
}

/// Who it is, if name and password are right. Decided by [`confirm`], under the turn that lets
/// them in.
///
/// # Errors
/// They are not, the code is missing, or too many tries came before.
pub(crate) async fn check(app: &App, client: &Client, login: Login) -> Result<Verified, ApiError> {
    let name = login.name.trim().to_lowercase();
    wait(app, client, &name)?;
    if name.len() > 200 || login.password.len() > password::MOST {
        return Err(wrong());
    }
    let account = app.people.now().account(&name).filter(|account| account.enabled).cloned();
    let kept = account.as_ref().and_then(|account| account.password.clone());
    let right = password::verify(login.password, kept).await;
    // Many at one moment: those that came while we looked count too.
    wait(app, client, &name)?;
    let Some(account) = account.filter(|_| right) else {
        failed(app, client, &name, "password").await;
        return Err(wrong());
    };
    let code = login.code.filter(|code| !code.trim().is_empty());
    if account.totp.is_some() && code.is_none() {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "code_needed",
            "this account has a second factor: send its code along",
        ));
    }
    Ok(Verified { account, code })
}

/// The account as it is now, with the code used up, to be saved in the commit of the turn: what was
/// verified must still be so.
///
/// # Errors
/// A wrong or used code, or an account that changed since.
pub(crate) async fn confirm(app: &App, client: &Client, verified: Verified) -> Result<Account, ApiError> {
    let was = verified.account;
    let now = app.people.now().enabled(was.id).cloned().ok_or_else(wrong)?;
    if (now.epoch, &now.password, &now.totp) != (was.epoch, &was.password, &was.totp) {
        return Err(wrong());
    }
    let now_ms = app.clock.wall_ms();
    let mut account = Account { login_ms: Some(now_ms), ..now };
    if let (Some(_), Some(code)) = (&account.totp, &verified.code) {
        // Without the key, there are the codes for who lost the app.
        let key = app
            .people
            .open_factor(&account)
            .inspect_err(|why| tracing::error!(user = account.name, %why, "a second factor can't be read"));
        let closed = key.is_err();
        let step = key.ok().flatten().and_then(|key| totp::step_of(&key, code, now_ms, account.totp_step));
        let hash = totp::recovery_hash(code);
        let left: Vec<String> = account.recovery.iter().filter(|kept| **kept != hash).cloned().collect();
        match step {
            Some(step) => account.totp_step = step,
            None if left.len() < account.recovery.len() => account.recovery = left,
            None => {
                failed(app, client, &account.name, "code").await;
                return Err(if closed { no_app() } else { wrong() });
            }
        }
    }
    app.throttle.right(client.address, &account.name, app.clock.monotonic());
    Ok(account)
}

/// Asks someone who is logged in for the password again, so that an open browser is not enough.
///
/// # Errors
/// It is not right, or too many tries came before.
pub(crate) async fn ask_again(
    app: &App,
    client: &Client,
    account: &Account,
    password: String,
) -> Result<(), ApiError> {
    wait(app, client, &account.name)?;
    let right = password::verify(password, account.password.clone()).await;
    wait(app, client, &account.name)?;
    if right {
        return Ok(());
    }
    failed(app, client, &account.name, "present password").await;
    Err(ApiError::unprocessable("wrong_password", "the present password is not right"))
}

/// Nothing while one may try; an account's name, or none.
///
/// # Errors
/// Too many wrong tries came before.
pub(crate) fn wait(app: &App, client: &Client, name: &str) -> Result<(), ApiError> {
    match app.throttle.wait(client.address, name, app.clock.monotonic()) {
        Some(wait) => {
            Err(ApiError::too_many(format!("too many wrong tries; wait {} s", wait.as_secs() + 1), wait))
        }
        None => Ok(()),
    }
}

async fn failed(app: &App, client: &Client, name: &str, what: &str) {
    app.throttle.wrong(client.address, name, app.clock.monotonic());
    // A name that nobody has may be a password typed into the wrong field.
    let known = app.people.now().account(name).is_some();
    let object = if known { format!("user {name}") } else { "user ?".to_owned() };
    tracing::info!(address = %client.address, what, known, "a wrong login");
    let entry = AuditEntry {
        actor: "nobody".to_owned(),
        address: client.address.to_string(),
        action: "login.failed".to_owned(),
        object,
        after: Some(serde_json::json!({ "wrong": what }).to_string()),
        ..AuditEntry::default()
    };
    app.people.note(entry).await;
}

/// A new session of a browser: what its cookie holds, and how it is kept.
fn session(app: &App, account: &Account, client: &Client, headers: &HeaderMap) -> (String, Session) {
    let text = secret::generate(secret::Kind::Session);
    let browser = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let now_ms = app.clock.wall_ms();
    let session = Session {
        hash: secret::hash(&text),
        account: account.id,
        created_ms: now_ms,
        seen_ms: now_ms,
        address: client.address.to_string(),
        browser: browser.chars().take(BROWSER_BYTES).collect(),
    };
    (text, session)
}

/// Lets a browser in: one commit with what else changes, and its cookie.
///
/// # Errors
/// The account is gone meanwhile, or the store does not answer.
pub(crate) async fn enter(
    app: &App,
    turn: &Turn<'_>,
    account: &Account,
    client: &Client,
    headers: &HeaderMap,
    changes: Vec<Change>,
    entry: AuditEntry,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let (text, session) = session(app, account, client, headers);
    let everyone = app.people.now();
    let mut own: Vec<&Session> = everyone.sessions.values().filter(|one| one.account == account.id).collect();
    own.sort_by_key(|one| app.people.seen_ms(one));
    let too_many = own.len().saturating_sub(SESSIONS - 1);
    let oldest: Vec<Change> = own[..too_many].iter().map(|one| Session::end(&one.hash)).collect();
    // What this browser had before ends with it: nobody rides on an old cookie.
    let before = super::identity::cookie(headers, COOKIE).map(|old| Session::end(&secret::hash(old)));
    let changes = changes.into_iter().chain(oldest).chain(before).chain([session.add()]);
    turn.commit(changes, Some(entry)).await?;
    Ok(cookie(&text, client.secure, app.people.times().most.as_secs()))
}

/// The cookie (RFC 6265); an empty one ends it.
pub(crate) fn cookie(text: &str, secure: bool, lasts_s: u64) -> (header::HeaderName, HeaderValue) {
    let secure = if secure { "; Secure" } else { "" };
    let age = if text.is_empty() { 0 } else { lasts_s };
    let text = format!("{COOKIE}={text}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}");
    (header::SET_COOKIE, HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")))
}
