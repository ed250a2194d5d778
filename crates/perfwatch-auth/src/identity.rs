//! Resolves the credential of a request to an identity. WebSockets refresh their identity when access
//! data changes.

use crate::directory::AuthDirectory;
use crate::error::AuthError;
use crate::snapshot::AuthSnapshot;
use crate::{jwt, secret};
use perfwatch_model::HostId;
use perfwatch_store::accounts::{Account, Role, SecretHash, Session, Token};
use std::time::Duration;
use uuid::Uuid;

/// Scope of an API token that may only send snapshots, of any host.
pub const SCOPE_INGEST: &str = "ingest";

/// Validates the scope of a new API token; returns the reason if the role may not create it.
pub fn validate_scope(scope: &str, role: Role) -> Option<String> {
    let is_sufficient = match Role::parse(scope) {
        Some(scope) => scope <= role,
        None if scope == SCOPE_INGEST => role >= Role::Operator,
        None => return Some("scope must be viewer, operator, admin or ingest".to_owned()),
    };
    (!is_sufficient).then(|| format!("scope exceeds the role of the user ({})", role.name()))
}

/// Entity that makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// User account, logged in or with a signed token.
    Account {
        /// Id of the account.
        id: Uuid,
        /// Name of the account.
        name: String,
    },
    /// API token of a script.
    Token {
        /// Id of the token.
        id: Uuid,
        /// Label of the token.
        name: String,
        /// Account that the token belongs to.
        account: Uuid,
        /// Name of that account.
        account_name: String,
    },
    /// Enrolled agent, which sends for one host.
    Agent {
        /// Id of the agent.
        id: Uuid,
        /// Host of the agent.
        host: HostId,
    },
    /// Agent in the process of the hub.
    EmbeddedAgent,
}

/// Credential that an identity was resolved from; kept for [`Identity::refresh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Hash of a session cookie.
    Session(SecretHash),
    /// API token, signed token or agent secret.
    Bearer(String),
}

/// Hosts that an identity may send snapshots for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestScope {
    /// The identity may not send.
    Denied,
    /// A single host, whose agent the identity is.
    Host(HostId),
    /// Every host within the identity's host tags.
    AnyHost,
}

/// Authenticated principal with its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Entity that makes the request.
    pub principal: Principal,
    /// Role; `None` if the identity may only send snapshots.
    pub role: Option<Role>,
    /// Limits the identity to hosts with any of these tags; empty for all hosts.
    pub host_tags: Vec<String>,
    /// Credential of the request.
    pub credential: Credential,
    /// Token epoch of the account when the identity was resolved.
    epoch: i64,
}

impl Identity {
    fn for_account(account: &Account, role: Role, principal: Principal, credential: Credential) -> Self {
        let (role, host_tags) = (Some(role.min(account.role)), account.host_tags.clone());
        Self { principal, role, host_tags, credential, epoch: account.token_epoch }
    }

    /// Identity that may only send snapshots.
    pub fn for_ingest(principal: Principal, credential: Credential) -> Self {
        Self { principal, role: None, host_tags: Vec::new(), credential, epoch: 0 }
    }

    /// Resolves the identity of an open connection again; `None` if its access was revoked. The
    /// expiry of a signed token is not checked: it limits when a connection may be opened.
    pub fn refresh(&self, directory: &AuthDirectory) -> Option<Self> {
        let snapshot = directory.snapshot();
        match (&self.credential, &self.principal) {
            (Credential::Bearer(_), Principal::Account { id, .. }) => {
                let account = snapshot.enabled_account(*id);
                let account = account.filter(|account| account.token_epoch == self.epoch)?;
                let (principal, credential) = (self.principal.clone(), self.credential.clone());
                Some(Self::for_account(account, account.role, principal, credential))
            }
            (Credential::Bearer(_), Principal::Token { id, account, .. }) => {
                let is_match = |token: &&Token| token.id == *id && token.is_valid(directory.now_ms());
                let token = snapshot.tokens.values().find(is_match)?;
                from_token(token, snapshot.enabled_account(*account)?, self.credential.clone()).ok()
            }
            _ => resolve(directory, &self.credential).ok(),
        }
    }

