//! All accounts, sessions, tokens and agents in memory. The copy is reloaded after each change of this
//! hub and, within a second, after changes of other hubs; open WebSockets are notified.

use crate::audit_retention::{AUDIT_RETENTION_MS, AuditRetention};
use crate::config::SessionLifetimes;
use crate::encryption::{DecryptError, Keyring, SecretRotation, StoredSecret};
use crate::error::AuthError;
use crate::last_used::{LastUsedBuffer, UnencryptedAgents};
pub use crate::snapshot::AuthSnapshot;
use crate::{account_name, password, secret, totp};
use perfwatch_model::{Clock, FailureStreak};
use perfwatch_store::accounts::{Account, Role, SecretHash, Session};
use perfwatch_store::agents::Agent;
use perfwatch_store::audit::{AuditEntry, AuditFilter, list_audit_entries};
use perfwatch_store::revision::Revision;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Interval at which changes of other hubs are noticed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which last-used times are stored.
const LAST_USED_FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which expired sessions, tokens and audit entries are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Age at which expired enrollment tokens are deleted; until then they are listed as expired.
const ENROLLMENT_TOKEN_RETENTION_MS: i64 = 86_400_000;
/// Interval at which the retention of the audit log is checked.
const AUDIT_RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of attempts to re-encrypt secrets while other changes interfere.
const MAX_REENCRYPT_ATTEMPTS: usize = 5;

/// Additional authenticated data of a two-factor secret: binds it to its account.
fn totp_aad(account: Uuid) -> Vec<u8> {
    [b"totp secret ".as_slice(), account.as_bytes()].concat()
}

/// Credentials of all users, tokens and agents.
pub struct AuthDirectory {
    pub(crate) store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keyring: Arc<Keyring>,
    snapshot: RwLock<Arc<AuthSnapshot>>,
    last_used: LastUsedBuffer,
    audit_retention: AuditRetention,
    unencrypted_agents: UnencryptedAgents,
    /// Revision of the newest snapshot.
    changes_tx: watch::Sender<i64>,
    /// Monotonic time at which the last refresh for an unknown credential started.
    missed_at: tokio::sync::Mutex<Option<Duration>>,
    /// Serializes changes, so that each is decided on the newest snapshot.
    write_lock: tokio::sync::Mutex<()>,
    /// Secret of the embedded agent, new at each start and never stored.
    embedded_agent_secret: String,
    embedded_agent_hash: SecretHash,
    session_lifetimes: RwLock<SessionLifetimes>,
    min_password_length: AtomicUsize,
}

