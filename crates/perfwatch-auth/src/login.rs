//! Login by name and password, with a two-factor code where the account requires one. Failed
//! attempts are throttled; a successful login creates a browser session.

use crate::actor::{Actor, audit_entry};
use crate::client_addr::ClientAddr;
use crate::confirmation;
use crate::directory::{AuthDirectory, WriteGuard};
use crate::error::AuthError;
use crate::hash_threads::HashShares;
use crate::identity::{Credential, Principal};
use crate::login_throttle::{LoginThrottle, TRUSTED_ADDRESS_TTL};
use crate::snapshot::AuthSnapshot;
use crate::{account_name, password, secret, totp};
use data_encoding::HEXLOWER;
use perfwatch_model::Clock;
use perfwatch_store::accounts::{Account, Session};
use perfwatch_store::audit::{AuditEntry, list_login_addresses};
use perfwatch_store::{StoreError, Transaction};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Credentials of a login.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginRequest {
    /// Account name; case and surrounding spaces are ignored.
    pub name: String,
    /// Password in plain text.
    pub password: String,
    /// Code of an authenticator app, or a recovery code; required if two-factor authentication is on.
    #[serde(default)]
    pub code: Option<String>,
}

/// Wrong setup links and enrollment tokens per address without a delay. They cannot be guessed; the delay bounds
/// the audit entries of an agent whose token expired.
const MAX_FREE_WRONG_SECRETS: u32 = 20;
/// Maximum number of addresses that are trusted again at a start, those of the latest logins.
const MAX_RESTORED_ADDRESSES: i64 = 10_000;
/// Maximum number of sessions per account; the least recently used session is ended.
const MAX_SESSIONS_PER_ACCOUNT: usize = 50;
/// Maximum length of the stored `User-Agent`, in characters.
const MAX_USER_AGENT_CHARS: usize = 200;
/// Maximum length of an account name in a login, in bytes.
const MAX_LOGIN_NAME_BYTES: usize = 2 * account_name::MAX_NAME_BYTES;

/// Account whose name and password were verified, before the two-factor code.
pub struct VerifiedPassword {
    /// Account as of the verification of the password.
    account: Account,
    code: Option<String>,
}

/// Browser that logs in.
#[derive(Debug, Clone, Copy)]
pub struct Browser<'a> {
    /// Address of the browser.
    pub client: &'a ClientAddr,
    /// Value of the `User-Agent` header.
    pub user_agent: &'a str,
    /// Session cookie that the request carried; its session is ended by the new login.
    pub previous_cookie: Option<&'a str>,
    /// Time of the login that the session continues, Unix milliseconds; `None` for a login. A session that is
    /// only replaced must not count as a recent login.
    pub logged_in_ms: Option<i64>,
}

/// Verifies logins and creates sessions.
pub struct LoginService {
    directory: Arc<AuthDirectory>,
    throttle: LoginThrottle,
    /// Wrong setup links and enrollment tokens, apart from logins: an agent with an expired token must not keep
    /// users of its network from logging in.
    secret_throttle: LoginThrottle,
    clock: Arc<dyn Clock>,
    /// Password hashes by address.
    hashes: HashShares,
}

/// Spellings of one name share their failed attempts. The length is limited, because the name may be any text.
fn throttle_key(name: &str) -> String {
    account_name::comparison_key(&name.chars().take(MAX_LOGIN_NAME_BYTES).collect::<String>())
}

impl AuthDirectory {
    /// Secret of the setup link, the same on all hubs of a database; `None` once an administrator exists.
    pub fn setup_secret(&self) -> Option<String> {
        let snapshot = self.snapshot();
        let key = snapshot.signing_keys.oldest().filter(|_| !snapshot.has_admin_except(None))?;
        let digest = secret::hash_secret(&format!("setup {key}"));
        Some(format!("{}{}", secret::SecretKind::Setup.prefix(), HEXLOWER.encode(&digest)))
    }
}

