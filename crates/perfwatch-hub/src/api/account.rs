//! `/api/v1/auth/{me,password,totp,sessions}`: what people do with their own account.

use super::body::JsonBody;
use crate::app::App;
use crate::auth::identity::{Credential, lasts};
use crate::auth::people::Turn;
use crate::auth::{Doer, Identity, jwt, login, password, secret, totp};
use crate::error::ApiError;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use perfwatch_store::people::{Account, Role, Session};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct MeJson {
    id: Uuid,
    name: String,
    /// What this login or token may do; never more than the account.
    role: Role,
    /// Sees hosts with one of these tags only; empty for all.
    host_tags: Vec<String>,
    /// The second factor is on.
    totp: bool,
    /// One-time codes that are left.
    recovery_codes: usize,
    /// Logs in by name and password.
    has_password: bool,
}

pub(super) fn me_json(app: &App, account: &Account, role: Role) -> MeJson {
    // Used codes are gone meanwhile.
    let now = app.people.now();
    let account = now.enabled(account.id).unwrap_or(account);
    MeJson {
        id: account.id,
        name: account.name.clone(),
        role: role.min(account.role),
        host_tags: account.host_tags.clone(),
        totp: account.totp.is_some(),
        recovery_codes: account.recovery.len(),
        has_password: account.password.is_some(),
    }
}

fn own(app: &App, identity: &Identity) -> Result<Account, ApiError> {
    let account = identity.account().and_then(|id| app.people.now().enabled(id).cloned());
    account.ok_or_else(crate::auth::access::login_needed)
}

/// Who asks
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "account", responses((status = 200, body = MeJson)))]
pub(crate) async fn me(State(app): State<Arc<App>>, identity: Identity) -> Result<Json<MeJson>, ApiError> {
    let role = identity.role.unwrap_or(Role::Viewer);
    Ok(Json(me_json(&app, &own(&app, &identity)?, role)))
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The present one.
    password: String,
    new_password: String,
}

type WithCookie = (StatusCode, [(HeaderName, HeaderValue); 1]);

/// Logs out everywhere else: all that was signed or is open of this account ends, and this
/// browser gets a session anew.
async fn renew(
    app: &App,
    turn: &Turn<'_>,
    doer: &Doer,
    headers: &HeaderMap,
    account: Account,
    action: &str,
) -> Result<WithCookie, ApiError> {
    let account = Account { epoch: account.epoch + 1, ..account };
    let changes = vec![account.save(), Session::end_all(account.id)];
    let entry = doer.did(action, format!("user {}", account.name));
    let cookie = login::enter(app, turn, &account, &doer.client, headers, changes, entry).await?;
    Ok((StatusCode::NO_CONTENT, [cookie]))
}

/// Changes one's own password
///
/// Other browsers of this account are logged out, and what was signed for it is void.
#[utoipa::path(put, path = "/api/v1/auth/password", tag = "account", request_body = NewPassword,
    responses((status = 204), (status = 422)))]
pub(crate) async fn password(
    State(app): State<Arc<App>>,
    doer: Doer,
    headers: HeaderMap,
    JsonBody(wish): JsonBody<NewPassword>,
) -> Result<WithCookie, ApiError> {
    let account = own(&app, &doer.identity)?;
    if account.password.is_none() {
        // Or they could come in when their login service has long shut them out.
        let why = "your login service vouches for you; only an administrator can give you a password here";
        return Err(ApiError::unprocessable("single_sign_on", why));
    }
    login::ask_again(&app, &doer.client, &account, wish.password).await?;
    if let Some(why) = password::problem(&wish.new_password, &account.name) {
        return Err(ApiError::unprocessable("invalid_password", why));
    }
    let hash = password::hash(wish.new_password).await?;
    let turn = app.people.turn().await?;
    let now = own(&app, &doer.identity)?;
    if now.password != account.password {
        return Err(ApiError::conflict("changed", "the password was changed just now"));
    }
    let account = Account { password: Some(hash), ..now };
    renew(&app, &turn, &doer, &headers, account, "user.password").await
}

/// A second factor that is not on yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotpOffer {
    /// To type into an app (base32).
    secret: String,
    /// What a QR code tells an app.
    uri: String,
    /// That QR code: the path of an SVG of `size` × `size`.
    qr_path: String,
    size: i32,
    /// To be given back with the first code.
    offer: String,
}

/// What an offer holds.
#[derive(Serialize, Deserialize)]
struct Offered {
    account: Uuid,
    key: String,
}

const OFFER: &str = "perfwatch-second-factor";
const OFFER_LASTS: Duration = Duration::from_secs(15 * 60);

/// Offers a second factor
///
/// It is on once `PUT` has been given a code of it.
#[utoipa::path(post, path = "/api/v1/auth/totp", tag = "account",
    responses((status = 200, body = TotpOffer), (status = 409)))]
