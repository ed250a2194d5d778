//! `/api/v1/auth/oidc/{login,callback}`: single sign-on, as a browser walks it.

use crate::app::App;
use crate::config::BaseUrl;
use crate::error::ApiError;
use crate::http::cookies;
use crate::http::extract::Client;
use crate::http::query;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use perfwatch_auth::oidc::{LOGIN_TTL_S, LoginState, OidcProvider, OidcUser};
use perfwatch_auth::{ClientAddr, actor};
use perfwatch_store::accounts::{Account, Role};
use std::sync::Arc;

/// Holds what a login needs until the browser comes back.
const COOKIE: &str = "perfwatch_sso";

fn issuer(app: &App) -> Result<Arc<OidcProvider>, ApiError> {
    app.oidc.clone().ok_or_else(|| ApiError::not_found("single sign-on is not configured"))
}

fn redirect_uri(site: &BaseUrl) -> String {
    format!("{}/api/v1/auth/oidc/callback", site.0)
}

fn set_state_cookie(response: &mut Response, text: &str, secure: bool) {
    let (name, value) = cookies::set(COOKIE, text, "/api/v1/auth/oidc", secure, LOGIN_TTL_S);
    response.headers_mut().append(name, value);
}

/// Start an OpenID Connect login
#[utoipa::path(get, path = "/api/v1/auth/oidc/login", tag = "auth",
    params(("next" = Option<String>, Query, description = "A page of the dashboard to go to afterwards")),
    responses((status = 303, description = "To the login service"), (status = 404), (status = 502)))]
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    Client(client): Client,
    Extension(site): Extension<BaseUrl>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = issuer(&app)?;
    let next = query::query_pairs(query.as_deref())?.into_iter().find(|(name, _)| name == "next");
    let next = next.map_or_else(|| "/".to_owned(), |(_, next)| local_path(next));
    let (to, pending) = oidc.authorization_url(redirect_uri(&site), next, app.clock.monotonic()).await?;
    let mut response = Redirect::to(&to).into_response();
    let cookie = pending.to_cookie(&app.directory.snapshot(), app.clock.wall_ms()).unwrap_or_default();
    set_state_cookie(&mut response, &cookie, client.is_tls);
    Ok(response)
}

/// A page of ours, never another site.
fn local_path(next: String) -> String {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c == '\\' || c.is_control());
    if own && next.len() < 1_000 { next } else { "/".to_owned() }
}

/// OpenID Connect callback
#[utoipa::path(get, path = "/api/v1/auth/oidc/callback", tag = "auth", params(
    ("code" = Option<String>, Query), ("state" = Option<String>, Query), ("error" = Option<String>, Query),
), responses((status = 303, description = "To the dashboard, or back to the login page with a problem"), (status = 404)))]
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    Client(client): Client,
    Extension(site): Extension<BaseUrl>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = issuer(&app)?;
    let mut response = match complete_login(&app, oidc, &client, &site, &headers, query.as_deref()).await {
        Ok(response) => response,
        // Someone looks at this in a browser.
        Err(error) => Redirect::to(&format!("/login?problem={}", error.code())).into_response(),
    };
    set_state_cookie(&mut response, "", client.is_tls);
    Ok(response)
}

async fn complete_login(
    app: &App,
    oidc: Arc<OidcProvider>,
    client: &ClientAddr,
    site: &BaseUrl,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let refused = || ApiError::bad_request("sso_denied", "login denied by the identity provider");
    let pairs = query::query_pairs(query)?;
    let of = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let pending = cookies::get(headers, COOKIE);
    let pending = pending
        .and_then(|text| LoginState::from_cookie(&app.directory.snapshot(), text, app.clock.wall_ms()));
    let pending = pending.ok_or_else(refused)?;
    let (Some(code), Some(state)) = (of("code"), of("state")) else { return Err(refused()) };
    let next = pending.next.clone();
    let person = oidc.exchange_code(redirect_uri(site), code, &state, pending, app.clock.monotonic()).await?;
    let session = login_user(app, person, client, headers).await?;
    let mut response = Redirect::to(&local_path(next)).into_response();
    response.headers_mut().append(session.0, session.1);
    Ok(response)
}

/// Someone the issuer vouches for: known by its id of them, new with a name of their own.
async fn login_user(
    app: &App,
    person: OidcUser,
    client: &ClientAddr,
    headers: &HeaderMap,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let turn = app.directory.begin_write().await?;
    let everyone = app.directory.snapshot();
    let now_ms = app.clock.wall_ms();
    let known = everyone.accounts.values().find(|one| one.oidc_subject.as_deref() == Some(&person.subject));
    let actor = format!("user {}", known.map_or(&person.name, |known| &known.name));
    let (account, change, action) = match known {
        Some(known) if !known.enabled => {
            return Err(ApiError::bad_request("sso_disabled", "this account is disabled"));
        }
        Some(known) => {
            let mut role = person.role.ok_or_else(role_missing)?;
            if known.role == Role::Admin && !everyone.has_admin_except(Some(known.id)) {
                // Somebody must be able to let others in.
                role = Role::Admin;
            }
            let account = Account { role, last_login_ms: Some(now_ms), ..known.clone() };
            let change = account.update();
            (account, change, "login")
        }
        None => {
            let role = person.role.ok_or_else(role_missing)?;
            // Never by its name alone: who chooses their name at the issuer would choose an account.
            if everyone.account_by_name(&person.name).is_some() {
                return Err(ApiError::conflict(
                    "sso_name_taken",
                    "user name is already taken by a local account",
                ));
            }
            let account = Account {
                oidc_subject: Some(person.subject),
                last_login_ms: Some(now_ms),
                ..Account::new(person.name, role, now_ms)
            };
            let change = account.insert();
            (account, change, "user.create")
        }
    };
    let entry = actor::audit_entry(actor.clone(), client, action, actor);
    super::auth::create_session(app, &turn, &account, (client, headers), vec![change], entry).await
}

fn role_missing() -> ApiError {
    let roles = Role::ALL.map(Role::name).join(", ");
    ApiError::bad_request("sso_no_role", format!("no role claim matches: {roles}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_is_limited_to_local_paths() {
        for (next, want) in [
            ("/hosts/x?range=1h", "/hosts/x?range=1h"),
            ("https://evil.example", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(local_path(next.to_owned()), want, "{next}");
        }
    }
}
