//! Actor of a change: the principal and address that the audit log records.

use crate::client_addr::ClientAddr;
use crate::directory::{AuthDirectory, WriteGuard};
use crate::error::AuthError;
use crate::grant::Grant;
use crate::identity::Identity;
use perfwatch_store::audit::AuditEntry;
use serde::Serialize;
use std::sync::Arc;

/// Identity and address that make a change.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Identity of the caller.
    pub identity: Identity,
    /// Address of the caller.
    pub client_addr: ClientAddr,
    /// Right of the request, which each change checks again.
    grant: Grant,
}

/// Audit entry without before and after; the commit sets its time.
pub fn audit_entry(actor: String, client: &ClientAddr, action: &str, object: String) -> AuditEntry {
    AuditEntry {
        actor,
        address: client.address.to_string(),
        action: action.to_owned(),
        object,
        ..AuditEntry::default()
    }
}

impl AuthDirectory {
    /// Waits for the write lock, loads changes of other hubs, and checks the right of the request again: it may
    /// have ended since the headers of the request arrived.
    ///
    /// # Errors
    /// Returns the reason if the actor lost the right, and [`AuthError::Store`] if the database cannot be
    /// reached.
    pub async fn begin_write(self: &Arc<Self>, actor: &Actor) -> Result<WriteGuard<'_>, AuthError> {
        let guard = self.begin_unattended_write().await?;
        actor.recheck()?;
        Ok(guard)
    }
}

impl Actor {
    /// Actor of a request.
    pub fn new(grant: Grant, client_addr: ClientAddr) -> Self {
        Self { identity: grant.identity().clone(), client_addr, grant }
    }

    /// Checks the right of the request again, before a change.
    ///
    /// # Errors
    /// As [`Grant::recheck`].
    pub fn recheck(&self) -> Result<(), AuthError> {
        self.grant.recheck()
    }

    /// Checks the right of the request again, and stores the audit entry of an act that changes no access data.
    ///
    /// # Errors
    /// As [`Grant::recheck`].
    pub async fn record(&self, entry: AuditEntry) -> Result<(), AuthError> {
        self.recheck()?;
        self.grant.directory().record_audit(entry).await;
        Ok(())
    }

    /// Audit entry of an action on an object.
    pub fn audit(&self, action: &str, object: String) -> AuditEntry {
        audit_entry(self.identity.actor_name(), &self.client_addr, action, object)
    }

    /// Audit entry of an action on the caller's own account.
    pub fn audit_self(&self, action: &str) -> AuditEntry {
        self.audit(action, self.identity.actor_name())
    }

    /// Audit entry with the object before and after the change; neither may contain a secret.
    pub fn audit_change<T: Serialize>(
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
