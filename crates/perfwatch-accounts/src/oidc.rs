//! `/api/v1/auth/oidc/{login,callback}`: browser redirects of single sign-on.

use crate::services::Accounts;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use perfwatch_auth::confirmation::CONFIRMATION_TTL;
use perfwatch_auth::oidc::{LOGIN_TTL_S, LoginState, OidcProvider, OidcUser};
use perfwatch_auth::revocation::{ends_credentials, revoke_derived};
use perfwatch_auth::{Actor, ClientAddr, Grant, account_name, actor};
use perfwatch_http::public_address::BaseUrl;
use perfwatch_http::{ApiError, Client, params};
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Account, Role};
use std::sync::Arc;

fn require_provider(accounts: &Accounts) -> Result<Arc<OidcProvider>, ApiError> {
    accounts.oidc.clone().ok_or_else(|| ApiError::not_found("single sign-on is not configured"))
}

fn redirect_uri(base_url: &BaseUrl) -> String {
    format!("{}/api/v1/auth/oidc/callback", base_url.0)
}

fn set_state_cookie(accounts: &Accounts, response: &mut Response, text: &str, secure: bool) {
    let (name, value) =
        accounts.public_address.cookies.login_state.set(&HeaderMap::new(), text, secure, LOGIN_TTL_S);
    response.headers_mut().append(name, value);
}

/// Start an OpenID Connect login
#[utoipa::path(
    get, path = "/api/v1/auth/oidc/login", tag = "auth",
    params(
        ("next" = Option<String>, Query, description = "Dashboard page to open after login"),
        ("confirm" = Option<bool>, Query, description = "Confirm lasting changes of the session"),
    ),
    responses(
        (status = 303, description = "Redirect to the identity provider"),
        (status = 404),
        (status = 502),
    ),
)]
pub(crate) async fn begin(
    State(accounts): State<Accounts>,
    Client(client): Client,
    Extension(base_url): Extension<BaseUrl>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = require_provider(&accounts)?;
    let parameter = |key: &str| params::query_pairs(query.as_deref()).find(|(name, _)| name == key);
    let next = parameter("next").map_or_else(|| "/".to_owned(), |(_, next)| params::local_path(next));
    let confirms = parameter("confirm").is_some_and(|(_, value)| value == "true");
    let confirms_since_s = confirms.then(|| accounts.clock.wall_ms() / 1_000);
    let (location, pending) = oidc
        .authorization_url(redirect_uri(&base_url), (next, confirms_since_s), accounts.clock.monotonic())
        .await?;
    let mut response = Redirect::to(&location).into_response();
    let cookie =
        pending.to_cookie(&accounts.directory.snapshot(), accounts.clock.wall_ms()).unwrap_or_default();
    set_state_cookie(&accounts, &mut response, &cookie, client.is_tls);
    Ok(response)
}

/// OpenID Connect callback
#[utoipa::path(
    get, path = "/api/v1/auth/oidc/callback", tag = "auth",
    params(
        ("code" = Option<String>, Query, description = "Authorization code"),
        ("state" = Option<String>, Query, description = "State of the started login"),
        ("error" = Option<String>, Query, description = "Error of the identity provider"),
    ),
    responses(
        (status = 303, description = "Redirect to the dashboard, or to the login page with an error code"),
        (status = 404),
    ),
)]
pub(crate) async fn callback(
    State(accounts): State<Accounts>,
    Client(client): Client,
    Extension(base_url): Extension<BaseUrl>,
    grant: Option<Extension<Grant>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = require_provider(&accounts)?;
    let actor = grant.map(|Extension(grant)| Actor::new(grant, client));
    let request = (&client, actor, &headers, query.as_deref());
    let mut response = match complete_login(&accounts, oidc, &base_url, request).await {
        Ok(response) => response,
        // The response is shown in a browser: the login page explains the code.
        Err(error) => {
            // Throttled entries are left out: the callback is public.
            let _ = accounts.login.record_failed_secret(&client, "login.failed").await;
            Redirect::to(&format!("/login?error={}", error.code())).into_response()
        }
    };
    set_state_cookie(&accounts, &mut response, "", client.is_tls);
    Ok(response)
}

