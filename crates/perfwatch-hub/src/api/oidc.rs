//! `/api/v1/auth/oidc/{login,callback}`: single sign-on, as a browser walks it.

use super::params;
use crate::app::App;
use crate::auth::identity::cookie;
use crate::auth::oidc::{LASTS_S, Oidc, Pending, Person};
use crate::auth::{Client, doer, login};
use crate::config::Site;
use crate::error::ApiError;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use perfwatch_store::people::{Account, Role};
use std::sync::Arc;

/// Holds what a login needs until the browser comes back.
const COOKIE: &str = "perfwatch_sso";

fn issuer(app: &App) -> Result<Arc<Oidc>, ApiError> {
    app.oidc.clone().ok_or_else(|| ApiError::not_found("this hub has no single sign-on"))
}

fn redirect_uri(site: &Site) -> String {
    format!("{}/api/v1/auth/oidc/callback", site.0)
}

fn remember(response: &mut Response, text: &str, secure: bool) {
    let (secure, age) = (if secure { "; Secure" } else { "" }, if text.is_empty() { 0 } else { LASTS_S });
    let text =
        format!("{COOKIE}={text}; Path=/api/v1/auth/oidc; HttpOnly; SameSite=Lax; Max-Age={age}{secure}");
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Sends a browser to the login service
#[utoipa::path(get, path = "/api/v1/auth/oidc/login", tag = "auth",
    params(("next" = Option<String>, Query, description = "A page of the dashboard to go to afterwards")),
    responses((status = 303, description = "To the login service"), (status = 404), (status = 502)))]
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    client: Client,
    Extension(site): Extension<Site>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = issuer(&app)?;
    let next = params::pairs(query.as_deref())?.into_iter().find(|(name, _)| name == "next");
    let next = next.map_or_else(|| "/".to_owned(), |(_, next)| own_page(next));
    let (to, pending) = oidc.begin(redirect_uri(&site), next, app.clock.monotonic()).await?;
    let mut response = Redirect::to(&to).into_response();
    let cookie = pending.to_cookie(&app.people.now(), app.clock.wall_ms()).unwrap_or_default();
    remember(&mut response, &cookie, client.secure);
    Ok(response)
}

/// A page of ours, never another site.
fn own_page(next: String) -> String {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c == '\\' || c.is_control());
    if own && next.len() < 1_000 { next } else { "/".to_owned() }
}

/// Takes a browser back from the login service
#[utoipa::path(get, path = "/api/v1/auth/oidc/callback", tag = "auth", params(
    ("code" = Option<String>, Query), ("state" = Option<String>, Query), ("error" = Option<String>, Query),
), responses((status = 303, description = "To the dashboard, or back to the login page with a problem"), (status = 404)))]
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    client: Client,
    Extension(site): Extension<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let oidc = issuer(&app)?;
    let mut response = match come_back(&app, oidc, &client, &site, &headers, query.as_deref()).await {
        Ok(response) => response,
        // Someone looks at this in a browser.
        Err(error) => Redirect::to(&format!("/login?problem={}", error.code())).into_response(),
    };
    remember(&mut response, "", client.secure);
    Ok(response)
}

async fn come_back(
    app: &App,
    oidc: Arc<Oidc>,
    client: &Client,
    site: &Site,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let refused = || ApiError::bad_request("sso_refused", "the login service did not let them in");
    let pairs = params::pairs(query)?;
    let of = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let pending = cookie(headers, COOKIE);
    let pending = pending.and_then(|text| Pending::from_cookie(&app.people.now(), text, app.clock.wall_ms()));
    let pending = pending.ok_or_else(refused)?;
    let (Some(code), Some(state)) = (of("code"), of("state")) else { return Err(refused()) };
    let next = pending.next.clone();
    let person = oidc.finish(redirect_uri(site), code, &state, pending, app.clock.monotonic()).await?;
    let session = enter(app, person, client, headers).await?;
    let mut response = Redirect::to(&own_page(next)).into_response();
    response.headers_mut().append(session.0, session.1);
    Ok(response)
}

/// Someone the issuer vouches for: known by its id of them, new with a name of their own.
async fn enter(
    app: &App,
    person: Person,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(header::HeaderName, HeaderValue), ApiError> {
    let turn = app.people.turn().await?;
    let everyone = app.people.now();
    let now_ms = app.clock.wall_ms();
    let known = everyone.accounts.values().find(|one| one.subject.as_deref() == Some(&person.subject));
    let actor = format!("user {}", known.map_or(&person.name, |known| &known.name));
    let (account, change, action) = match known {
        Some(known) if !known.enabled => {
            return Err(ApiError::bad_request("sso_disabled", "this account is disabled"));
        }
        Some(known) => {
            let mut role = person.role.ok_or_else(no_role)?;
            if known.role == Role::Admin && !everyone.has_admin(Some(known.id)) {
                // Somebody must be able to let others in.
                role = Role::Admin;
            }
            let account = Account { role, login_ms: Some(now_ms), ..known.clone() };
            let change = account.save();
            (account, change, "login")
        }
        None => {
            let role = person.role.ok_or_else(no_role)?;
            // Never by its name alone: who chooses their name at the issuer would choose an account.
            if everyone.account(&person.name).is_some() {
                return Err(ApiError::conflict("sso_name_taken", "there is another user of that name"));
            }
            let account = Account {
                subject: Some(person.subject),
                login_ms: Some(now_ms),
                ..Account::new(person.name, role, now_ms)
            };
            let change = account.add();
            (account, change, "user.create")
        }
    };
    let entry = doer::entry(actor.clone(), client, action, actor);
    login::enter(app, &turn, &account, client, headers, vec![change], entry).await
}

fn no_role() -> ApiError {
    let roles = Role::ALL.map(Role::name).join(", ");
    ApiError::bad_request("sso_no_role", format!("the login service gives them no role: {roles}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afterwards_only_to_a_page_of_ours() {
        for (next, want) in [
            ("/hosts/x?range=1h", "/hosts/x?range=1h"),
            ("https://evil.example", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(own_page(next.to_owned()), want, "{next}");
        }
    }
}
