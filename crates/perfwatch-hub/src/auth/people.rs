//! Everyone who may enter, in memory: read at start, after each change of our own, and when
//! another hub changed something. Who is connected is told, and looks again whether it still may.

use super::identity::SessionTimes;
use super::{password, secret, totp};
use crate::error::ApiError;
use crate::vault::{Vault, VaultError, resealed};
use perfwatch_model::{Clock, HostId};
use perfwatch_store::people::{
    self, Account, Agent, AuditEntry, Enrolment, Hash, HostTags, Role, Session, Token,
};
use perfwatch_store::settings::{self, Counted};
use perfwatch_store::{Change, CommitError, Store, StoreError, Write};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How soon a change that another hub made is seen here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When who was there last is written down.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// When what has ended is let go.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);
/// How often keys of signed tokens change.
const KEYS_LAST_MS: i64 = 24 * 3_600_000;
/// Present and earlier ones: hubs that change them at one moment void no token.
const KEYS: usize = 4;
/// How long the audit log reaches back.
const AUDIT_KEEP_MS: i64 = 2 * 366 * 86_400_000;
/// Entries at most: who can't log in makes some too.
const AUDIT_MOST: i64 = 200_000;
/// Each begins with what was changed meanwhile.
const RESEAL_TRIES: usize = 5;
/// A new key is known to every hub after this long: only then it signs.
const KEY_KNOWN_MS: i64 = 10_000;

/// Why a name can't be one to log in with.
fn name_problem(name: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-@+".contains(c);
    let good = (1..=64).contains(&name.len()) && name.chars().all(fine);
    (!good).then(|| "a name has 1 to 64 of the characters a-z 0-9 . _ - @ +".to_owned())
}

/// Where the key of a second factor is sealed for.
fn factor(account: Uuid) -> Vec<u8> {
    [b"second factor ".as_slice(), account.as_bytes()].concat()
}

/// As of one moment.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) accounts: HashMap<Uuid, Account>,
    pub(crate) sessions: HashMap<Hash, Session>,
    pub(crate) tokens: HashMap<Hash, Token>,
    pub(crate) enrolments: HashMap<Hash, Enrolment>,
    pub(crate) agents: HashMap<Hash, Agent>,
    pub(crate) host_tags: HashMap<HostId, Vec<String>>,
    /// Keys of signed tokens, the present one first.
    pub(crate) signing: Vec<String>,
    /// Since when it is.
    pub(super) signing_ms: i64,
    pub(super) changes: i64,
}

impl State {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        // First, so that what changes meanwhile is read again.
        let changes = Counted::People.count(store).await?;
        let signing = settings::setting(store, super::jwt::SETTING).await?.unwrap_or_default();
        let mut signing = signing.split_ascii_whitespace();
        Ok(Self {
            accounts: Account::all(store).await?.into_iter().map(|account| (account.id, account)).collect(),
            sessions: Session::all(store).await?.into_iter().map(|session| (session.hash, session)).collect(),
            tokens: Token::all(store).await?.into_iter().map(|token| (token.hash, token)).collect(),
            enrolments: Enrolment::all(store).await?.into_iter().map(|one| (one.hash, one)).collect(),
            agents: Agent::all(store).await?.into_iter().map(|agent| (agent.hash, agent)).collect(),
            host_tags: HostTags::all(store).await?.into_iter().collect(),
            signing_ms: signing.next().and_then(|ms| ms.parse().ok()).unwrap_or_default(),
            signing: signing.map(str::to_owned).collect(),
            changes,
        })
    }

    /// Rises with each change.
    pub(crate) fn revision(&self) -> i64 {
        self.changes
    }

    /// What a host is told apart by.
    pub(crate) fn tags(&self, host: HostId) -> &[String] {
        self.host_tags.get(&host).map(Vec::as_slice).unwrap_or_default()
    }

    /// An account by what people type.
    pub(crate) fn account(&self, name: &str) -> Option<&Account> {
        let name = name.trim().to_lowercase();
        self.accounts.values().find(|account| account.name == name)
    }

    /// Whether there is an administrator who may enter, beside one.
    pub(crate) fn has_admin(&self, beside: Option<Uuid>) -> bool {
        let admin = |one: &&Account| one.enabled && one.role == Role::Admin && Some(one.id) != beside;
        self.accounts.values().any(|account| admin(&account))
    }

    /// What signs now: a key that every hub knows already.
    pub(crate) fn signing_key(&self, now_ms: i64) -> Option<&str> {
        let fresh = now_ms - self.signing_ms < KEY_KNOWN_MS;
        self.signing.get(1).filter(|_| fresh).or(self.signing.first()).map(String::as_str)
    }

    /// An account that may enter.
    pub(crate) fn enabled(&self, id: Uuid) -> Option<&Account> {
        self.accounts.get(&id).filter(|account| account.enabled)
    }
}

