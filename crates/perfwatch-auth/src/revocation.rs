//! Revocation: the end of a user's password or rights ends everything that was derived from them. Open
//! WebSockets are closed by the reload after the commit.

use crate::identity::Principal;
use crate::snapshot::AuthSnapshot;
use perfwatch_store::Transaction;
use perfwatch_store::accounts::{Account, Token};
use perfwatch_store::agents::EnrollmentToken;

/// Returns whether a change ends what the user created before: another password, fewer rights or none.
pub fn ends_credentials(before: &Account, after: &Account) -> bool {
    let is_limited = !after.host_tags.is_empty()
        && (before.host_tags.is_empty() || before.host_tags.iter().any(|tag| !after.host_tags.contains(tag)));
    before.password != after.password || after.role < before.role || !after.enabled || is_limited
}

/// Adds the writes that end everything derived from an account: sessions, API tokens, and enrollment tokens that
/// the user or these API tokens created. The new token epoch of the account, which the caller stores, ends
/// signed tokens.
pub fn revoke_derived(snapshot: &AuthSnapshot, account: &mut Account, tx: &mut Transaction) {
    account.token_epoch += 1;
    tx.sessions().delete_for_account(account.id);
    for token in snapshot.tokens.values().filter(|token| token.account == account.id) {
        tx.tokens().delete(token.id);
    }
    revoke_enrollment_tokens(snapshot, account, tx);
}

/// Adds the writes that end an API token and the enrollment tokens that it created. Those of earlier versions have
/// the names of their creator only.
pub fn revoke_token(snapshot: &AuthSnapshot, token: &Token, actor_name: &str, tx: &mut Transaction) {
    tx.tokens().delete(token.id);
    let is_created = |created: &&EnrollmentToken| match created.created_by_token {
        Some(id) => id == token.id,
        None => created.created_by == actor_name,
    };
    let created = snapshot.enrollment_tokens.values().filter(is_created);
    created.for_each(|created| tx.enrollment_tokens().delete(created.id));
}

/// Adds the writes that end the enrollment tokens of an account and of its API tokens.
pub fn revoke_enrollment_tokens(snapshot: &AuthSnapshot, account: &Account, tx: &mut Transaction) {
    for token in snapshot.enrollment_tokens.values() {
        if Principal::account_of_actor(&token.created_by) == Some(&account.name) {
            tx.enrollment_tokens().delete(token.id);
        }
    }
}
