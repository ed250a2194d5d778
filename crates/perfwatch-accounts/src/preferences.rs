//! `/api/v1/auth/preferences`: preferences of the current user for the dashboard.

use crate::services::Accounts;
use axum::Json;
use axum::extract::State;
use perfwatch_auth::AuthError;
use perfwatch_auth::preferences::Preferences;
use perfwatch_http::body::JsonBody;
use perfwatch_http::{ApiError, Audited, Caller};

/// Get the preferences of the current user
#[utoipa::path(
    get, path = "/api/v1/auth/preferences", tag = "account",
    responses((status = 200, body = Preferences)),
)]
pub(crate) async fn get_preferences(
    State(accounts): State<Accounts>,
    Caller(identity): Caller,
) -> Result<Json<Preferences>, ApiError> {
    let account = identity.account_id().ok_or(AuthError::Unauthenticated)?;
    Ok(Json(accounts.directory.preferences(account).await?))
}

/// Replace the preferences of the current user
#[utoipa::path(
    put, path = "/api/v1/auth/preferences", tag = "account",
    request_body = Preferences,
    responses((status = 200, body = Preferences), (status = 422)),
)]
pub(crate) async fn set_preferences(
    State(accounts): State<Accounts>,
    Audited(actor): Audited,
    JsonBody(preferences): JsonBody<Preferences>,
) -> Result<Json<Preferences>, ApiError> {
    let invalid = |message| ApiError::unprocessable("invalid_preferences", message);
    preferences.validate().map_err(invalid)?;
    accounts.directory.save_preferences(&actor, &preferences).await?;
    Ok(Json(preferences))
}
