//! API errors and their JSON envelope: `{"error": {"code", "message"}}`. Codes are stable and meant for
//! programs; messages are meant for people and may change.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use perfwatch_auth::AuthError;
use perfwatch_store::{CommitError, StoreError};
use perfwatch_workers::WorkError;
use serde_json::json;
use std::borrow::Cow;

/// Error response of a handler or the middleware.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// Error with a code for programs and a message for people.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), retry_after_s: None }
    }

    /// HTTP status of the error.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Stable code of the error, for programs.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Error message for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `400` for a request that cannot be parsed.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// `422` for a well-formed request with invalid values.
    pub fn unprocessable(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// `413` for a body above its size limit.
    pub fn too_large(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, message)
    }

    /// `404` for an object that does not exist or is not visible.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// `429` with the time until the next attempt.
    pub fn too_many(message: impl Into<String>, wait: std::time::Duration) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        // Whole seconds (RFC 9110, 10.2.3), rounded up.
        error.retry_after_s = Some(wait.as_secs() + 1);
        error
    }

    /// `405` for a route without this method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed")
    }

    /// `409` for a state that contradicts the request.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// `503` with the time until a retry may succeed.
    pub fn unavailable(code: &'static str, message: impl Into<String>, retry_after_s: u64) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        error.retry_after_s = Some(retry_after_s);
        error
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::TooLarge(_) = error {
            perfwatch_model::limit_table::RESULT_SERIES.refuse();
            let message = format!("{error}; select fewer metrics, single instances, or a shorter range");
            return Self::unprocessable("too_many_series", message);
        }
        tracing::warn!(error = %error, "store request failed");
        // The message may contain internals and the caller may be anonymous: details are in the log only.
        Self::unavailable("store_unavailable", "store unavailable; see the hub log", 5)
    }
}

impl From<WorkError> for ApiError {
    fn from(error: WorkError) -> Self {
        let message = error.to_string();
        match error {
            WorkError::InputTooLarge(_) => Self::too_large("body_too_large", message),
            WorkError::ShareExceeded => Self::too_many(message, std::time::Duration::from_secs(5)),
            WorkError::QueueFull => Self::unavailable("busy", message, 5),
            WorkError::TimedOut(_) => Self::unprocessable("too_complex", message),
            WorkError::Failed => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let (status, code) = match &error {
            AuthError::Unauthenticated => (StatusCode::UNAUTHORIZED, "authentication_required"),
            AuthError::InvalidAuthorizationHeader => {
                (StatusCode::UNAUTHORIZED, "invalid_authorization_header")
            }
            AuthError::TokenInQuery => (StatusCode::UNAUTHORIZED, "token_in_query"),
            AuthError::SessionExpired => (StatusCode::UNAUTHORIZED, "session_expired"),
            AuthError::TokenExpired(_) => (StatusCode::UNAUTHORIZED, "token_expired"),
            AuthError::UnknownToken => (StatusCode::UNAUTHORIZED, "unknown_token"),
            AuthError::UnknownAgent => (StatusCode::UNAUTHORIZED, "unknown_agent"),
            AuthError::AgentRevoked => (StatusCode::FORBIDDEN, "agent_revoked"),
            AuthError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            AuthError::ConfirmationRequired => (StatusCode::FORBIDDEN, "confirmation_required"),
            AuthError::InvalidCredentials | AuthError::TotpUnavailable => {
                (StatusCode::UNAUTHORIZED, "invalid_credentials")
            }
            AuthError::TotpRequired => (StatusCode::UNAUTHORIZED, "totp_required"),
            AuthError::WrongPassword => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_password"),
            AuthError::InvalidAccount(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_account"),
            AuthError::EncryptionKeyMissing => (StatusCode::UNPROCESSABLE_ENTITY, "encryption_key_missing"),
            AuthError::IdentityProvider => (StatusCode::BAD_GATEWAY, "sso_failed"),
            AuthError::Throttled(delay) => return Self::too_many(error.to_string(), *delay),
            AuthError::HashingFailed | AuthError::SigningKeyMissing => {
                return Self::unavailable("internal_error", error.to_string(), 5);
            }
            AuthError::Conflict => return CommitError::Conflict.into(),
            AuthError::Store(error) => return error.clone().into(),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::conflict("conflict", "modified concurrently; reload and retry"),
            CommitError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
