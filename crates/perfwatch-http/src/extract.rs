//! Extractors of what the auth middleware resolved: identity, client address, and both as an actor.

use crate::error::ApiError;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use perfwatch_auth::{Actor, AuthError, ClientAddr, Grant, Identity};

/// Identity of the caller.
pub struct Caller(pub Identity);

/// Caller who is not limited to hosts with certain tags. Others are rejected.
pub struct AllHosts;

/// Address of the caller.
pub struct Client(pub ClientAddr);

/// Identity and address of the caller, for the audit log.
pub struct Audited(pub Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Identity>().cloned();
        identity.map(Self).ok_or_else(|| AuthError::Unauthenticated.into())
    }
}

impl<S: Sync> FromRequestParts<S> for AllHosts {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Caller(identity) = Caller::from_request_parts(parts, state).await?;
        require_all_hosts(&identity).map(|()| Self)
    }
}

/// Checks that the caller may see and change what affects all hosts.
///
/// # Errors
/// Returns `forbidden` for callers that are limited by host tags.
pub fn require_all_hosts(identity: &Identity) -> Result<(), ApiError> {
    match identity.host_tags.is_empty() {
        true => Ok(()),
        false => {
            let message = "this action affects all hosts, but your account is limited to some of them";
            Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::not_found("request did not pass the auth middleware");
        parts.extensions.get::<ClientAddr>().copied().map(Self).ok_or_else(missing)
    }
}

impl<S: Sync> FromRequestParts<S> for Audited {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let grant = parts.extensions.get::<Grant>().cloned().ok_or(AuthError::Unauthenticated)?;
        let Client(client_addr) = Client::from_request_parts(parts, state).await?;
        Ok(Self(Actor::new(grant, client_addr)))
    }
}