    /// Name of the identity in the audit log.
    pub fn actor_name(&self) -> String {
        match &self.principal {
            Principal::Account { name, .. } => format!("user {name}"),
            Principal::Token { name, account_name, .. } => format!("token {name} (user {account_name})"),
            Principal::Agent { id, .. } => format!("agent {id}"),
            Principal::EmbeddedAgent => "embedded agent".to_owned(),
        }
    }

    /// Key of the shares of the principal: tokens share with their account.
    pub fn share_key(&self) -> String {
        self.account_id().map_or_else(|| self.actor_name(), |account| format!("account {account}"))
    }

    /// Account of a user or of a token.
    pub fn account_id(&self) -> Option<Uuid> {
        match &self.principal {
            Principal::Account { id, .. } | Principal::Token { account: id, .. } => Some(*id),
            Principal::Agent { .. } | Principal::EmbeddedAgent => None,
        }
    }

    /// Returns whether the identity may read data of a host.
    pub fn can_view(&self, snapshot: &AuthSnapshot, host: HostId) -> bool {
        self.role.is_some() && self.is_in_scope(snapshot, host)
    }

    /// Returns whether a host is within the identity's host tags.
    pub fn is_in_scope(&self, snapshot: &AuthSnapshot, host: HostId) -> bool {
        let has_tag = |tags: &Vec<String>| tags.iter().any(|tag| self.host_tags.contains(tag));
        self.host_tags.is_empty() || snapshot.host_tags.get(&host).is_some_and(has_tag)
    }

    /// Hosts that the identity may send snapshots for.
    pub fn ingest_scope(&self) -> IngestScope {
        let is_allowed = match &self.principal {
            Principal::Agent { host, .. } => return IngestScope::Host(*host),
            Principal::EmbeddedAgent => true,
            // Without a role: a token with the scope `ingest`.
            Principal::Token { .. } => self.role.is_none_or(|role| role >= Role::Operator),
            Principal::Account { .. } => self.role.is_some_and(|role| role >= Role::Operator),
        };
        if is_allowed { IngestScope::AnyHost } else { IngestScope::Denied }
    }
}

/// Credentials of a request, unverified. Only signed tokens are accepted in the query.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestCredentials<'a> {
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Values of the session cookies; the first valid one counts. Hubs that share a host name receive each
    /// other's cookies.
    pub session_cookies: &'a [&'a str],
    /// Value of the query parameter `token`.
    pub query_token: Option<&'a str>,
}

/// Resolves the credentials of a request; `None` if the request carries no valid one.
///
/// # Errors
/// Rejects an invalid or expired token. An expired session cookie counts as no credential, because
/// browsers send it without the user's doing.
pub fn identify(
    directory: &AuthDirectory,
    request: RequestCredentials<'_>,
) -> Result<Option<Identity>, AuthError> {
    // URLs are logged by proxies, and long-lived tokens are not accepted there.
    if request.query_token.is_some_and(|token| !jwt::has_jwt_shape(token)) {
        return Err(AuthError::TokenInQuery);
    }
    let bearer = match request.authorization {
        None => request.query_token.map(str::to_owned),
        Some(header) => {
            let token = header.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or(AuthError::InvalidAuthorizationHeader)?;
            Some(token.trim().to_owned())
        }
    };
    if let Some(bearer) = bearer {
        return resolve(directory, &Credential::Bearer(bearer)).map(Some);
    }
    let credentials =
        request.session_cookies.iter().map(|cookie| Credential::Session(secret::hash_secret(cookie)));
    Ok(credentials.filter_map(|credential| resolve(directory, &credential).ok()).next())
}

