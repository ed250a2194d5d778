//! Who does something and from where, as the audit log tells it.

use super::client_addr::ClientAddr;
use super::identity::Identity;
use crate::error::ApiError;
use perfwatch_store::audit::AuditEntry;
use serde::Serialize;

/// Someone who changes something.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) identity: Identity,
    pub(crate) client_addr: ClientAddr,
}

/// An entry of the log; its time is that of its commit.
pub(crate) fn audit_entry(actor: String, client: &ClientAddr, action: &str, object: String) -> AuditEntry {
    AuditEntry {
        actor,
        address: client.address.to_string(),
        action: action.to_owned(),
        object,
        ..AuditEntry::default()
    }
}

impl Actor {
    /// What was done to what.
    pub(crate) fn audit(&self, action: &str, object: String) -> AuditEntry {
        audit_entry(self.identity.actor_name(), &self.client_addr, action, object)
    }

    /// The same with how it was and how it is; neither holds a secret.
    pub(crate) fn audit_change<T: Serialize>(
        &self,
        action: &str,
        object: String,
        before: Option<&T>,
        after: Option<&T>,
    ) -> AuditEntry {
        let text = |value: Option<&T>| value.and_then(|value| serde_json::to_string(value).ok());
        AuditEntry { before: text(before), after: text(after), ..self.audit(action, object) }
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for ClientAddr {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, ApiError> {
        let unseen = || ApiError::not_found("request did not pass the auth middleware");
        parts.extensions.get::<Self>().copied().ok_or_else(unseen)
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let identity = Identity::from_request_parts(parts, state).await?;
        let client = ClientAddr::from_request_parts(parts, state).await?;
        Ok(Self { identity, client_addr: client })
    }
}