pub(crate) async fn totp_offer(
    State(app): State<Arc<App>>,
    identity: Identity,
) -> Result<Json<TotpOffer>, ApiError> {
    let account = own(&app, &identity)?;
    if account.totp.is_some() {
        return Err(ApiError::conflict("already_on", "the second factor is on already"));
    }
    let key = totp::generate();
    let offer = totp::told(&key, &account.name).and_then(|(uri, secret)| {
        let (qr_path, size) = totp::qr(&uri)?;
        let offered = Offered { account: account.id, key: secret::hex(&key) };
        let offer = jwt::seal(&app.people.now(), offered, OFFER, OFFER_LASTS, app.clock.wall_ms())?;
        Some(TotpOffer { secret, uri, qr_path, size, offer })
    });
    offer.map(Json).ok_or_else(|| ApiError::unavailable("internal", "no QR code can be made", 5))
}

/// A code of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TotpCode {
    /// As `POST` gave it.
    offer: String,
    /// What the app shows.
    code: String,
}

/// Codes for who lost the app; shown once.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// Switches the second factor on
#[utoipa::path(put, path = "/api/v1/auth/totp", tag = "account", request_body = TotpCode,
    responses((status = 200, body = RecoveryCodes), (status = 409), (status = 422)))]
pub(crate) async fn totp_on(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<TotpCode>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let turn = app.people.turn().await?;
    let account = own(&app, &doer.identity)?;
    if account.totp.is_some() {
        return Err(ApiError::conflict("already_on", "the second factor is on already"));
    }
    let offered: Option<Offered> = jwt::unseal(&app.people.now(), &wish.offer, OFFER, app.clock.wall_ms());
    let key = offered.filter(|offered| offered.account == account.id).and_then(|one| secret::unhex(&one.key));
    let key = key.ok_or_else(|| {
        ApiError::conflict("not_offered", "ask for a second factor first; this one is too old")
    })?;
    let step = totp::step_of(&key, &wish.code, app.clock.wall_ms(), 0).ok_or_else(|| {
        ApiError::unprocessable("wrong_code", "this is not the code that the app shows now")
    })?;
    let (recovery_codes, recovery) = totp::recovery();
    let key = app.people.seal_factor(account.id, &key)?;
    let account = Account { totp: Some(key), totp_step: step, recovery, ..account };
    let entry = doer.did("user.second_factor_on", format!("user {}", account.name));
    turn.commit([account.save()], Some(entry)).await?;
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// The present password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Password {
    password: String,
}

/// Switches the second factor off
#[utoipa::path(delete, path = "/api/v1/auth/totp", tag = "account", request_body = Password,
    responses((status = 204), (status = 422)))]
pub(crate) async fn totp_off(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<Password>,
) -> Result<StatusCode, ApiError> {
    login::ask_again(&app, &doer.client, &own(&app, &doer.identity)?, wish.password).await?;
    let turn = app.people.turn().await?;
    let account = Account { totp: None, recovery: Vec::new(), ..own(&app, &doer.identity)? };
    let entry = doer.did("user.second_factor_off", format!("user {}", account.name));
    turn.commit([account.save()], Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A browser that is logged in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionJson {
    /// The one that asks.
    current: bool,
    created_ms: i64,
    seen_ms: i64,
    address: String,
    browser: String,
}

/// Browsers that are logged in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionsJson {
    sessions: Vec<SessionJson>,
}

/// Browsers that are logged in as oneself
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "account", responses((status = 200, body = SessionsJson)))]
pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    identity: Identity,
) -> Result<Json<SessionsJson>, ApiError> {
    let account = own(&app, &identity)?;
    let now = app.people.now();
    let own = now.sessions.values().filter(|one| one.account == account.id && lasts(&app.people, one));
    let mut sessions: Vec<SessionJson> = own
        .map(|session| SessionJson {
            current: identity.credential == Credential::Session(session.hash),
            created_ms: session.created_ms,
            seen_ms: app.people.seen_ms(session),
            address: session.address.clone(),
            browser: session.browser.clone(),
        })
        .collect();
    sessions.sort_by_key(|session| (!session.current, -session.seen_ms));
    Ok(Json(SessionsJson { sessions }))
}

/// Logs out everywhere else
///
/// Other browsers end, and so does what was signed for this account.
#[utoipa::path(delete, path = "/api/v1/auth/sessions", tag = "account", responses((status = 204)))]
pub(crate) async fn end_sessions(
    State(app): State<Arc<App>>,
    doer: Doer,
    headers: HeaderMap,
) -> Result<WithCookie, ApiError> {
    let turn = app.people.turn().await?;
    let account = own(&app, &doer.identity)?;
    renew(&app, &turn, &doer, &headers, account, "user.logout_everywhere").await
}
