//! Detection of servers that refuse a login by closing the connection.

use crate::types::{ServerVersion, ServerVersions};
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, FailureCause};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Servers whose last login ended with a closed connection.
#[derive(Default)]
pub(crate) struct DisconnectTracker(Mutex<HashSet<ServerVersion>>);

impl DisconnectTracker {
    /// Classifies a failure of a collection.
    ///
    /// A connection that closes during the login is either broken or rejected by the server. Two in a row
    /// count as a rejected login, so that a password is not sent again and again.
    pub(crate) fn classify(
        &self,
        failure: CollectionFailure,
        versions: &ServerVersions,
    ) -> CollectionFailure {
        let is_disconnect =
            failure.stage == CollectionStage::Authenticate && failure.cause == FailureCause::ConnectionClosed;
        if !is_disconnect {
            return failure;
        }
        let mut disconnects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = versions.find_failed(&failure).is_none_or(|failed| disconnects.insert(failed));
        if is_first {
            return failure;
        }
        let message =
            format!("{} (second consecutive disconnect, treated as authentication failure)", failure.message);
        CollectionFailure { cause: FailureCause::AuthenticationFailed, message, ..failure }
    }

    /// Clears the servers whose login succeeded in a collection that reached the target: its jump hosts,
    /// and the target unless its login failed.
    pub(crate) fn clear<T>(&self, result: &Result<T, CollectionFailure>, versions: &ServerVersions) {
        let mut disconnects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for jump in &versions.jumps {
            disconnects.remove(jump);
        }
        let login_failed =
            result.as_ref().is_err_and(|failure| failure.stage == CollectionStage::Authenticate);
        if !login_failed {
            disconnects.remove(&versions.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::collection_failure;
    use uuid::Uuid;

    #[test]
    fn two_disconnects_count_as_authentication_failure() {
        let (target, jump) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let version = |id, version| ServerVersion { id, version };
        let versions = ServerVersions { target: version(target, 3), jumps: vec![version(jump, 1)] };
        let tracker = DisconnectTracker::default();
        let disconnect = |server_id, stage| CollectionFailure {
            server_id,
            ..collection_failure(FailureCause::ConnectionClosed, stage, "connection closed")
        };
        let classify = |server, stage| tracker.classify(disconnect(server, stage), &versions).cause;
        let login = CollectionStage::Authenticate;
        assert_eq!(classify(None, login), FailureCause::ConnectionClosed);
        // Other stages do not count, and the jump host is counted separately.
        assert_eq!(classify(None, CollectionStage::Handshake), FailureCause::ConnectionClosed);
        assert_eq!(classify(Some(jump), login), FailureCause::ConnectionClosed);
        assert_eq!(classify(None, login), FailureCause::AuthenticationFailed);
        assert_eq!(classify(Some(jump), login), FailureCause::AuthenticationFailed);
        // A collection that reached the login of the target passed the jump host.
        tracker.clear(&Err::<(), _>(disconnect(None, login)), &versions);
        assert_eq!(classify(Some(jump), login), FailureCause::ConnectionClosed);
        assert_eq!(classify(None, login), FailureCause::AuthenticationFailed);
        tracker.clear(&Ok(()), &versions);
        assert_eq!(classify(None, login), FailureCause::ConnectionClosed);
        // A changed server starts without disconnects.
        let changed = ServerVersions { target: version(target, 4), jumps: Vec::new() };
        assert_eq!(tracker.classify(disconnect(None, login), &changed).cause, FailureCause::ConnectionClosed);
    }
}
