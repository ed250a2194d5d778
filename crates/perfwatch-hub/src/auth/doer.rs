//! Who does something and from where, as the audit log tells it.

use super::client::Client;
use super::identity::Identity;
use crate::error::ApiError;
use perfwatch_store::people::AuditEntry;
use serde::Serialize;

/// Someone who changes something.
#[derive(Debug, Clone)]
pub(crate) struct Doer {
    pub(crate) identity: Identity,
    pub(crate) client: Client,
}

/// An entry of the log; its time is that of its commit.
pub(crate) fn entry(actor: String, client: &Client, action: &str, object: String) -> AuditEntry {
    AuditEntry {
        actor,
        address: client.address.to_string(),
        action: action.to_owned(),
        object,
        ..AuditEntry::default()
    }
}

impl Doer {
    /// What was done to what.
    pub(crate) fn did(&self, action: &str, object: String) -> AuditEntry {
        entry(self.identity.actor(), &self.client, action, object)
    }

    /// The same with how it was and how it is; neither holds a secret.
    pub(crate) fn changed<T: Serialize>(
        &self,
        action: &str,
        object: String,
        before: Option<&T>,
        after: Option<&T>,
    ) -> AuditEntry {
        let text = |value: Option<&T>| value.and_then(|value| serde_json::to_string(value).ok());
        AuditEntry { before: text(before), after: text(after), ..self.did(action, object) }
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, ApiError> {
        let unseen = || ApiError::not_found("a request that did not come through the door");
        parts.extensions.get::<Self>().copied().ok_or_else(unseen)
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Doer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let identity = Identity::from_request_parts(parts, state).await?;
        let client = Client::from_request_parts(parts, state).await?;
        Ok(Self { identity, client })
    }
}
