//! Everyone who may enter, in memory: read at start, after each change of our own, and when
//! another hub changed something. Who is connected is told, and looks again whether it still may.

use super::config::SessionLifetimes;
use super::signing_keys::SigningKeys;
use super::{password, secret, totp};
use crate::encryption::{DecryptError, Keyring, log_reencryption};
use crate::error::AuthError;
use data_encoding::HEXLOWER;
use perfwatch_model::{Clock, HostId};
use perfwatch_store::accounts::{Account, Role, SecretHash, Session, Token};
use perfwatch_store::agents::{Agent, EnrollmentToken, HostTags};
use perfwatch_store::audit::{AuditEntry, AuditFilter, list_audit_entries};
use perfwatch_store::revision::Revision;
use perfwatch_store::settings;
use perfwatch_store::{CommitError, SqlStatement, Store, StoreError, Write};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How soon a change that another hub made is seen here.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// When who was there last is written down.
const LAST_USED_FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// When what has ended is let go.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// How long the audit log reaches back.
const AUDIT_RETENTION_MS: i64 = 2 * 366 * 86_400_000;
/// Entries at most: who can't log in makes some too.
const MAX_AUDIT_ENTRIES: i64 = 200_000;
/// Each begins with what was changed meanwhile.
const MAX_REENCRYPT_ATTEMPTS: usize = 5;

/// Why a name can't be one to log in with.
fn validate_account_name(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-@+".contains(c);
    let good = (1..=64).contains(&name.len()) && name.chars().all(fine);
    (!good).then(|| "name must have 1 to 64 characters of a-z 0-9 . _ - @ +".to_owned())
}

/// Where the key of a second factor is sealed for.
fn totp_aad(account: Uuid) -> Vec<u8> {
    [b"second factor ".as_slice(), account.as_bytes()].concat()
}

/// As of one moment.
#[derive(Default)]
pub struct AuthSnapshot {
    pub accounts: HashMap<Uuid, Account>,
    pub sessions: HashMap<SecretHash, Session>,
    pub tokens: HashMap<SecretHash, Token>,
    pub enrollment_tokens: HashMap<SecretHash, EnrollmentToken>,
    pub agents: HashMap<SecretHash, Agent>,
    pub host_tags: HashMap<HostId, Vec<String>>,
    pub signing_keys: SigningKeys,
    pub(crate) revision: i64,
}

impl AuthSnapshot {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        // First, so that what changes meanwhile is read again.
        let changes = Revision::Access.get(store).await?;
        Ok(Self {
            accounts: Account::list(store).await?.into_iter().map(|account| (account.id, account)).collect(),
            sessions: Session::list(store)
                .await?
                .into_iter()
                .map(|session| (session.hash, session))
                .collect(),
            tokens: Token::list(store).await?.into_iter().map(|token| (token.hash, token)).collect(),
            enrollment_tokens: EnrollmentToken::list(store)
                .await?
                .into_iter()
                .map(|one| (one.hash, one))
                .collect(),
            agents: Agent::list(store).await?.into_iter().map(|agent| (agent.hash, agent)).collect(),
            host_tags: HostTags::list(store).await?.into_iter().collect(),
            signing_keys: SigningKeys::load(store).await?,
            revision: changes,
        })
    }

    /// Rises with each change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What a host is told apart by.
    pub fn host_tags(&self, host: HostId) -> &[String] {
        self.host_tags.get(&host).map(Vec::as_slice).unwrap_or_default()
    }

    /// An account by what directory type.
    pub fn account_by_name(&self, name: &str) -> Option<&Account> {
        let name = name.trim().to_lowercase();
        self.accounts.values().find(|account| account.name == name)
    }

    /// Whether there is an administrator who may enter, beside one.
    pub fn has_admin_except(&self, beside: Option<Uuid>) -> bool {
        let admin = |one: &&Account| one.enabled && one.role == Role::Admin && Some(one.id) != beside;
        self.accounts.values().any(|account| admin(&account))
    }

    /// An account that may enter.
    pub fn enabled_account(&self, id: Uuid) -> Option<&Account> {
        self.accounts.get(&id).filter(|account| account.enabled)
    }
}

/// Who was there last, until it is written down.
#[derive(Default)]
struct LastUsedBuffer {
    sessions: HashMap<SecretHash, i64>,
    tokens: HashMap<Uuid, i64>,
    agents: HashMap<Uuid, i64>,
}

