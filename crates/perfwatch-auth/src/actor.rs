//! Who does something and from where, as the audit log tells it.

use super::client_addr::ClientAddr;
use super::identity::Identity;
use perfwatch_store::audit::AuditEntry;
use serde::Serialize;

/// Someone who changes something.
#[derive(Debug, Clone)]
pub struct Actor {
    pub identity: Identity,
    pub client_addr: ClientAddr,
}

/// An entry of the log; its time is that of its commit.
pub fn audit_entry(actor: String, client: &ClientAddr, action: &str, object: String) -> AuditEntry {
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
    pub fn audit(&self, action: &str, object: String) -> AuditEntry {
        audit_entry(self.identity.actor_name(), &self.client_addr, action, object)
    }

    /// The same with how it was and how it is; neither holds a secret.
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
