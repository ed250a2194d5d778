//! `/api/v1/users`: who may log in.

use super::body::JsonBody;
use super::params;
use crate::app::App;
use crate::auth::people::State as Everyone;
use crate::auth::{Doer, password};
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_store::people::{Account, Role, Session};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A person.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserJson {
    id: Uuid,
    name: String,
    role: Role,
    /// Sees hosts with one of these tags only; empty for all.
    host_tags: Vec<String>,
    /// May enter.
    enabled: bool,
    /// Logs in by name and password.
    has_password: bool,
    /// The login service vouches for them.
    single_sign_on: bool,
    /// The second factor is on.
    totp: bool,
    created_ms: i64,
    login_ms: Option<i64>,
}

/// People.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsersJson {
    users: Vec<UserJson>,
}

fn show(account: &Account) -> UserJson {
    UserJson {
        id: account.id,
        name: account.name.clone(),
        role: account.role,
        host_tags: account.host_tags.clone(),
        enabled: account.enabled,
        has_password: account.password.is_some(),
        single_sign_on: account.subject.is_some(),
        totp: account.totp.is_some(),
        created_ms: account.created_ms,
        login_ms: account.login_ms,
    }
}

/// All who may log in
#[utoipa::path(get, path = "/api/v1/users", tag = "users", responses((status = 200, body = UsersJson)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<UsersJson> {
    let now = app.people.now();
    let mut users: Vec<UserJson> = now.accounts.values().map(show).collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    Json(UsersJson { users })
}

/// A new person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    name: String,
    role: Role,
    password: String,
    #[serde(default)]
    host_tags: Vec<String>,
}

/// Lets someone in
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = UserJson), (status = 409), (status = 422)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    doer: Doer,
    JsonBody(wish): JsonBody<NewUser>,
) -> Result<(StatusCode, Json<UserJson>), ApiError> {
    let host_tags = params::tags(&wish.host_tags)?;
    let account = app.people.new_account(&wish.name, wish.role, wish.password).await?;
    let account = Account { host_tags, ..account };
    let turn = app.people.turn().await?;
    if app.people.now().account(&account.name).is_some() {
        let message = format!("there is a user {:?} already", account.name);
        return Err(ApiError::conflict("name_taken", message));
    }
    let user = show(&account);
    let entry = doer.changed("user.create", format!("user {}", account.name), None, Some(&user));
    turn.commit([account.add()], Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

/// What is to change; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    role: Option<Role>,
    host_tags: Option<Vec<String>>,
    enabled: Option<bool>,
    /// A new password; their browsers are logged out.
    password: Option<String>,
    /// `false` switches the second factor off, for who lost it.
    totp: Option<bool>,
}

fn find(everyone: &Everyone, id: &str) -> Result<Account, ApiError> {
    let account = id.parse().ok().and_then(|id: Uuid| everyone.accounts.get(&id).cloned());
    account.ok_or_else(|| ApiError::not_found("there is no such user"))
}

/// Somebody must be able to let others in.
fn keep_an_admin(everyone: &Everyone, without: Uuid) -> Result<(), ApiError> {
    match everyone.has_admin(Some(without)) {
        true => Ok(()),
        false => Err(ApiError::conflict("last_admin", "this is the last administrator: make another first")),
    }
}

/// Changes what someone may do
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)),
    request_body = UserChange, responses((status = 200, body = UserJson), (status = 409), (status = 422)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<UserChange>,
) -> Result<Json<UserJson>, ApiError> {
    let before = find(&app.people.now(), &id)?;
    if let Some(why) = wish.password.as_ref().and_then(|new| password::problem(new, &before.name)) {
        return Err(ApiError::unprocessable("invalid_password", why));
    }
    if wish.totp == Some(true) {
        let why = "only they themselves can switch their second factor on";
        return Err(ApiError::unprocessable("invalid_change", why));
    }
    let host_tags = wish.host_tags.as_deref().map(params::tags).transpose()?;
    let hash = match wish.password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    let turn = app.people.turn().await?;
    let everyone = app.people.now();
    let before = find(&everyone, &id)?;
    let mut after = before.clone();
    after.role = wish.role.unwrap_or(after.role);
    after.enabled = wish.enabled.unwrap_or(after.enabled);
    after.host_tags = host_tags.unwrap_or(after.host_tags);
    if wish.totp == Some(false) {
        (after.totp, after.recovery) = (None, Vec::new());
    }
    if after.role != Role::Admin || !after.enabled {
        keep_an_admin(&everyone, after.id)?;
    }
    let mut end = None;
    if hash.is_some() || !after.enabled {
        after.password = hash.or(after.password);
        after.epoch += 1;
        end = Some(Session::end_all(after.id));
    }
    let (was, is) = (show(&before), show(&after));
    let entry = doer.changed("user.change", format!("user {}", after.name), Some(&was), Some(&is));
    turn.commit([after.save()].into_iter().chain(end), Some(entry)).await?;
    Ok(Json(is))
}

/// Removes someone, with their tokens
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    doer: Doer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.people.turn().await?;
    let everyone = app.people.now();
    let account = find(&everyone, &id)?;
    keep_an_admin(&everyone, account.id)?;
    let was = show(&account);
    let entry = doer.changed("user.remove", format!("user {}", account.name), Some(&was), None);
    turn.commit(Account::remove(account.id), Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