/// Who was there last, until it is written down.
#[derive(Default)]
struct Seen {
    sessions: HashMap<Hash, i64>,
    tokens: HashMap<Uuid, i64>,
    agents: HashMap<Uuid, i64>,
}

/// Everyone.
pub(crate) struct People {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    vault: Arc<Vault>,
    state: RwLock<Arc<State>>,
    seen: Mutex<Seen>,
    /// Rises whenever something changed.
    told: watch::Sender<i64>,
    /// One change at a time, so that what it was decided on still stands.
    turn: tokio::sync::Mutex<()>,
    /// Of the hub's own agent: never written down.
    pub(crate) own_agent: String,
    pub(crate) own_agent_hash: Hash,
    /// How long browsers stay logged in.
    times: SessionTimes,
}

/// The right to change: nothing else changes while it is held.
pub(crate) struct Turn<'a> {
    people: &'a Arc<People>,
    /// [`State::changes`] of what is decided on.
    since: i64,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl People {
    /// Reads everyone; makes signing keys where there are none.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        vault: Arc<Vault>,
        times: SessionTimes,
    ) -> Result<Arc<Self>, StoreError> {
        match store.commit(vec![Counted::People.begin().into()]).await {
            Ok(()) | Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        let own_agent = secret::generate(secret::Kind::Agent);
        let people = Arc::new(Self {
            state: RwLock::new(Arc::new(State::read(&*store).await?)),
            store,
            clock,
            vault,
            seen: Mutex::default(),
            told: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
            own_agent_hash: secret::hash(&own_agent),
            own_agent,
            times,
        });
        people.rotate_keys().await?;
        people.reseal().await?;
        Ok(people)
    }

    /// Everyone as of now.
    pub(crate) fn now(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told whenever something changed.
    pub(crate) fn changes(&self) -> watch::Receiver<i64> {
        self.told.subscribe()
    }

    /// Someone by name and password, not added yet.
    ///
    /// # Errors
    /// A name or a password that can't be.
    pub(crate) async fn new_account(
        &self,
        name: &str,
        role: Role,
        password: String,
    ) -> Result<Account, ApiError> {
        let name = name.trim().to_lowercase();
        if let Some(why) = name_problem(&name).or_else(|| password::problem(&password, &name)) {
            return Err(ApiError::unprocessable("invalid_account", why));
        }
        let password = Some(password::hash(password).await?);
        Ok(Account { password, ..Account::new(name, role, self.now_ms()) })
    }

    /// Waits until nobody else of this hub is changing anything, and looks what others did.
    pub(crate) async fn turn(self: &Arc<Self>) -> Result<Turn<'_>, StoreError> {
        let guard = self.turn.lock().await;
        if Counted::People.count(&*self.store).await? != self.now().changes {
            self.reload().await?;
        }
        Ok(Turn { people: self, since: self.now().changes, _guard: guard })
    }

    /// What makes the first administrator: the same on all hubs of a store, void once there is one.
    pub(crate) fn set_up_secret(&self) -> Option<String> {
        let now = self.now();
        let key = now.signing.last().filter(|_| !now.has_admin(None))?;
        let digest = secret::hash(&format!("the first administrator {key}"));
        Some(format!("{}{}", secret::Kind::SetUp.prefix(), secret::hex(&digest)))
    }

    /// Writes into the audit log what changed nobody's rights.
    pub(crate) async fn note(&self, entry: AuditEntry) {
        let entry = AuditEntry { at_ms: self.now_ms(), ..entry };
        if let Err(error) = self.store.commit(vec![entry.add().into()]).await {
            tracing::warn!(?error, entry.action, "the audit log");
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let mut state = State::read(&*self.store).await?;
        {
            // Not written down yet, but known.
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (hash, at_ms) in &seen.sessions {
                if let Some(session) = state.sessions.get_mut(hash) {
                    session.seen_ms = session.seen_ms.max(*at_ms);
                }
            }
        }
        let changes = state.changes;
        {
            let mut known = self.state.write().unwrap_or_else(PoisonError::into_inner);
            // Somebody who read later was faster.
            if known.changes > changes {
                return Ok(());
            }
            *known = Arc::new(state);
        }
        self.told.send_replace(changes);
        Ok(())
    }

    /// New keys for signed tokens, where it is time; those that were signed with the last ones
    /// stay good until they end.
    async fn rotate_keys(self: &Arc<Self>) -> Result<(), StoreError> {
        let turn = self.turn().await?;
        let (now, now_ms) = (self.now(), self.now_ms());
        if !now.signing.is_empty() && now_ms - now.signing_ms < KEYS_LAST_MS {
            return Ok(());
        }
        let mut setting = vec![now_ms.to_string(), secret::hex(&secret::random::<32>())];
        setting.extend(now.signing.iter().take(KEYS - 1).cloned());
        match turn.commit([settings::put_setting(super::jwt::SETTING, &setting.join(" "))], None).await {
            // Another hub did it just now.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Lets go of what has ended.
    async fn clean(self: &Arc<Self>) -> Result<(), StoreError> {
        self.rotate_keys().await?;
        let now_ms = self.now_ms();
        let ago = |time: Duration| now_ms - i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
        let mut old: Vec<Write> = vec![
            Session::end_old(ago(self.times.idle), ago(self.times.most)).into(),
            Enrolment::remove_old(now_ms - 86_400_000).into(),
        ];
        old.extend(AuditEntry::remove_old(now_ms - AUDIT_KEEP_MS, AUDIT_MOST).map(Write::from));
        match self.store.commit(old).await {
            Ok(()) | Err(CommitError::Conflict) => self.reload().await,
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// The key of a second factor, sealed for its account.
    ///
    /// # Errors
    /// This hub has no key to seal with.
    pub(crate) fn seal_factor(&self, account: Uuid, key: &[u8]) -> Result<Vec<u8>, ApiError> {
        self.vault.seal(&factor(account), key).ok_or_else(ApiError::no_key)
    }

    /// The key of an account's second factor.
    ///
    /// # Errors
    /// It was sealed by a key that this hub does not have.
    pub(crate) fn open_factor(&self, account: &Account) -> Result<Option<Vec<u8>>, VaultError> {
        match account.totp.as_deref() {
            // As it was kept before keys were sealed.
            Some(plain) if plain.len() == totp::KEY_BYTES => Ok(Some(plain.to_vec())),
            Some(sealed) => self.vault.open(&factor(account.id), sealed).map(Some),
            None => Ok(None),
        }
    }

    /// Second factors by the key of now, where another one sealed them, or none.
    async fn reseal(self: &Arc<Self>) -> Result<(), StoreError> {
        // Others may change something all the while.
        for _ in 0..RESEAL_TRIES {
            let turn = self.turn().await?;
            let now = self.now();
            let mut closed = 0;
            let old = now.accounts.values().filter_map(|account| {
                let kept = account.totp.as_deref()?;
                let Ok(key) = self.open_factor(account) else {
                    closed += 1;
                    return None;
                };
                let key = key.filter(|_| kept.len() == totp::KEY_BYTES || self.vault.is_old(kept))?;
                let totp = self.vault.seal(&factor(account.id), &key)?;
                Some(Account { totp: Some(totp), ..account.clone() }.save())
            });
            let old: Vec<Change> = old.collect();
            let counts = (old.len(), closed);
            let done = if old.is_empty() { Ok(()) } else { turn.commit(old, None).await };
            match done {
                Ok(()) => {
                    resealed("second factors", Some(counts));
                    return Ok(());
                }
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        resealed("second factors", None);
        Ok(())
    }

    /// When a session was last used: its own, if it was used since it was written down.
    pub(crate) fn seen_ms(&self, session: &Session) -> i64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sessions.get(&session.hash).copied().unwrap_or_default().max(session.seen_ms)
    }

    /// When an agent last sent.
    pub(crate) fn agent_seen_ms(&self, agent: &Agent) -> i64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.agents.get(&agent.id).copied().unwrap_or_default().max(agent.seen_ms)
    }

    pub(crate) fn session_seen(&self, hash: Hash, now_ms: i64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).sessions.insert(hash, now_ms);
    }

    pub(crate) fn token_used(&self, id: Uuid, now_ms: i64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).tokens.insert(id, now_ms);
    }

    pub(crate) fn agent_seen(&self, id: Uuid, now_ms: i64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).agents.insert(id, now_ms);
    }

    /// Writes down who was there last.
    async fn note_seen(&self) -> Result<(), StoreError> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut writes: Vec<Write> = Vec::new();
        writes.extend(seen.sessions.iter().map(|(hash, at)| Session::seen(hash, *at).into()));
        writes.extend(seen.tokens.iter().map(|(id, at)| Token::used(*id, *at).into()));
        writes.extend(seen.agents.iter().map(|(id, at)| Agent::seen(*id, *at).into()));
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
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut noted = self.clock.monotonic();
        let mut cleaned = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            let looked = match Counted::People.count(&*self.store).await {
                Ok(changes) if changes != self.now().changes => self.reload().await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                tracing::debug!(%error, "who may enter is as it was known last");
                continue;
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(noted) >= NOTE_EVERY {
                noted = now;
                if let Err(error) = self.note_seen().await {
                    tracing::debug!(%error, "who was there last");
                }
            }
            if cleaned.is_none_or(|at| now.saturating_sub(at) >= CLEAN_EVERY) {
                cleaned = Some(now);
                if let Err(error) = self.clean().await {
                    tracing::debug!(%error, "what has ended");
                }
            }
        }
        let _ = self.note_seen().await;
    }

    /// Entries of the audit log.
    pub(crate) async fn audit(&self, filter: people::AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        people::audit(&*self.store, filter).await
    }

    /// How long browsers stay logged in.
    pub(crate) fn times(&self) -> SessionTimes {
        self.times
    }

    /// The hub's clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }
}

impl Turn<'_> {
    /// Makes a list of changes, all or none, with what the audit log says of it.
    ///
    /// # Errors
    /// What was to change has changed, or the store does not answer.
    pub(crate) async fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        entry: Option<AuditEntry>,
    ) -> Result<(), CommitError> {
        let at_ms = self.people.now_ms();
        let entry = entry.map(|entry| AuditEntry { at_ms, ..entry }.add());
        let all = changes.into_iter().chain(entry).chain([Counted::People.changed(self.since)]);
        let all: Vec<Write> = all.map(Write::Sql).collect();
        let people = self.people.clone();
        // Who asked may go away meanwhile: what was begun is done, and known.
        let work = tokio::spawn(async move {
            people.store.commit(all).await?;
            Ok(people.reload().await?)
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
    async fn second_factors_that_stood_in_clear_are_sealed_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(0));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options, clock.clone()).unwrap());
        let open = async |keys: &[[u8; 32]]| {
            let vault = Arc::new(Vault::new(keys));
            People::open(store.clone(), clock.clone(), vault, SessionTimes::default()).await.unwrap()
        };
        let kept = async || Account::all(&*store).await.unwrap().pop().unwrap();
        let key = totp::generate();
        let account = Account { totp: Some(key.clone()), ..Account::new("vera".to_owned(), Role::Viewer, 0) };
        open(&[]).await.turn().await.unwrap().commit([account.add()], None).await.unwrap();
        assert_eq!(kept().await.totp, Some(key.clone()), "without a key, it stays as it is");
        for keys in [vec![[1; 32]], vec![[2; 32], [1; 32]], vec![[2; 32]]] {
            let people = open(&keys).await;
            let sealed = kept().await;
            assert!(sealed.totp.as_ref().is_some_and(|totp| totp.len() > 40));
            assert_eq!(people.open_factor(&sealed), Ok(Some(key.clone())));
            // For no other account.
            assert!(people.open_factor(&Account { id: Uuid::now_v7(), ..sealed }).is_err());
        }
        assert!(open(&[[3; 32]]).await.open_factor(&kept().await).is_err());
    }
}
