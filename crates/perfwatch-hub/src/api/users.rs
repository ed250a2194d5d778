//! `/api/v1/users`: who may log in.

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::JsonBody;
use crate::http::extract::Audited;
use crate::http::query;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::directory::AuthSnapshot as Everyone;
use perfwatch_auth::password;
use perfwatch_store::accounts::{Account, Role, Session};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// A person.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserResponse {
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
    sso: bool,
    /// The second factor is on.
    totp_enabled: bool,
    created_ms: i64,
    last_login_ms: Option<i64>,
}

/// People.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserListResponse {
    users: Vec<UserResponse>,
}

fn to_response(account: &Account) -> UserResponse {
    UserResponse {
        id: account.id,
        name: account.name.clone(),
        role: account.role,
        host_tags: account.host_tags.clone(),
        enabled: account.enabled,
        has_password: account.password.is_some(),
        sso: account.oidc_subject.is_some(),
        totp_enabled: account.totp_secret.is_some(),
        created_ms: account.created_ms,
        last_login_ms: account.last_login_ms,
    }
}

/// List users
#[utoipa::path(get, path = "/api/v1/users", tag = "users", responses((status = 200, body = UserListResponse)))]
pub(crate) async fn list_users(State(app): State<Arc<App>>) -> Json<UserListResponse> {
    let now = app.directory.snapshot();
    let mut users: Vec<UserResponse> = now.accounts.values().map(to_response).collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    Json(UserListResponse { users })
}

/// A new person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUserRequest {
    name: String,
    role: Role,
    password: String,
    #[serde(default)]
    host_tags: Vec<String>,
}

/// Create a user
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = CreateUserRequest,
    responses((status = 201, body = UserResponse), (status = 409), (status = 422)))]
pub(crate) async fn create_user(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    JsonBody(wish): JsonBody<CreateUserRequest>,
) -> Result<(StatusCode, Json<UserResponse>), ApiError> {
    let host_tags = query::validate_tags(&wish.host_tags)?;
    let account = app.directory.new_account(&wish.name, wish.role, wish.password).await?;
    let account = Account { host_tags, ..account };
    let turn = app.directory.begin_write().await?;
    if app.directory.snapshot().account_by_name(&account.name).is_some() {
        let message = format!("there is a user {:?} already", account.name);
        return Err(ApiError::conflict("name_taken", message));
    }
    let user = to_response(&account);
    let entry = actor.audit_change("user.create", format!("user {}", account.name), None, Some(&user));
    turn.commit([account.insert()], Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

/// What is to change; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateUserRequest {
    role: Option<Role>,
    host_tags: Option<Vec<String>>,
    enabled: Option<bool>,
    /// A new password; their browsers are logged out.
    password: Option<String>,
    /// `false` switches the second factor off, for who lost it.
    totp_enabled: Option<bool>,
}

fn find(everyone: &Everyone, id: &str) -> Result<Account, ApiError> {
    let account = id.parse().ok().and_then(|id: Uuid| everyone.accounts.get(&id).cloned());
    account.ok_or_else(|| ApiError::not_found("there is no such user"))
}

/// Somebody must be able to let others in.
fn ensure_admin_remains(everyone: &Everyone, without: Uuid) -> Result<(), ApiError> {
    match everyone.has_admin_except(Some(without)) {
        true => Ok(()),
        false => Err(ApiError::conflict("last_admin", "cannot remove the last administrator")),
    }
}

/// Update a user
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)),
    request_body = UpdateUserRequest, responses((status = 200, body = UserResponse), (status = 409), (status = 422)))]
pub(crate) async fn update_user(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(wish): JsonBody<UpdateUserRequest>,
) -> Result<Json<UserResponse>, ApiError> {
    let before = find(&app.directory.snapshot(), &id)?;
    if let Some(why) = wish.password.as_ref().and_then(|new| password::validate(new, &before.name)) {
        return Err(ApiError::unprocessable("password_policy", why));
    }
    if wish.totp_enabled == Some(true) {
        let why = "two-factor authentication can only be enabled by the user";
        return Err(ApiError::unprocessable("invalid_user", why));
    }
    let host_tags = wish.host_tags.as_deref().map(query::validate_tags).transpose()?;
    let hash = match wish.password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    let turn = app.directory.begin_write().await?;
    let everyone = app.directory.snapshot();
    let before = find(&everyone, &id)?;
    let mut after = before.clone();
    after.role = wish.role.unwrap_or(after.role);
    after.enabled = wish.enabled.unwrap_or(after.enabled);
    after.host_tags = host_tags.unwrap_or(after.host_tags);
    if wish.totp_enabled == Some(false) {
        (after.totp_secret, after.recovery_codes) = (None, Vec::new());
    }
    if after.role != Role::Admin || !after.enabled {
        ensure_admin_remains(&everyone, after.id)?;
    }
    let mut end = None;
    if hash.is_some() || !after.enabled {
        after.password = hash.or(after.password);
        after.token_epoch += 1;
        end = Some(Session::delete_for_account(after.id));
    }
    let (was, is) = (to_response(&before), to_response(&after));
    let entry = actor.audit_change("user.update", format!("user {}", after.name), Some(&was), Some(&is));
    turn.commit([after.update()].into_iter().chain(end), Some(entry)).await?;
    Ok(Json(is))
}

/// Delete a user and their tokens
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)),
    responses((status = 204), (status = 409)))]
pub(crate) async fn delete_user(
    State(app): State<Arc<App>>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let turn = app.directory.begin_write().await?;
    let everyone = app.directory.snapshot();
    let account = find(&everyone, &id)?;
    ensure_admin_remains(&everyone, account.id)?;
    let was = to_response(&account);
    let entry = actor.audit_change("user.delete", format!("user {}", account.name), Some(&was), None);
    turn.commit(Account::delete(account.id), Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
