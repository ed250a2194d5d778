//! Jump hosts whose credentials are known to be accepted.

use crate::types::{ServerVersion, ServerVersions};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::MutexGuard;

/// Maximum time for which a collection waits for the verification of a jump host.
const VERIFICATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Jump hosts that accepted a login.
///
/// Collections through an unverified jump host run one at a time. Of many servers behind the jump
/// host, only the first sends credentials that may be wrong; the others observe the result.
#[derive(Default)]
pub(crate) struct VerifiedJumps {
    verified: Mutex<HashSet<ServerVersion>>,
    verification: tokio::sync::Mutex<()>,
}

impl VerifiedJumps {
    /// Returns whether all jump hosts accepted a login.
    pub(crate) fn contains_all(&self, versions: &ServerVersions) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        versions.jumps.iter().all(|jump| verified.contains(jump))
    }

    /// Waits until no other collection verifies a jump host; `None` after the timeout.
    pub(crate) async fn lock(&self) -> Option<MutexGuard<'_, ()>> {
        tokio::time::timeout(VERIFICATION_TIMEOUT, self.verification.lock()).await.ok()
    }

    /// Stores that a collection passed all jump hosts.
    pub(crate) fn insert(&self, versions: &ServerVersions) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.extend(versions.jumps.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test(start_paused = true)]
    async fn unverified_jump_hosts_are_verified_one_at_a_time() {
        let version = |id, version| ServerVersion { id: Uuid::from_u128(id), version };
        let versions = ServerVersions { target: version(1, 1), jumps: vec![version(2, 1)] };
        let jumps = VerifiedJumps::default();
        assert!(!jumps.contains_all(&versions));
        let guard = jumps.lock().await.unwrap();
        assert!(jumps.lock().await.is_none());
        jumps.insert(&versions);
        drop(guard);
        assert!(jumps.lock().await.is_some() && jumps.contains_all(&versions));
        let changed = ServerVersions { jumps: vec![version(2, 2)], ..versions };
        assert!(!jumps.contains_all(&changed));
        assert!(jumps.contains_all(&ServerVersions { jumps: Vec::new(), ..changed }));
    }
}