impl LoginService {
    /// Service on the accounts of a directory, without failed attempts. Addresses of logins before the start are
    /// trusted: otherwise strangers could lock a user out after a restart.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn open(directory: Arc<AuthDirectory>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (throttle, now_ms) = (LoginThrottle::default(), clock.wall_ms());
        let ttl_ms = i64::try_from(TRUSTED_ADDRESS_TTL.as_millis()).unwrap_or(i64::MAX);
        let logins =
            list_login_addresses(directory.store(), now_ms.saturating_sub(ttl_ms), MAX_RESTORED_ADDRESSES)
                .await?;
        for login in logins {
            let user = Principal::account_of_actor(&login.actor);
            let (Some(user), Ok(address)) = (user, login.address.parse()) else { continue };
            let age_ms = now_ms.saturating_sub(login.at_ms);
            let left = TRUSTED_ADDRESS_TTL.saturating_sub(Duration::from_millis(age_ms.unsigned_abs()));
            throttle.trust(address, &throttle_key(user), clock.monotonic() + left);
        }
        let secret_throttle = LoginThrottle::with_free_attempts(MAX_FREE_WRONG_SECRETS);
        let hashes = HashShares::default();
        Ok(Self { directory, throttle, secret_throttle, clock, hashes })
    }

    /// Verifies name and password. [`Self::confirm_login`] decides under the write lock.
    ///
    /// # Errors
    /// Rejects wrong credentials, a missing two-factor code, and throttled clients.
    pub async fn verify_password(
        &self,
        client: &ClientAddr,
        login: LoginRequest,
    ) -> Result<VerifiedPassword, AuthError> {
        let (name, password_len) = (login.name.trim(), password::normalize(&login.password).len());
        self.check_throttle(client, name)?;
        if name.len() > MAX_LOGIN_NAME_BYTES || password_len > password::MAX_PASSWORD_BYTES {
            return Err(AuthError::InvalidCredentials);
        }
        let _turn = self.hashes.enter(client.address)?;
        let find = |snapshot: &AuthSnapshot| {
            snapshot.account_by_name(name).filter(|account| account.enabled).cloned()
        };
        let stored =
            |account: &Option<Account>| account.as_ref().and_then(|account| account.password.clone());
        let seen = self.directory.snapshot();
        let mut account = find(&seen);
        let mut is_correct = password::verify(login.password.clone(), stored(&account)).await;
        // The account or its password may have been changed elsewhere a moment ago.
        if !is_correct && self.directory.refresh_after_miss(&seen).await {
            let current = find(&self.directory.snapshot());
            if stored(&current) != stored(&account) {
                is_correct = password::verify(login.password, stored(&current)).await;
            }
            account = current;
        }
        // Hashing takes long: attempts that failed in parallel count, too.
        self.check_throttle(client, name)?;
        let Some(account) = account.filter(|_| is_correct) else {
            self.record_failure(client, name, "password").await;
            return Err(AuthError::InvalidCredentials);
        };
        let code = login.code.filter(|code| !code.trim().is_empty());
        if account.totp_secret.is_some() && code.is_none() {
            return Err(AuthError::TotpRequired);
        }
        Ok(VerifiedPassword { account, code })
    }

    /// Verifies the two-factor code against the current account, under the caller's write lock.
    /// Returns the account with the code consumed; the caller saves it in its commit.
    ///
    /// # Errors
    /// Rejects a wrong or used code, and an account that changed since its password was verified.
    pub async fn confirm_login(
        &self,
        client: &ClientAddr,
        verified: VerifiedPassword,
    ) -> Result<Account, AuthError> {
        let previous = verified.account;
        let current = self.directory.snapshot().enabled_account(previous.id).cloned();
        let current = current.ok_or(AuthError::InvalidCredentials)?;
        if (&current.password, &current.totp_secret) != (&previous.password, &previous.totp_secret) {
            return Err(AuthError::InvalidCredentials);
        }
        if current.token_epoch != previous.token_epoch {
            // Rights changed during the login: the client may repeat it.
            return Err(AuthError::Conflict);
        }
        let now_ms = self.clock.wall_ms();
        let mut account = Account { last_login_ms: Some(now_ms), ..current };
        if let (Some(_), Some(code)) = (&account.totp_secret, &verified.code) {
            // Recovery codes work even if the encryption key of the TOTP secret is lost.
            let key = self.directory.decrypt_totp_secret(&account).inspect_err(
                |error| tracing::error!(account.name, %error, "failed to decrypt a two-factor secret"),
            );
            let undecryptable = key.is_err();
            let step =
                key.ok().flatten().and_then(|key| totp::verify_code(&key, code, now_ms, account.totp_step));
            let hash = totp::hash_recovery_code(code);
            let unused: Vec<String> =
                account.recovery_codes.iter().filter(|stored| **stored != hash).cloned().collect();
            match step {
                Some(step) => account.totp_step = step,
                None if unused.len() < account.recovery_codes.len() => account.recovery_codes = unused,
                None => {
                    self.record_failure(client, &account.name, "code").await;
                    return Err(if undecryptable {
                        AuthError::TotpUnavailable
                    } else {
                        AuthError::InvalidCredentials
                    });
                }
            }
        }
        self.throttle.record_success(client.address, &throttle_key(&account.name), self.clock.monotonic());
        Ok(account)
    }

    /// Verifies the password of a logged-in user again, so that an open browser is not enough for a
    /// lasting change.
    ///
    /// # Errors
    /// Rejects a wrong password and throttled clients.
    pub async fn reauthenticate(
        &self,
        client: &ClientAddr,
        account: &Account,
        password: String,
    ) -> Result<(), AuthError> {
        self.check_throttle(client, &account.name)?;
        let _turn = self.hashes.enter(client.address)?;
        let is_correct = password::verify(password, account.password.clone()).await;
        self.check_throttle(client, &account.name)?;
        if is_correct {
            return Ok(());
        }
        self.record_failure(client, &account.name, "current password").await;
        Err(AuthError::WrongPassword)
    }

    /// Confirms the lasting changes of a session with the password of its user. Returns the value of the
    /// confirmation cookie.
    ///
    /// # Errors
    /// Rejects a wrong password, throttled clients, and credentials other than a session.
    pub async fn confirm(
        &self,
        actor: &Actor,
        account: &Account,
        password: String,
    ) -> Result<String, AuthError> {
        self.reauthenticate(&actor.client_addr, account, password).await?;
        self.record_confirmation(actor).await
    }

    /// Confirms the lasting changes of a session whose user logged in at the identity provider again.
    ///
    /// # Errors
    /// Rejects credentials other than a session.
    pub async fn record_confirmation(&self, actor: &Actor) -> Result<String, AuthError> {
        let Credential::Session(session) = &actor.identity.credential else {
            return Err(AuthError::SessionExpired);
        };
        let cookie = confirmation::sign(&self.directory, session).ok_or(AuthError::SigningKeyMissing)?;
        actor.record(actor.audit_self("session.confirm")).await?;
        Ok(cookie)
    }

    /// Checks whether a client may attempt a login; `name` may be empty.
    ///
    /// # Errors
    /// Returns [`AuthError::Throttled`] after too many failed attempts.
    pub fn check_throttle(&self, client: &ClientAddr, name: &str) -> Result<(), AuthError> {
        match self.throttle.delay(client.address, &throttle_key(name), self.clock.monotonic()) {
            Some(delay) => Err(AuthError::Throttled(delay)),
            None => Ok(()),
        }
    }

    /// Counts a wrong setup link or enrollment token against the address of the client, and stores an audit
    /// entry. A correct secret is accepted in any case: with 256 bits it cannot be guessed, and clients with
    /// the same address must not be able to keep it from working.
    ///
    /// # Errors
    /// Returns [`AuthError::Throttled`] after too many failed attempts.
    pub async fn record_failed_secret(&self, client: &ClientAddr, action: &str) -> Result<(), AuthError> {
        let now = self.clock.monotonic();
        if let Some(delay) = self.secret_throttle.delay(client.address, "", now) {
            return Err(AuthError::Throttled(delay));
        }
        self.secret_throttle.record_failure(client.address, None, now);
        let entry = audit_entry("anonymous".to_owned(), client, action, "?".to_owned());
        self.directory.record_audit(entry).await;
        Ok(())
    }

    async fn record_failure(&self, client: &ClientAddr, name: &str, reason: &str) {
        self.throttle.record_failure(client.address, Some(&throttle_key(name)), self.clock.monotonic());
        // An unknown name may be a password typed into the wrong field: it is not recorded.
        let account_exists = self.directory.snapshot().account_by_name(name).is_some();
        let object = if account_exists { format!("user {name}") } else { "user ?".to_owned() };
        tracing::info!(client.address = %client.address, reason, account_exists, "login failed");
        let entry = AuditEntry {
            actor: "anonymous".to_owned(),
            address: client.address.to_string(),
            action: "login.failed".to_owned(),
            object,
            after: Some(serde_json::json!({ "wrong": reason }).to_string()),
            ..AuditEntry::default()
        };
        self.directory.record_audit(entry).await;
    }

    /// Commits a new session of an account together with the writes of `tx`, and returns the value of its
    /// cookie. Ends the least recently used sessions above the limit and the browser's previous one.
    ///
    /// # Errors
    /// Fails if the account was changed concurrently or the store is unavailable.
    pub async fn create_session(
        &self,
        guard: &WriteGuard<'_>,
        account: &Account,
        browser: Browser<'_>,
        mut tx: Transaction,
        entry: AuditEntry,
    ) -> Result<String, AuthError> {
        let (cookie, session) = self.new_session(account, browser);
        let snapshot = self.directory.snapshot();
        let mut sessions: Vec<&Session> =
            snapshot.sessions.values().filter(|session| session.account == account.id).collect();
        sessions.sort_by_key(|session| self.directory.session_last_used_ms(session));
        let excess = sessions.len().saturating_sub(MAX_SESSIONS_PER_ACCOUNT - 1);
        for session in &sessions[..excess] {
            tx.sessions().delete(&session.hash);
        }
        // A stolen cookie must not survive the next login of its browser.
        if let Some(cookie) = browser.previous_cookie {
            tx.sessions().delete(&secret::hash_secret(cookie));
        }
        tx.sessions().insert(&session);
        guard.commit(tx, Some(entry)).await?;
        Ok(cookie)
    }

    fn new_session(&self, account: &Account, browser: Browser<'_>) -> (String, Session) {
        let cookie = secret::generate(secret::SecretKind::Session);
        let now_ms = self.clock.wall_ms();
        let session = Session {
            hash: secret::hash_secret(&cookie),
            account: account.id,
            created_ms: browser.logged_in_ms.unwrap_or(now_ms),
            last_used_ms: now_ms,
            address: browser.client.address.to_string(),
            user_agent: browser.user_agent.chars().take(MAX_USER_AGENT_CHARS).collect(),
        };
        (cookie, session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;
    use perfwatch_model::ManualClock;
    use std::net::IpAddr;

    /// F3 (second review): after a restart, failed attempts of strangers locked users out of their accounts.
    #[tokio::test]
    async fn addresses_of_earlier_logins_are_trusted_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(TRUSTED_ADDRESS_TTL.as_millis() as i64));
        let (directory, _) = test_directory::open(&clock, folder.path()).await;
        let client = |last| ClientAddr { address: IpAddr::from([192, 0, 2, last]), is_tls: true };
        for (last, user) in [(1, "alice"), (2, "bob")] {
            let entry = audit_entry(format!("user {user}"), &client(last), "login", format!("user {user}"));
            directory.record_audit(entry).await;
        }
        let login = LoginService::open(directory, clock).await.unwrap();
        for last in 100..150 {
            login.record_failure(&client(last), "alice", "password").await;
        }
        assert_eq!(login.check_throttle(&client(1), "Alice"), Ok(()));
        for last in [2, 3] {
            assert!(matches!(login.check_throttle(&client(last), "alice"), Err(AuthError::Throttled(_))));
        }
    }
}
