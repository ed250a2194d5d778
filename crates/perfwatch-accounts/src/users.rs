//! `/api/v1/users`: accounts of users.

use crate::services::Accounts;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use perfwatch_auth::Actor;
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::password;
use perfwatch_auth::revocation::{ends_credentials, revoke_derived, revoke_enrollment_tokens};
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller, params};
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Account, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// User account without secrets.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserResponse {
    id: Uuid,
    name: String,
    role: Role,
    /// Tags that limit the visible hosts; empty for all hosts.
    host_tags: Vec<String>,
    /// Login and tokens are allowed.
    enabled: bool,
    /// Password login is possible.
    has_password: bool,
    /// Account of the identity provider.
    sso: bool,
    /// Two-factor authentication is enabled.
    totp_enabled: bool,
    created_ms: i64,
    last_login_ms: Option<i64>,
}

/// User accounts, sorted by name.
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

/// Checks that an account is within the host limit of the caller, so that no account gains rights by another account.
///
/// # Errors
/// Returns `forbidden` if the account may view hosts that the caller may not view.
fn authorize_scope(actor: &Actor, host_tags: &[String]) -> Result<(), ApiError> {
    if actor.identity.includes_scope(host_tags) {
        return Ok(());
    }
    let message = "your account is limited by host tags; users must have some of these tags and no others";
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// List users
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users",
    responses((status = 200, body = UserListResponse)),
)]
pub(crate) async fn list_users(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Json<UserListResponse> {
    let auth_snapshot = accounts.directory.snapshot();
    // An administrator who is limited by tags sees the accounts that they may change.
    let visible =
        auth_snapshot.accounts.values().filter(|account| identity.includes_scope(&account.host_tags));
    let mut users: Vec<UserResponse> = visible.map(to_response).collect();
    users.sort_by(|a, b| a.name.cmp(&b.name));
    Json(UserListResponse { users })
}

/// Settings of a new user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUserRequest {
    name: String,
    role: Role,
    password: String,
    #[serde(default)]
    /// Tags that limit the visible hosts; empty for all hosts.
    host_tags: Vec<String>,
}

/// Create a user
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users",
    request_body = CreateUserRequest,
    responses((status = 201, body = UserResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn create_user(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    JsonBody(request): JsonBody<CreateUserRequest>,
) -> Result<(StatusCode, Json<UserResponse>), ApiError> {
    let host_tags = params::validate_tags(&request.host_tags)?;
    authorize_scope(&actor, &host_tags)?;
    let account = accounts.directory.new_account(&request.name, request.role, request.password).await?;
    let account = Account { host_tags, ..account };
    let guard = accounts.directory.begin_write(&actor).await?;
    if accounts.directory.snapshot().account_by_name(&account.name).is_some() {
        return Err(ApiError::conflict("name_taken", "user name is already taken"));
    }
    let user = to_response(&account);
    let entry = actor.audit_change("user.create", format!("user {}", account.name), None, Some(&user));
    guard.commit(Transaction::build(|tx| tx.accounts().insert(&account)), Some(entry)).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

/// Changes of a user; missing fields keep their value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateUserRequest {
    role: Option<Role>,
    host_tags: Option<Vec<String>>,
    enabled: Option<bool>,
    /// New password. Like fewer rights, it ends all sessions and tokens of the user.
    password: Option<String>,
    /// `false` disables two-factor authentication, for users who lost their device.
    totp_enabled: Option<bool>,
}

fn find(auth_snapshot: &AuthSnapshot, id: &str) -> Result<Account, ApiError> {
    let account = id.parse().ok().and_then(|id: Uuid| auth_snapshot.accounts.get(&id).cloned());
    account.ok_or_else(|| ApiError::not_found("user not found"))
}

/// Prevents that the hub is left without an administrator.
///
/// # Errors
/// Returns `last_admin` if no other enabled administrator exists.
fn ensure_admin_remains(auth_snapshot: &AuthSnapshot, without: Uuid) -> Result<(), ApiError> {
    match auth_snapshot.has_admin_except(Some(without)) {
        true => Ok(()),
        false => Err(ApiError::conflict("last_admin", "cannot remove the last administrator")),
    }
}

/// Update a user
#[utoipa::path(
    patch, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path, description = "Id of the user")),
    request_body = UpdateUserRequest,
    responses((status = 200, body = UserResponse), (status = 409), (status = 422)),
)]
pub(crate) async fn update_user(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<UpdateUserRequest>,
) -> Result<Json<UserResponse>, ApiError> {
    let before = find(&accounts.directory.snapshot(), &id)?;
    authorize_scope(&actor, &before.host_tags)?;
    let password = request.password.as_ref();
    if let Some(message) =
        password.and_then(|password| accounts.directory.validate_password(password, &before.name))
    {
        return Err(ApiError::unprocessable("password_policy", message));
    }
    if request.totp_enabled == Some(true) {
        let message = "two-factor authentication can only be enabled by the user";
        return Err(ApiError::unprocessable("invalid_user", message));
    }
    let host_tags = request.host_tags.as_deref().map(params::validate_tags).transpose()?;
    let hash = match request.password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    let guard = accounts.directory.begin_write(&actor).await?;
    let auth_snapshot = accounts.directory.snapshot();
    let before = find(&auth_snapshot, &id)?;
    authorize_scope(&actor, &before.host_tags)?;
    let mut after = before.clone();
    after.role = request.role.unwrap_or(after.role);
    after.enabled = request.enabled.unwrap_or(after.enabled);
    after.host_tags = host_tags.unwrap_or(after.host_tags);
    authorize_scope(&actor, &after.host_tags)?;
    if request.totp_enabled == Some(false) {
        (after.totp_secret, after.recovery_codes) = (None, Vec::new());
    }
    if after.role != Role::Admin || !after.enabled {
        ensure_admin_remains(&auth_snapshot, after.id)?;
    }
    after.password = hash.or(after.password);
    let mut tx = Transaction::default();
    if ends_credentials(&before, &after) {
        revoke_derived(&auth_snapshot, &mut after, &mut tx);
    }
    let (name, before, after_response) = (&after.name, to_response(&before), to_response(&after));
    let entry =
        actor.audit_change("user.update", format!("user {name}"), Some(&before), Some(&after_response));
    tx.accounts().update(&after);
    guard.commit(tx, Some(entry)).await?;
    Ok(Json(after_response))
}

/// Delete a user and their tokens
#[utoipa::path(
    delete, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 204), (status = 409)),
)]
pub(crate) async fn delete_user(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let guard = accounts.directory.begin_write(&actor).await?;
    let auth_snapshot = accounts.directory.snapshot();
    let account = find(&auth_snapshot, &id)?;
    authorize_scope(&actor, &account.host_tags)?;
    ensure_admin_remains(&auth_snapshot, account.id)?;
    let before = to_response(&account);
    let entry = actor.audit_change("user.delete", format!("user {}", account.name), Some(&before), None);
    let mut tx = Transaction::default();
    revoke_enrollment_tokens(&auth_snapshot, &account, &mut tx);
    tx.accounts().delete(account.id);
    guard.commit(tx, Some(entry)).await?;
    Ok(StatusCode::NO_CONTENT)
}
