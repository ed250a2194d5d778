//! Directory of tests, with an administrator who has just logged in.

use crate::config::SessionLifetimes;
use crate::directory::AuthDirectory;
use crate::encryption::Keyring;
use crate::secret;
use perfwatch_model::{Clock, ManualClock};
use perfwatch_store::accounts::{Account, Role, Session};
use perfwatch_store::{SqliteOptions, SqliteStore, Store, Transaction};
use std::path::Path;
use std::sync::Arc;

/// Session cookie of the administrator.
pub(crate) const COOKIE: &str = "cookie";

/// Directory at time 0, with the account of the administrator `alice`.
pub(crate) async fn open(clock: &Arc<ManualClock>, folder: &Path) -> (Arc<AuthDirectory>, Account) {
    let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 64 << 20 };
    let clock: Arc<dyn Clock> = clock.clone();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock.clone()).unwrap());
    let (keyring, lifetimes) = (Arc::new(Keyring::new(&[])), SessionLifetimes::default());
    let directory = AuthDirectory::open(store, clock, keyring, lifetimes).await.unwrap();
    let account = Account::new("alice".to_owned(), Role::Admin, 0);
    let session = Session {
        hash: secret::hash_secret(COOKIE),
        account: account.id,
        created_ms: 0,
        last_used_ms: 0,
        address: "192.0.2.1".to_owned(),
        user_agent: String::new(),
    };
    let insert = |tx: &mut Transaction| {
        tx.accounts().insert(&account);
        tx.sessions().insert(&session);
    };
    change(&directory, Transaction::build(insert)).await;
    (directory, account)
}

/// Commits a change of access data.
pub(crate) async fn change(directory: &Arc<AuthDirectory>, tx: Transaction) {
    directory.begin_unattended_write().await.unwrap().commit(tx, None).await.unwrap();
}