/// Everyone.
pub struct AuthDirectory {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keyring: Arc<Keyring>,
    state: RwLock<Arc<AuthSnapshot>>,
    last_used: Mutex<LastUsedBuffer>,
    /// Rises whenever something changed.
    changes_tx: watch::Sender<i64>,
    /// One change at a time, so that what it was decided on still stands.
    write_lock: tokio::sync::Mutex<()>,
    /// Of the hub's own agent: never written down.
    pub embedded_agent_secret: String,
    pub embedded_agent_hash: SecretHash,
    /// How long browsers stay logged in.
    session_lifetimes: SessionLifetimes,
}

/// The right to change: nothing else changes while it is held.
pub struct WriteGuard<'a> {
    directory: &'a Arc<AuthDirectory>,
    /// [`State::changes`] of what is decided on.
    base_revision: i64,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl AuthDirectory {
    /// Reads everyone; makes signing keys where there are none.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        keyring: Arc<Keyring>,
        times: SessionLifetimes,
    ) -> Result<Arc<Self>, StoreError> {
        match store.commit(vec![Revision::Access.init().into()]).await {
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let own_agent = secret::generate(secret::SecretKind::Agent);
        let directory = Arc::new(Self {
            state: RwLock::new(Arc::new(AuthSnapshot::read(&*store).await?)),
            store,
            clock,
            keyring,
            last_used: Mutex::default(),
            changes_tx: watch::Sender::new(0),
            write_lock: tokio::sync::Mutex::default(),
            embedded_agent_hash: secret::hash_secret(&own_agent),
            embedded_agent_secret: own_agent,
            session_lifetimes: times,
        });
        directory.rotate_keys().await?;
        directory.reencrypt().await?;
        Ok(directory)
    }

    /// Everyone as of now.
    pub fn snapshot(&self) -> Arc<AuthSnapshot> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told whenever something changed.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.changes_tx.subscribe()
    }

    /// Someone by name and password, not added yet.
    ///
    /// # Errors
    /// A name or a password that can't be.
    pub async fn new_account(&self, name: &str, role: Role, password: String) -> Result<Account, AuthError> {
        let name = name.trim().to_lowercase();
        if let Some(why) = validate_account_name(&name).or_else(|| password::validate(&password, &name)) {
            return Err(AuthError::InvalidAccount(why));
        }
        let password = Some(password::hash(password).await?);
        Ok(Account { password, ..Account::new(name, role, self.now_ms()) })
    }

    /// Waits until nobody else of this hub is changing anything, and looks what others did.
    pub async fn begin_write(self: &Arc<Self>) -> Result<WriteGuard<'_>, StoreError> {
        let guard = self.write_lock.lock().await;
        if Revision::Access.get(&*self.store).await? != self.snapshot().revision {
            self.reload().await?;
        }
        Ok(WriteGuard { directory: self, base_revision: self.snapshot().revision, _guard: guard })
    }

    /// What makes the first administrator: the same on all hubs of a store, void once there is one.
    pub fn set_up_secret(&self) -> Option<String> {
        let now = self.snapshot();
        let key = now.signing_keys.oldest().filter(|_| !now.has_admin_except(None))?;
        let digest = secret::hash_secret(&format!("the first administrator {key}"));
        Some(format!("{}{}", secret::SecretKind::Setup.prefix(), HEXLOWER.encode(&digest)))
    }

    /// Writes into the audit log what changed nobody's rights.
    pub async fn record_audit(&self, entry: AuditEntry) {
        let entry = AuditEntry { at_ms: self.now_ms(), ..entry };
        if let Err(error) = self.store.commit(vec![entry.insert().into()]).await {
            tracing::warn!(?error, entry.action, "failed to write an audit log entry");
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let mut state = AuthSnapshot::read(&*self.store).await?;
        {
            // Not written down yet, but known.
            let seen = self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
            for (hash, at_ms) in &seen.sessions {
                if let Some(session) = state.sessions.get_mut(hash) {
                    session.last_used_ms = session.last_used_ms.max(*at_ms);
                }
            }
        }
        let changes = state.revision;
        {
            let mut known = self.state.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody who read later was faster.
            if known.revision > changes {
                return Ok(());
            }
            *known = Arc::new(state);
        }
        self.changes_tx.send_replace(changes);
        Ok(())
    }

    /// New keys for signed tokens, where it is time; those that were signed with the last ones
    /// stay good until they end.
    async fn rotate_keys(self: &Arc<Self>) -> Result<(), StoreError> {
        let turn = self.begin_write().await?;
        let Some(rotation) = self.snapshot().signing_keys.rotate(self.now_ms()) else {
            return Ok(());
        };
        match turn.commit([rotation], None).await {
            // Another hub did it just now.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Lets go of what has ended.
    async fn purge_expired(self: &Arc<Self>) -> Result<(), StoreError> {
        self.rotate_keys().await?;
        let now_ms = self.now_ms();
        let ago = |time: Duration| now_ms - i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
        let mut old: Vec<Write> = vec![
            Session::delete_expired(
                ago(self.session_lifetimes.idle_timeout),
                ago(self.session_lifetimes.max_age),
            )
            .into(),
            EnrollmentToken::delete_expired(now_ms - 86_400_000).into(),
        ];
        old.extend(AuditEntry::purge(now_ms - AUDIT_RETENTION_MS, MAX_AUDIT_ENTRIES).map(Write::from));
        match self.store.commit(old).await {
            Ok(()) | Err(CommitError::Conflict) => self.reload().await,
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// The key of a second factor, sealed for its account.
    ///
    /// # Errors
    /// This hub has no key to seal with.
    pub fn encrypt_totp_secret(&self, account: Uuid, key: &[u8]) -> Result<Vec<u8>, AuthError> {
        self.keyring.encrypt(&totp_aad(account), key).ok_or(AuthError::EncryptionKeyMissing)
    }

    /// The key of an account's second factor.
    ///
    /// # Errors
    /// It was sealed by a key that this hub does not have.
    pub fn decrypt_totp_secret(&self, account: &Account) -> Result<Option<Vec<u8>>, DecryptError> {
        match account.totp_secret.as_deref() {
            // As it was kept before keys were sealed.
            Some(plain) if plain.len() == totp::KEY_BYTES => Ok(Some(plain.to_vec())),
            Some(sealed) => self.keyring.decrypt(&totp_aad(account.id), sealed).map(Some),
            None => Ok(None),
        }
    }

    /// Second factors by the key of now, where another one sealed them, or none.
    async fn reencrypt(self: &Arc<Self>) -> Result<(), StoreError> {
        // Others may change something all the while.
        for _ in 0..MAX_REENCRYPT_ATTEMPTS {
            let turn = self.begin_write().await?;
            let now = self.snapshot();
            let mut closed = 0;
            let old = now.accounts.values().filter_map(|account| {
                let kept = account.totp_secret.as_deref()?;
                let Ok(key) = self.decrypt_totp_secret(account) else {
                    closed += 1;
                    return None;
                };
                let key =
                    key.filter(|_| kept.len() == totp::KEY_BYTES || self.keyring.needs_reencryption(kept))?;
                let totp = self.keyring.encrypt(&totp_aad(account.id), &key)?;
                Some(Account { totp_secret: Some(totp), ..account.clone() }.update())
            });
            let old: Vec<SqlStatement> = old.collect();
            let counts = (old.len(), closed);
            let done = if old.is_empty() { Ok(()) } else { turn.commit(old, None).await };
            match done {
                Ok(()) => {
                    log_reencryption("second factors", Some(counts));
                    return Ok(());
                }
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        log_reencryption("second factors", None);
        Ok(())
    }

    /// When a session was last used: its own, if it was used since it was written down.
    pub fn session_last_used_ms(&self, session: &Session) -> i64 {
        let seen = self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sessions.get(&session.hash).copied().unwrap_or_default().max(session.last_used_ms)
    }

    /// When an agent last sent.
    pub fn agent_last_seen_ms(&self, agent: &Agent) -> i64 {
        let seen = self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        seen.agents.get(&agent.id).copied().unwrap_or_default().max(agent.last_seen_ms)
    }

    pub fn touch_session(&self, hash: SecretHash, now_ms: i64) {
        self.last_used.lock().unwrap_or_else(PoisonError::into_inner).sessions.insert(hash, now_ms);
    }

    pub fn touch_token(&self, id: Uuid, now_ms: i64) {
        self.last_used.lock().unwrap_or_else(PoisonError::into_inner).tokens.insert(id, now_ms);
    }

    pub fn touch_agent(&self, id: Uuid, now_ms: i64) {
        self.last_used.lock().unwrap_or_else(PoisonError::into_inner).agents.insert(id, now_ms);
    }

    /// Writes down who was there last.
    async fn flush_last_used(&self) -> Result<(), StoreError> {
        let seen = std::mem::take(&mut *self.last_used.lock().unwrap_or_else(PoisonError::into_inner));
        let mut writes: Vec<Write> = Vec::new();
        writes.extend(seen.sessions.iter().map(|(hash, at)| Session::touch(hash, *at).into()));
        writes.extend(seen.tokens.iter().map(|(id, at)| Token::touch(*id, *at).into()));
        writes.extend(seen.agents.iter().map(|(id, at)| Agent::touch(*id, *at).into()));
        if writes.is_empty() {
            return Ok(());
        }
        match self.store.commit(writes).await {
            // Nothing here conflicts.
            Ok(()) | Err(CommitError::Conflict) => self.reload().await,
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Looks for changes of other hubs, and writes down who was there.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(REFRESH_INTERVAL);
        let mut noted = self.clock.monotonic();
        let mut cleaned = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            let looked = match Revision::Access.get(&*self.store).await {
                Ok(changes) if changes != self.snapshot().revision => self.reload().await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                tracing::debug!(%error, "failed to refresh accounts; using the cached copy");
                continue;
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(noted) >= LAST_USED_FLUSH_INTERVAL {
                noted = now;
                if let Err(error) = self.flush_last_used().await {
                    tracing::debug!(%error, "failed to save last-used times");
                }
            }
            if cleaned.is_none_or(|at| now.saturating_sub(at) >= PURGE_INTERVAL) {
                cleaned = Some(now);
                if let Err(error) = self.purge_expired().await {
                    tracing::debug!(%error, "failed to purge expired sessions and tokens");
                }
            }
        }
        let _ = self.flush_last_used().await;
    }

    /// Entries of the audit log.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        list_audit_entries(&*self.store, filter).await
    }

    /// How long browsers stay logged in.
    pub fn session_lifetimes(&self) -> SessionLifetimes {
        self.session_lifetimes
    }

    /// The hub's clock.
    pub fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }
}

impl WriteGuard<'_> {
    /// Makes a list of changes, all or none, with what the audit log says of it.
    ///
    /// # Errors
    /// What was to change has changed, or the store does not answer.
    pub async fn commit(
        &self,
        changes: impl IntoIterator<Item = SqlStatement>,
        entry: Option<AuditEntry>,
    ) -> Result<(), CommitError> {
        let at_ms = self.directory.now_ms();
        let entry = entry.map(|entry| AuditEntry { at_ms, ..entry }.insert());
        let all = changes.into_iter().chain(entry).chain([Revision::Access.bump(self.base_revision)]);
        let all: Vec<Write> = all.map(Write::Sql).collect();
        let directory = self.directory.clone();
        // Who asked may go away meanwhile: what was begun is done, and known.
        let work = tokio::spawn(async move {
            directory.store.commit(all).await?;
            Ok(directory.reload().await?)
        });
        let gone = |error: tokio::task::JoinError| StoreError::Unavailable(error.to_string());
        work.await.unwrap_or_else(|error| Err(gone(error).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::ManualClock;
    use perfwatch_store::{SqliteOptions, SqliteStore};

    #[tokio::test]
    async fn plaintext_totp_secrets_are_encrypted_at_startup() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(0));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock.clone()).unwrap());
        let open = async |keys: &[[u8; 32]]| {
            let keyring = Arc::new(Keyring::new(keys));
            AuthDirectory::open(store.clone(), clock.clone(), keyring, SessionLifetimes::default())
                .await
                .unwrap()
        };
        let kept = async || Account::list(&*store).await.unwrap().pop().unwrap();
        let key = totp::generate();
        let account =
            Account { totp_secret: Some(key.clone()), ..Account::new("vera".to_owned(), Role::Viewer, 0) };
        open(&[]).await.begin_write().await.unwrap().commit([account.insert()], None).await.unwrap();
        assert_eq!(kept().await.totp_secret, Some(key.clone()), "without a key, it stays as it is");
        for keys in [vec![[1; 32]], vec![[2; 32], [1; 32]], vec![[2; 32]]] {
            let directory = open(&keys).await;
            let sealed = kept().await;
            assert!(sealed.totp_secret.as_ref().is_some_and(|totp| totp.len() > 40));
            assert_eq!(directory.decrypt_totp_secret(&sealed), Ok(Some(key.clone())));
            // For no other account.
            assert!(directory.decrypt_totp_secret(&Account { id: Uuid::now_v7(), ..sealed }).is_err());
        }
        assert!(open(&[[3; 32]]).await.decrypt_totp_secret(&kept().await).is_err());
    }
}
