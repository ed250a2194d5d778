//! Creation of browser sessions with their cookie, after a login and after changes that end other sessions.

use crate::services::Accounts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use perfwatch_auth::ClientAddr;
use perfwatch_auth::directory::WriteGuard;
use perfwatch_auth::login::Browser;
use perfwatch_http::ApiError;
use perfwatch_store::Transaction;
use perfwatch_store::accounts::Account;
use perfwatch_store::audit::AuditEntry;

/// Commits a new browser session with the writes of `tx`; returns its `Set-Cookie` header. `logged_in_ms` is the
/// time of the login that the session continues, `None` for a login.
pub(crate) async fn create_session(
    accounts: &Accounts,
    guard: &WriteGuard<'_>,
    account: &Account,
    (client, headers): (&ClientAddr, &HeaderMap),
    logged_in_ms: Option<i64>,
    (tx, entry): (Transaction, AuditEntry),
) -> Result<(HeaderName, HeaderValue), ApiError> {
    let user_agent =
        headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let session_cookie = &accounts.public_address.cookies.session;
    let previous_cookie = session_cookie.values(headers).first().copied();
    let browser = Browser { client, user_agent, previous_cookie, logged_in_ms };
    let cookie = accounts.login.create_session(guard, account, browser, tx, entry).await?;
    Ok(session_cookie.set(
        headers,
        &cookie,
        client.is_tls,
        accounts.directory.session_lifetimes().max_age.as_secs(),
    ))
}