/// Resolves a credential to the identity it has now.
///
/// # Errors
/// Rejects an unknown, expired or revoked credential, and credentials of a disabled account.
pub fn resolve(directory: &AuthDirectory, credential: &Credential) -> Result<Identity, AuthError> {
    let snapshot = directory.snapshot();
    let now_ms = directory.now_ms();
    match credential {
        Credential::Session(hash) => {
            let session = snapshot.sessions.get(hash).ok_or(AuthError::SessionExpired)?;
            if !is_session_valid(directory, session) {
                return Err(AuthError::SessionExpired);
            }
            let account = snapshot.enabled_account(session.account).ok_or(AuthError::SessionExpired)?;
            directory.last_used().touch_session(*hash, now_ms);
            let principal = Principal::Account { id: account.id, name: account.name.clone() };
            Ok(Identity::for_account(account, account.role, principal, credential.clone()))
        }
        Credential::Bearer(text) => from_bearer(directory, &snapshot, text, now_ms),
    }
}

/// Returns whether a session is neither idle for too long nor too old.
pub fn is_session_valid(directory: &AuthDirectory, session: &Session) -> bool {
    let (now_ms, lifetimes) = (directory.now_ms(), directory.session_lifetimes());
    let is_within = |since_ms: i64, max: Duration| {
        u128::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default() < max.as_millis()
    };
    is_within(directory.session_last_used_ms(session), lifetimes.idle_timeout)
        && is_within(session.created_ms, lifetimes.max_age)
}

fn from_bearer(
    directory: &AuthDirectory,
    snapshot: &AuthSnapshot,
    text: &str,
    now_ms: i64,
) -> Result<Identity, AuthError> {
    if secret::has_prefix(secret::SecretKind::Agent, text) {
        return from_agent_secret(directory, snapshot, text, now_ms);
    }
    let credential = Credential::Bearer(text.to_owned());
    if jwt::has_jwt_shape(text) {
        let verified =
            jwt::verify(snapshot, text, now_ms).ok_or(AuthError::TokenExpired("invalid or expired token"))?;
        return match verified.token {
            Some(token) => from_token(token, verified.account, credential),
            None => {
                let account = verified.account;
                let principal = Principal::Account { id: account.id, name: account.name.clone() };
                Ok(Identity::for_account(account, account.role, principal, credential))
            }
        };
    }
    let token = snapshot.tokens.get(&secret::hash_secret(text)).ok_or(AuthError::UnknownToken)?;
    if !token.is_valid(now_ms) {
        return Err(AuthError::TokenExpired("token expired"));
    }
    let account = snapshot.enabled_account(token.account).ok_or(AuthError::UnknownToken)?;
    directory.last_used().touch_token(token.id, now_ms);
    from_token(token, account, credential)
}

fn from_token(token: &Token, account: &Account, credential: Credential) -> Result<Identity, AuthError> {
    let principal = Principal::Token {
        id: token.id,
        name: token.name.clone(),
        account: account.id,
        account_name: account.name.clone(),
    };
    match Role::parse(&token.scope) {
        Some(role) => Ok(Identity::for_account(account, role, principal, credential)),
        // A token never exceeds its account: viewers may not send.
        None if account.role >= Role::Operator => {
            let host_tags = account.host_tags.clone();
            Ok(Identity { host_tags, ..Identity::for_ingest(principal, credential) })
        }
        None => Err(AuthError::UnknownToken),
    }
}

fn from_agent_secret(
    directory: &AuthDirectory,
    snapshot: &AuthSnapshot,
    text: &str,
    now_ms: i64,
) -> Result<Identity, AuthError> {
    let credential = Credential::Bearer(text.to_owned());
    // Comparing hashes keeps the response time independent of the secret.
    let hash = secret::hash_secret(text);
    if directory.is_embedded_agent(&hash) {
        return Ok(Identity::for_ingest(Principal::EmbeddedAgent, credential));
    }
    let agent = snapshot.agents.get(&hash).ok_or(AuthError::UnknownAgent)?;
    if agent.revoked_ms.is_some() {
        return Err(AuthError::AgentRevoked);
    }
    directory.last_used().touch_agent(agent.id, now_ms);
    Ok(Identity::for_ingest(Principal::Agent { id: agent.id, host: agent.host }, credential))
}