async fn complete_login(
    accounts: &Accounts,
    oidc: Arc<OidcProvider>,
    base_url: &BaseUrl,
    (client, actor, headers, query): (&ClientAddr, Option<Actor>, &HeaderMap, Option<&str>),
) -> Result<Response, ApiError> {
    let denied = || ApiError::bad_request("sso_denied", "login denied by the identity provider");
    let pairs: Vec<(String, String)> = params::query_pairs(query).collect();
    let parameter = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let cookies = accounts.public_address.cookies.login_state.values(headers);
    let pending = cookies.into_iter().find_map(|text| {
        LoginState::from_cookie(&accounts.directory.snapshot(), text, accounts.clock.wall_ms())
    });
    let pending = pending.ok_or_else(denied)?;
    let (Some(code), Some(state)) = (parameter("code"), parameter("state")) else { return Err(denied()) };
    let login = pending.clone();
    let user =
        oidc.exchange_code(redirect_uri(base_url), code, &state, pending, accounts.clock.monotonic()).await?;
    let (name, value) = match login.confirms_since_s {
        Some(_) => confirm_session(accounts, actor, login.is_confirmed_by(&user), &user, headers).await?,
        None => login_user(accounts, user, client, headers).await?,
    };
    let mut response = Redirect::to(&params::local_path(login.next)).into_response();
    response.headers_mut().append(name, value);
    Ok(response)
}

/// Confirms lasting changes of a session, whose user logged in at the identity provider again.
async fn confirm_session(
    accounts: &Accounts,
    actor: Option<Actor>,
    is_confirmed: bool,
    user: &OidcUser,
    headers: &HeaderMap,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let denied = || ApiError::bad_request("sso_denied", "login denied by the identity provider");
    let actor = actor.ok_or_else(denied)?;
    let snapshot = accounts.directory.snapshot();
    let account = actor.identity.account_id().and_then(|id| snapshot.enabled_account(id));
    let is_same = account.is_some_and(|account| account.oidc_subject.as_deref() == Some(&user.subject));
    if !is_confirmed || !is_same {
        return Err(denied());
    }
    let cookie = accounts.login.record_confirmation(&actor).await?;
    let (name, is_tls) = (&accounts.public_address.cookies.confirmation, actor.client_addr.is_tls);
    Ok(name.set(headers, &cookie, is_tls, CONFIRMATION_TTL.as_secs()))
}

/// Creates a session for a user of the identity provider. Accounts are matched by subject; an unknown
/// subject gets a new account.
async fn login_user(
    accounts: &Accounts,
    user: OidcUser,
    client: &ClientAddr,
    headers: &HeaderMap,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let guard = accounts.directory.begin_unattended_write().await?;
    let auth_snapshot = accounts.directory.snapshot();
    let now_ms = accounts.clock.wall_ms();
    let mut known = auth_snapshot.accounts.values();
    let existing = known.find(|account| account.oidc_subject.as_deref() == Some(&user.subject));
    let actor = format!("user {}", existing.map_or(&user.name, |existing| &existing.name));
    let mut tx = Transaction::default();
    let (account, action) = match existing {
        Some(existing) if !existing.enabled => {
            return Err(ApiError::bad_request("sso_disabled", "this account is disabled"));
        }
        Some(existing) => {
            // At least one administrator must remain.
            let is_last = existing.role == Role::Admin && !auth_snapshot.has_admin_except(Some(existing.id));
            let role = if is_last { Role::Admin } else { user.role.unwrap_or(Role::Viewer) };
            let mut account = Account { role, last_login_ms: Some(now_ms), ..existing.clone() };
            if user.role.is_none() || ends_credentials(existing, &account) {
                revoke_derived(&auth_snapshot, &mut account, &mut tx);
            }
            tx.accounts().update(&account);
            if user.role.is_none() {
                let entry = actor::audit_entry(actor.clone(), client, "user.end_role", actor);
                guard.commit(tx, Some(entry)).await?;
                return Err(role_missing());
            }
            (account, "login")
        }
        None => {
            let role = user.role.ok_or_else(role_missing)?;
            // Never matched by name: users may choose their name at the provider. A taken name is numbered.
            let is_taken = |name: &str| auth_snapshot.account_by_name(name).is_some();
            let Some(name) = account_name::first_free(&user.name, is_taken) else {
                return Err(ApiError::conflict("sso_name_taken", "user name is already taken"));
            };
            let account = Account {
                oidc_subject: Some(user.subject),
                last_login_ms: Some(now_ms),
                ..Account::new(name, role, now_ms)
            };
            tx.accounts().insert(&account);
            (account, "user.create")
        }
    };
    let entry = actor::audit_entry(actor.clone(), client, action, actor);
    crate::browser_session::create_session(accounts, &guard, &account, (client, headers), None, (tx, entry))
        .await
}

fn role_missing() -> ApiError {
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    let roles = roles.join(", ");
    ApiError::bad_request("sso_no_role", format!("no role claim matches: {roles}"))
}
