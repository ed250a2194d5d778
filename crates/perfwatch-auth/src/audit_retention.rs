//! Retention of the audit log, shared by principal: those with the most entries lose their oldest ones first, so
//! that no principal can push out the entries of others, or its own entries of another kind.

use perfwatch_model::limit_table;
use perfwatch_model::limits::MAX_AUDIT_ENTRIES;
use perfwatch_store::audit::{AuditCount, count_audit_entries, newest_audit_id, principal_of_actor};
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

/// Age at which audit entries are deleted.
pub(crate) const AUDIT_RETENTION_MS: i64 = 2 * 366 * 86_400_000;
/// Number of new entries after which the shares are computed again.
const MIN_NEW_ENTRIES: i64 = 1_000;
/// Maximum number of shares that a run reduces; each reads the whole log.
const MAX_REDUCED_SHARES: usize = 50;

/// Objects whose changes are security acts: access to the hub, and secrets of other systems.
const SECURITY_OBJECTS: [&str; 6] = ["user", "enrollment_token", "agent", "channel", "server", "session"];
/// Actions on these objects that change nothing and are repeated at will.
const ROUTINE_ACTIONS: [&str; 4] = ["channel.test", "server.test", "server.collect", "server.collect_all"];

/// Returns whether an action changes access to the hub or stored secrets.
fn is_security_act(action: &str) -> bool {
    let is_change = action == "token.create" || action == "token.delete" || action == "host.delete";
    let object = action.split('.').next().unwrap_or_default();
    is_change || (SECURITY_OBJECTS.contains(&object) && !ROUTINE_ACTIONS.contains(&action))
}

/// Deletes entries of the audit log above the share of their principal.
#[derive(Debug, Default)]
pub(crate) struct AuditRetention {
    /// Newest entry when the shares were computed last.
    newest_id: AtomicI64,
}

impl AuditRetention {
    /// Deletes the oldest entries of the largest shares if the log exceeds its limit.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub(crate) async fn enforce(&self, store: &dyn Store) -> Result<(), StoreError> {
        let newest_id = newest_audit_id(store).await?;
        if newest_id - self.newest_id.load(Ordering::Relaxed) < MIN_NEW_ENTRIES {
            return Ok(());
        }
        self.newest_id.store(newest_id, Ordering::Relaxed);
        let mut tx = Transaction::default();
        for share in excess_shares(&count_audit_entries(store).await?, MAX_AUDIT_ENTRIES) {
            limit_table::AUDIT_ENTRIES.refuse_many(share.excess.unsigned_abs());
            tx.audit().keep_newest(share.principal, share.action, share.retained);
        }
        match store.commit(tx).await {
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

/// Entries of a principal with one action above their share.
#[derive(Debug, PartialEq, Eq)]
struct ExcessShare<'a> {
    principal: &'a str,
    action: &'a str,
    retained: i64,
    excess: i64,
}

/// Largest shares that must be reduced, so that security acts and all others have at most `max` entries each.
fn excess_shares(counts: &[AuditCount], max: i64) -> Vec<ExcessShare<'_>> {
    let mut excess = Vec::new();
    for is_security in [true, false] {
        let mut shares: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for count in counts.iter().filter(|count| is_security_act(&count.action) == is_security) {
            *shares.entry((principal_of_actor(&count.actor), &count.action)).or_default() += count.entries;
        }
        let Some(retained) = fair_share(shares.values().copied().collect(), max) else { continue };
        let above = shares.into_iter().filter(|(_, entries)| *entries > retained);
        excess.extend(above.map(|((principal, action), entries)| ExcessShare {
            principal,
            action,
            retained,
            excess: entries - retained,
        }));
    }
    excess.sort_by_key(|share| -share.excess);
    excess.truncate(MAX_REDUCED_SHARES);
    excess
}

/// Number of entries to which the largest shares must be reduced; `None` if all together are at most `max`.
fn fair_share(mut shares: Vec<i64>, max: i64) -> Option<i64> {
    shares.sort_unstable();
    let (mut remaining, mut number) = (max, shares.len() as i64);
    for share in shares {
        if share * number > remaining {
            return Some((remaining / number).max(1));
        }
        remaining -= share;
        number -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(actor: &str, action: &str, entries: i64) -> AuditCount {
        AuditCount { actor: actor.to_owned(), action: action.to_owned(), entries }
    }

    /// M7: a viewer who signs tokens and tests servers without end loses only own entries of this kind.
    #[test]
    fn flooding_principal_loses_only_own_entries() {
        let counts = [
            count("user vera", "token.sign", 30_000),
            count("token a (user vera)", "token.sign", 70_000),
            count("token b (user vera)", "token.sign", 5_000),
            count("user vera", "token.create", 90),
            count("user alice", "token.sign", 4_000),
            count("user alice", "user.create", 40),
            count("anonymous", "login.failed", 50_000),
        ];
        assert_eq!(excess_shares(&counts, 200_000), []);
        let share = |principal, action, retained, excess| ExcessShare { principal, action, retained, excess };
        assert_eq!(
            excess_shares(&counts, 100_000),
            [
                share("user vera", "token.sign", 48_000, 57_000),
                share("anonymous", "login.failed", 48_000, 2_000)
            ]
        );
    }

    /// M7: the entries of security acts have a share of their own.
    #[test]
    fn security_acts_are_counted_apart() {
        for action in
            ["user.create", "token.delete", "agent.enroll_failed", "server.update", "session.confirm"]
        {
            assert!(is_security_act(action), "{action}");
        }
        for action in
            ["token.sign", "login", "login.failed", "server.test", "channel.test", "queue.pause", ""]
        {
            assert!(!is_security_act(action), "{action}");
        }
        let counts = [count("user a", "user.create", 100), count("user a", "server.test", 1_000)];
        let excess = excess_shares(&counts, 100);
        assert_eq!((excess.len(), excess[0].action, excess[0].retained), (1, "server.test", 100));
    }

    #[test]
    fn fair_share_is_max_min_fair() {
        for (shares, max, want) in [
            (vec![], 10, None),
            (vec![5, 5], 10, None),
            (vec![1, 100], 10, Some(9)),
            (vec![3, 8, 100], 15, Some(6)),
            (vec![7, 7, 7], 9, Some(3)),
            (vec![2; 20], 10, Some(1)),
        ] {
            assert_eq!(fair_share(shares.clone(), max), want, "{shares:?}");
        }
    }
}