/// Exclusive right to change access data, held while a change is decided and committed.
pub struct WriteGuard<'a> {
    directory: &'a Arc<AuthDirectory>,
    /// Revision that the change is based on; the commit fails if another hub changed it.
    base_revision: i64,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl AuthDirectory {
    /// Loads all credentials, creates signing keys in a new database, and re-encrypts two-factor
    /// secrets with the current key.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        keyring: Arc<Keyring>,
        session_lifetimes: SessionLifetimes,
    ) -> Result<Arc<Self>, StoreError> {
        let tx = Transaction::build(|tx| tx.revision(Revision::Access).init());
        match store.commit(tx).await {
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let embedded_agent_secret = secret::generate(secret::SecretKind::Agent);
        let directory = Arc::new(Self {
            snapshot: RwLock::new(Arc::new(AuthSnapshot::load(&*store).await?)),
            store,
            clock,
            keyring,
            last_used: LastUsedBuffer::default(),
            audit_retention: AuditRetention::default(),
            unencrypted_agents: UnencryptedAgents::default(),
            changes_tx: watch::Sender::new(0),
            missed_at: tokio::sync::Mutex::default(),
            write_lock: tokio::sync::Mutex::default(),
            embedded_agent_hash: secret::hash_secret(&embedded_agent_secret),
            embedded_agent_secret,
            session_lifetimes: RwLock::new(session_lifetimes),
            min_password_length: AtomicUsize::new(password::MIN_PASSWORD_CHARS),
        });
        directory.rotate_keys().await?;
        directory.reencrypt().await?;
        Ok(directory)
    }

    /// Newest copy of all credentials.
    pub fn snapshot(&self) -> Arc<AuthSnapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Receiver of the revision after each change.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.changes_tx.subscribe()
    }

    /// Secret of the embedded agent.
    pub fn embedded_agent_secret(&self) -> &str {
        &self.embedded_agent_secret
    }

    pub(crate) fn is_embedded_agent(&self, hash: &SecretHash) -> bool {
        *hash == self.embedded_agent_hash
    }

    /// Builds an account with a hashed password; the caller stores it.
    ///
    /// # Errors
    /// Returns [`AuthError::InvalidAccount`] for a name or password that violates the rules.
    pub async fn new_account(&self, name: &str, role: Role, password: String) -> Result<Account, AuthError> {
        let name = account_name::normalize(name);
        if let Some(error) =
            account_name::validate(&name).or_else(|| self.validate_password(&password, &name))
        {
            return Err(AuthError::InvalidAccount(error));
        }
        let password = Some(password::hash(password).await?);
        Ok(Account { password, ..Account::new(name, role, self.now_ms()) })
    }

    /// As `begin_write` of an actor, for tasks of the hub and for requests whose secret is verified under the lock,
    /// such as logins and enrollments.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn begin_unattended_write(self: &Arc<Self>) -> Result<WriteGuard<'_>, StoreError> {
        let guard = self.write_lock.lock().await;
        if Revision::Access.get(&*self.store).await? != self.snapshot().revision {
            self.reload().await?;
        }
        Ok(WriteGuard { directory: self, base_revision: self.snapshot().revision, _guard: guard })
    }

    /// Stores an audit entry that belongs to no change of access data. A failure is logged.
    pub async fn record_audit(&self, entry: AuditEntry) {
        let entry = AuditEntry { at_ms: self.now_ms(), ..entry };
        let tx = Transaction::build(|tx| tx.audit().insert(&entry));
        if let Err(error) = self.store.commit(tx).await {
            tracing::warn!(?error, entry.action, "failed to write an audit log entry");
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let mut loaded = AuthSnapshot::load(&*self.store).await?;
        self.last_used.apply(&mut loaded.sessions);
        let revision = loaded.revision;
        {
            let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            // A concurrent reload may have loaded a newer revision.
            if current.revision > revision {
                return Ok(());
            }
            *current = Arc::new(loaded);
        }
        self.changes_tx.send_replace(revision);
        Ok(())
    }

    /// Creates a new signing key if the newest key is old enough.
    async fn rotate_keys(self: &Arc<Self>) -> Result<(), StoreError> {
        let guard = self.begin_unattended_write().await?;
        let Some(rotation) = self.snapshot().signing_keys.rotate(self.now_ms()) else {
            return Ok(());
        };
        match guard.commit(rotation, None).await {
            // On a conflict, another hub rotated the keys at the same time.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    async fn purge_expired(self: &Arc<Self>) -> Result<(), StoreError> {
        self.rotate_keys().await?;
        let now_ms = self.now_ms();
        let before = |age: Duration| now_ms - i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 2);
        let SessionLifetimes { idle_timeout, max_age } = self.session_lifetimes();
        let mut tx = Transaction::default();
        tx.sessions().delete_expired(before(idle_timeout), before(max_age));
        tx.enrollment_tokens().delete_expired(now_ms - ENROLLMENT_TOKEN_RETENTION_MS);
        tx.audit().delete_before(now_ms - AUDIT_RETENTION_MS);
        self.commit_and_reload(tx).await
    }

    /// Commits writes that cannot conflict, and reloads.
    async fn commit_and_reload(&self, tx: Transaction) -> Result<(), StoreError> {
        match self.store.commit(tx).await {
            Ok(()) | Err(CommitError::Conflict) => self.reload().await,
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Encrypts a two-factor secret for its account.
    ///
    /// # Errors
    /// Returns [`AuthError::EncryptionKeyMissing`] if no encryption key is configured.
    pub fn encrypt_totp_secret(&self, account: Uuid, key: &[u8]) -> Result<Vec<u8>, AuthError> {
        self.keyring.encrypt(&totp_aad(account), key).ok_or(AuthError::EncryptionKeyMissing)
    }

    /// Decrypts the two-factor secret of an account; `None` if it has none.
    ///
    /// # Errors
    /// Returns [`DecryptError`] if the secret is corrupt or its key is not configured.
    pub fn decrypt_totp_secret(&self, account: &Account) -> Result<Option<Vec<u8>>, DecryptError> {
        match account.totp_secret.as_deref() {
            // Without an encryption key, older hubs stored the secret in plain text.
            Some(plain) if plain.len() == totp::KEY_BYTES => Ok(Some(plain.to_vec())),
            Some(encrypted) => self.keyring.decrypt(&totp_aad(account.id), encrypted).map(Some),
            None => Ok(None),
        }
    }

    /// Re-encrypts two-factor secrets that are in plain text or encrypted with an earlier key.
    async fn reencrypt(self: &Arc<Self>) -> Result<(), StoreError> {
        const KIND: &str = "two-factor secrets";
        for _ in 0..MAX_REENCRYPT_ATTEMPTS {
            let guard = self.begin_unattended_write().await?;
            let mut rotation = SecretRotation::new(&self.keyring, KIND);
            let mut tx = Transaction::default();
            for account in self.snapshot().accounts.values() {
                let Some(stored) = account.totp_secret.as_deref() else { continue };
                let stored = match stored.len() {
                    totp::KEY_BYTES => StoredSecret::Plain(stored),
                    _ => StoredSecret::Encrypted(stored),
                };
                if let Some(totp_secret) = rotation.rotate(&totp_aad(account.id), stored) {
                    tx.accounts().update(&Account { totp_secret: Some(totp_secret), ..account.clone() });
                }
            }
            let result = if tx.is_empty() { Ok(()) } else { guard.commit(tx, None).await };
            match result {
                Ok(()) => {
                    rotation.log();
                    return Ok(());
                }
                // Another hub changed an account: decide again on the newer snapshot.
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        SecretRotation::log_conflict(KIND);
        Ok(())
    }

    /// Last use of a session, milliseconds since 1970; not stored yet if recent.
    pub fn session_last_used_ms(&self, session: &Session) -> i64 {
        self.last_used.session_ms(session)
    }

    /// Last request of an agent, milliseconds since 1970; not stored yet if recent.
    pub fn agent_last_seen_ms(&self, agent: &Agent) -> i64 {
        self.last_used.agent_ms(agent)
    }

    pub(crate) fn unencrypted_agents(&self) -> &UnencryptedAgents {
        &self.unencrypted_agents
    }

    /// Returns whether the latest request of an agent came from another machine over a connection without
    /// encryption. False before the first request since the start.
    pub fn is_unencrypted(&self, agent: Uuid) -> bool {
        self.unencrypted_agents.contains(agent)
    }

    pub(crate) fn last_used(&self) -> &LastUsedBuffer {
        &self.last_used
    }

    async fn flush_last_used(&self) -> Result<(), StoreError> {
        let tx = self.last_used.drain();
        if tx.is_empty() { Ok(()) } else { self.commit_and_reload(tx).await }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        if Revision::Access.get(&*self.store).await? == self.snapshot().revision {
            return Ok(());
        }
        self.reload().await
    }

    /// Loads changes that another hub or the command line made just now, because a credential is unknown or
    /// wrong in `seen`. Concurrent callers share one query. Returns true if there were changes since `seen`,
    /// which the periodic refresh may have loaded during the hashing of a password.
    pub async fn refresh_after_miss(&self, seen: &AuthSnapshot) -> bool {
        let arrived = self.clock.monotonic();
        let mut missed_at = self.missed_at.lock().await;
        if missed_at.is_none_or(|at| at <= arrived) {
            *missed_at = Some(self.clock.monotonic());
            // A store that is unavailable is reported by the periodic refresh.
            let _ = self.refresh().await;
        }
        drop(missed_at);
        self.snapshot().revision != seen.revision
    }

    /// Returns whether an enrollment token with this secret exists, valid or not.
    pub async fn has_enrollment_token(&self, text: &str) -> bool {
        let hash = secret::hash_secret(text);
        let is_known = |snapshot: &AuthSnapshot| snapshot.enrollment_tokens.contains_key(&hash);
        let seen = self.snapshot();
        is_known(&seen) || (self.refresh_after_miss(&seen).await && is_known(&self.snapshot()))
    }

    /// Loads changes of other hubs, stores last-used times and purges, until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        let mut flushed_at = self.clock.monotonic();
        let (mut purged_at, mut audited_at): (Option<Duration>, Option<Duration>) = (None, None);
        let mut failures = FailureStreak::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let refreshed = self.refresh().await;
            if let Some(error) = failures.first_error(&refreshed) {
                tracing::warn!(%error, "failed to refresh accounts; using the cached copy");
            }
            if refreshed.is_err() {
                continue;
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(flushed_at) >= LAST_USED_FLUSH_INTERVAL {
                flushed_at = now;
                if let Err(error) = self.flush_last_used().await {
                    tracing::warn!(%error, "failed to save last-used times");
                }
            }
            if audited_at.is_none_or(|at| now.saturating_sub(at) >= AUDIT_RETENTION_INTERVAL) {
                audited_at = Some(now);
                if let Err(error) = self.audit_retention.enforce(&*self.store).await {
                    tracing::warn!(%error, "failed to delete old audit log entries");
                }
            }
            if purged_at.is_none_or(|at| now.saturating_sub(at) >= PURGE_INTERVAL) {
                purged_at = Some(now);
                if let Err(error) = self.purge_expired().await {
                    tracing::warn!(%error, "failed to purge expired sessions and tokens");
                }
            }
        }
        if let Err(error) = self.flush_last_used().await {
            tracing::warn!(%error, "failed to save last-used times");
        }
    }

    /// Audit entries that match a filter, newest first.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        list_audit_entries(&*self.store, filter).await
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Lifetimes of browser sessions.
    pub fn session_lifetimes(&self) -> SessionLifetimes {
        *self.session_lifetimes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the lifetimes of browser sessions; they apply to open sessions too.
    pub fn set_session_lifetimes(&self, lifetimes: SessionLifetimes) {
        *self.session_lifetimes.write().unwrap_or_else(PoisonError::into_inner) = lifetimes;
    }

    /// Minimum length of new passwords, in characters.
    pub fn min_password_length(&self) -> usize {
        self.min_password_length.load(Ordering::Relaxed)
    }

    /// Replaces the minimum length of new passwords.
    pub fn set_min_password_length(&self, length: usize) {
        self.min_password_length.store(length, Ordering::Relaxed);
    }

    /// Validates a new password; returns the violated rule.
    pub fn validate_password(&self, password: &str, name: &str) -> Option<String> {
        password::validate(password, name, self.min_password_length())
    }

    /// Time of the hub's clock, milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }
}

impl WriteGuard<'_> {
    /// Commits writes with their audit entries, all or none, and reloads the directory.
    ///
    /// # Errors
    /// Returns [`CommitError::Conflict`] if another hub changed access data since
    /// [`AuthDirectory::begin_write`], [`CommitError::Store`] if the store fails.
    pub async fn commit(
        &self,
        mut tx: Transaction,
        entries: impl IntoIterator<Item = AuditEntry>,
    ) -> Result<(), CommitError> {
        let at_ms = self.directory.now_ms();
        for entry in entries {
            tx.audit().insert(&AuditEntry { at_ms, ..entry });
        }
        tx.revision(Revision::Access).bump(self.base_revision);
        let directory = self.directory.clone();
        // Spawned, because a cancelled request must not leave a committed change unloaded.
        let task = tokio::spawn(async move {
            directory.store.commit(tx).await?;
            Ok(directory.reload().await?)
        });
        let panicked = |error: tokio::task::JoinError| StoreError::Unavailable(error.to_string());
        task.await.unwrap_or_else(|error| Err(panicked(error).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::ManualClock;
    use perfwatch_store::{SqliteOptions, SqliteStore};

    fn open_store(folder: &std::path::Path, clock: &Arc<dyn Clock>) -> Arc<dyn Store> {
        let options = SqliteOptions { folder: folder.to_owned(), budget_bytes: 64 << 20 };
        Arc::new(SqliteStore::open(&options, clock.clone()).unwrap())
    }

    /// The periodic refresh may load a change while the caller still hashes the password that it read before.
    #[tokio::test]
    async fn changes_since_a_miss_are_reported_whoever_loaded_them() {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(0));
        let store = open_store(folder.path(), &clock);
        let keyring = Arc::new(Keyring::new(&[]));
        let directory =
            AuthDirectory::open(store, clock, keyring, SessionLifetimes::default()).await.unwrap();
        let seen = directory.snapshot();
        assert!(!directory.refresh_after_miss(&seen).await);
        let account = Account::new("vera".to_owned(), Role::Viewer, 0);
        let tx = Transaction::build(|tx| tx.accounts().insert(&account));
        directory.begin_unattended_write().await.unwrap().commit(tx, None).await.unwrap();
        assert!(directory.refresh_after_miss(&seen).await);
        assert!(!directory.refresh_after_miss(&directory.snapshot()).await);
    }

    #[tokio::test]
    async fn plaintext_totp_secrets_are_encrypted_at_startup() {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(0));
        let store = open_store(folder.path(), &clock);
        let open = async |keys: &[[u8; 32]]| {
            let keyring = Arc::new(Keyring::new(keys));
            AuthDirectory::open(store.clone(), clock.clone(), keyring, SessionLifetimes::default())
                .await
                .unwrap()
        };
        let stored = async || Account::list(&*store).await.unwrap().pop().unwrap();
        let key = totp::generate();
        let account =
            Account { totp_secret: Some(key.clone()), ..Account::new("vera".to_owned(), Role::Viewer, 0) };
        let tx = Transaction::build(|tx| tx.accounts().insert(&account));
        open(&[]).await.begin_unattended_write().await.unwrap().commit(tx, None).await.unwrap();
        assert_eq!(stored().await.totp_secret, Some(key.clone()), "without a key, the secret stays as it is");
        for keys in [vec![[1; 32]], vec![[2; 32], [1; 32]], vec![[2; 32]]] {
            let directory = open(&keys).await;
            let encrypted = stored().await;
            assert!(encrypted.totp_secret.as_ref().is_some_and(|totp| totp.len() > 40));
            assert_eq!(directory.decrypt_totp_secret(&encrypted), Ok(Some(key.clone())));
            // The account id is authenticated: another account cannot decrypt the secret.
            assert!(directory.decrypt_totp_secret(&Account { id: Uuid::now_v7(), ..encrypted }).is_err());
        }
        assert!(open(&[[3; 32]]).await.decrypt_totp_secret(&stored().await).is_err());
    }
}
