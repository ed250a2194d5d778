//! `/api/v1/auth/{state,setup,login,logout,token}`: in and out.

use super::account::{MeJson, me_json};
use super::body::{JsonBody, OptionalBody};
use crate::app::App;
use crate::auth::identity::{Credential, Who};
use crate::auth::login::{self, Login};
use crate::auth::{Client, Identity, doer, jwt, password, secret};
use crate::error::ApiError;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use perfwatch_store::people::{Account, Role, Session};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a login page must know.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuthState {
    /// There is no administrator yet: the link that the hub printed makes the first.
    set_up: bool,
    /// Shortest password that is taken.
    password_least: usize,
    /// What to write on the button of single sign-on, where there is one.
    single_sign_on: Option<String>,
}

/// How one gets in
#[utoipa::path(get, path = "/api/v1/auth/state", tag = "auth", responses((status = 200, body = AuthState)))]
pub(crate) async fn state(State(app): State<Arc<App>>) -> Json<AuthState> {
    Json(AuthState {
        set_up: !app.people.now().has_admin(None),
        password_least: password::LEAST,
        single_sign_on: app.oidc.as_ref().map(|oidc| oidc.config.name.clone()),
    })
}

/// The first administrator.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetUp {
    /// From the link that the hub printed when it started.
    secret: String,
    name: String,
    password: String,
}

type Entered = ([(HeaderName, HeaderValue); 2], Json<MeJson>);

fn entered(app: &App, account: &Account, cookie: (HeaderName, HeaderValue)) -> Entered {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([cookie, no_store], Json(me_json(app, account, account.role)))
}

/// Makes the first administrator, and logs in
#[utoipa::path(post, path = "/api/v1/auth/setup", tag = "auth", request_body = SetUp,
    responses((status = 200, body = MeJson), (status = 401), (status = 409), (status = 422)))]
pub(crate) async fn set_up(
    State(app): State<Arc<App>>,
    client: Client,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<SetUp>,
) -> Result<Entered, ApiError> {
    let done = || ApiError::conflict("already_set_up", "this hub has an administrator already: log in");
    let secret_now = app.people.set_up_secret().ok_or_else(done)?;
    login::wait(&app, &client, "")?;
    // Hashes are compared, so that the time tells nothing.
    if secret::hash(&wish.secret) != secret::hash(&secret_now) {
        app.throttle.wrong(client.address, "", app.clock.monotonic());
        let message = "this is not the link that the hub printed when it started, or it is too old";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "wrong_link", message));
    }
    let account = app.people.new_account(&wish.name, Role::Admin, wish.password).await?;
    let turn = app.people.turn().await?;
    if app.people.now().has_admin(None) {
        return Err(done());
    }
    if app.people.now().account(&account.name).is_some() {
        return Err(ApiError::conflict("name_taken", "there is a user of that name already; choose another"));
    }
    let entry = doer::entry("nobody".into(), &client, "user.create", format!("user {}", account.name));
    let changes = vec![account.add()];
    let cookie = login::enter(&app, &turn, &account, &client, &headers, changes, entry).await?;
    tracing::info!(name = account.name, "the first administrator was made");
    Ok(entered(&app, &account, cookie))
}

/// Logs a browser in
///
/// The answer's cookie is the session. 401 `code_needed` asks for the second factor.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = MeJson), (status = 401), (status = 409)))]
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    client: Client,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<Login>,
) -> Result<Entered, ApiError> {
    let verified = login::check(&app, &client, wish).await?;
    let turn = app.people.turn().await?;
    let account = login::confirm(&app, &client, verified).await?;
    let actor = format!("user {}", account.name);
    let entry = doer::entry(actor.clone(), &client, "login", actor);
    let changes = vec![account.save()];
    let cookie = login::enter(&app, &turn, &account, &client, &headers, changes, entry).await?;
    Ok(entered(&app, &account, cookie))
}

/// Logs this browser out
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses((status = 204)))]
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    identity: Identity,
    client: Client,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1]), ApiError> {
    if let Credential::Session(hash) = &identity.credential {
        let entry = doer::entry(identity.actor(), &client, "logout", identity.actor());
        app.people.turn().await?.commit([Session::end(hash)], Some(entry)).await?;
    }
    Ok((StatusCode::NO_CONTENT, [login::cookie("", client.secure, 0)]))
}

/// A signed token of some minutes.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedToken {
    /// For `Authorization: Bearer`, or `?token=` of the WebSocket.
    token: String,
    expires_in_s: u64,
}

/// A short-lived token for scripts and WebSockets
///
/// By name and password in the body, or without a body by the session or token that asks.
#[utoipa::path(post, path = "/api/v1/auth/token", tag = "auth", request_body = Option<Login>,
    responses((status = 200, body = SignedToken), (status = 401), (status = 403)))]
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    identity: Option<axum::Extension<Identity>>,
    client: Client,
    OptionalBody(wish): OptionalBody<Login>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SignedToken>), ApiError> {
    let of = match (wish, identity) {
        (Some(wish), _) => {
            let verified = login::check(&app, &client, wish).await?;
            let turn = app.people.turn().await?;
            let account = login::confirm(&app, &client, verified).await?;
            let actor = format!("user {}", account.name);
            let entry = doer::entry(actor.clone(), &client, "login.token", actor);
            turn.commit([account.save()], Some(entry)).await?;
            (account.id, None)
        }
        (None, Some(identity)) => of_whom(&identity)?,
        (None, None) => return Err(crate::auth::access::login_needed()),
    };
    let now = app.people.now();
    let account = now.enabled(of.0).ok_or_else(login::wrong)?;
    let signed = jwt::sign(&now, account, of.1, app.clock.wall_ms());
    let token = signed.ok_or_else(|| ApiError::unavailable("internal", "nothing can be signed", 5))?;
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([no_store], Json(SignedToken { token, expires_in_s: jwt::LASTS.as_secs() })))
}

fn of_whom(identity: &Identity) -> Result<(Uuid, Option<Uuid>), ApiError> {
    // One that was signed must not make itself last.
    let lasting = match &identity.credential {
        Credential::Session(_) => true,
        Credential::Bearer(text) => !jwt::looks_like(text),
    };
    match &identity.who {
        Who::Account { id, .. } if lasting => Ok((*id, None)),
        Who::Token { id, account, .. } if lasting => Ok((*account, Some(*id))),
        _ => {
            let message = "a signed token makes no other: send name and password, or a token that lasts";
            Err(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", message))
        }
    }
}
