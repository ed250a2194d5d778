//! Who asks: found once a request, from its cookie or its token, and looked at again while a
//! WebSocket stays open.

use super::directory::{AuthDirectory, AuthSnapshot};
use super::{jwt, secret};
use crate::error::AuthError;
use perfwatch_model::HostId;
use perfwatch_store::accounts::{Account, Role, SecretHash, Session, Token};
use std::time::Duration;
use uuid::Uuid;

/// The cookie of a browser that is logged in.
pub const SESSION_COOKIE: &str = "perfwatch_session";
/// What a token may do beside the roles: send snapshots of any host, and nothing else.
pub const SCOPE_INGEST: &str = "ingest";

/// Why someone of a role can't make a token of a scope.
pub fn validate_scope(scope: &str, role: Role) -> Option<String> {
    let enough = match Role::parse(scope) {
        Some(scope) => scope <= role,
        None if scope == SCOPE_INGEST => role >= Role::Operator,
        None => return Some("scope must be viewer, operator, admin or ingest".to_owned()),
    };
    (!enough).then(|| format!("scope exceeds the role of the user ({})", role.name()))
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person.
    Account { id: Uuid, name: String },
    /// A script of theirs.
    Token { id: Uuid, name: String, account: Uuid, account_name: String },
    /// An agent, which speaks for one host.
    Agent { id: Uuid, host: HostId },
    /// The agent in the hub's own process.
    EmbeddedAgent,
}

/// By what it was known: the same is looked up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Session(SecretHash),
    Bearer(String),
}

/// Someone who may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub principal: Principal,
    /// None: only sends.
    pub role: Option<Role>,
    /// Sees hosts with one of these tags; empty for all.
    pub host_tags: Vec<String>,
    pub credential: Credential,
    /// [`Account::epoch`] when it was found.
    epoch: i64,
}

impl Identity {
    fn for_account(account: &Account, role: Role, principal: Principal, credential: Credential) -> Self {
        let (role, host_tags) = (Some(role.min(account.role)), account.host_tags.clone());
        Self { principal, role, host_tags, credential, epoch: account.token_epoch }
    }

    /// One that only sends.
    pub fn for_ingest(principal: Principal, credential: Credential) -> Self {
        Self { principal, role: None, host_tags: Vec::new(), credential, epoch: 0 }
    }

    /// The same, where it stays open and is looked at again: what was signed is not held against
    /// its time, which only says how long one may come in by it.
    pub fn refresh(&self, directory: &AuthDirectory) -> Option<Self> {
        let state = directory.snapshot();
        match (&self.credential, &self.principal) {
            (Credential::Bearer(_), Principal::Account { id, .. }) => {
                let account =
                    state.enabled_account(*id).filter(|account| account.token_epoch == self.epoch)?;
                let (who, credential) = (self.principal.clone(), self.credential.clone());
                Some(Self::for_account(account, account.role, who, credential))
            }
            (Credential::Bearer(_), Principal::Token { id, account, .. }) => {
                let lasts = |token: &&Token| token.id == *id && token.is_valid(directory.now_ms());
                let token = state.tokens.values().find(lasts)?;
                from_token(token, state.enabled_account(*account)?, self.credential.clone()).ok()
            }
            _ => resolve(directory, &self.credential).ok(),
        }
    }

    /// As the audit log names it.
    pub fn actor_name(&self) -> String {
        match &self.principal {
            Principal::Account { name, .. } => format!("user {name}"),
            Principal::Token { name, account_name: of, .. } => format!("token {name} of {of}"),
            Principal::Agent { id, .. } => format!("agent {id}"),
            Principal::EmbeddedAgent => "the hub's own agent".to_owned(),
        }
    }

    /// The person behind it.
    pub fn account_id(&self) -> Option<Uuid> {
        match &self.principal {
            Principal::Account { id, .. } | Principal::Token { account: id, .. } => Some(*id),
            Principal::Agent { .. } | Principal::EmbeddedAgent => None,
        }
    }

    /// Whether it may look at a host.
    pub fn can_view(&self, state: &AuthSnapshot, host: HostId) -> bool {
        self.role.is_some() && self.is_in_scope(state, host)
    }

    /// Whether a host is one of those it is limited to.
    pub fn is_in_scope(&self, state: &AuthSnapshot, host: HostId) -> bool {
        let one_of_ours = |tags: &Vec<String>| tags.iter().any(|tag| self.host_tags.contains(tag));
        self.host_tags.is_empty() || state.host_tags.get(&host).is_some_and(one_of_ours)
    }

    /// Whether it may send, and of which host alone.
    pub fn ingest_scope(&self) -> Option<Option<HostId>> {
        match &self.principal {
            Principal::Agent { host, .. } => Some(Some(*host)),
            Principal::EmbeddedAgent => Some(None),
            // A script with the scope, or one that may run the fleet.
            Principal::Token { .. } if self.role.is_none_or(|role| role >= Role::Operator) => Some(None),
            Principal::Token { .. } => None,
            Principal::Account { .. } => self.role.filter(|role| *role >= Role::Operator).map(|_| None),
        }
    }
}

/// Credentials of a request, unverified. Only signed tokens are accepted in the query.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestCredentials<'a> {
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Value of the session cookie.
    pub session_cookie: Option<&'a str>,
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
    // URLs are logged by proxies, so long-lived tokens are not accepted there.
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
    let Some(cookie) = request.session_cookie else {
        return Ok(None);
    };
    Ok(resolve(directory, &Credential::Session(secret::hash_secret(cookie))).ok())
}

/// Whose credential it is now.
///
/// # Errors
/// Nobody's, or nobody's any more.
pub fn resolve(directory: &AuthDirectory, credential: &Credential) -> Result<Identity, AuthError> {
    let state = directory.snapshot();
    let now_ms = directory.now_ms();
    match credential {
        Credential::Session(hash) => {
            let ended = || AuthError::SessionExpired;
            let session = state.sessions.get(hash).ok_or_else(ended)?;
            if !is_session_valid(directory, session) {
                return Err(ended());
            }
            let account = state.enabled_account(session.account).ok_or_else(ended)?;
            directory.touch_session(*hash, now_ms);
            let who = Principal::Account { id: account.id, name: account.name.clone() };
            Ok(Identity::for_account(account, account.role, who, credential.clone()))
        }
        Credential::Bearer(text) => from_bearer(directory, &state, text, now_ms),
    }
}

/// Whether a session is not over yet.
pub fn is_session_valid(directory: &AuthDirectory, session: &Session) -> bool {
    let (now_ms, times) = (directory.now_ms(), directory.session_lifetimes());
    let within = |since_ms: i64, most: Duration| {
        u128::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default() < most.as_millis()
    };
    within(directory.session_last_used_ms(session), times.idle_timeout)
        && within(session.created_ms, times.max_age)
}

fn from_bearer(
    directory: &AuthDirectory,
    state: &AuthSnapshot,
    text: &str,
    now_ms: i64,
) -> Result<Identity, AuthError> {
    if secret::has_prefix(secret::SecretKind::Agent, text) {
        return from_agent_secret(directory, state, text, now_ms);
    }
    let credential = Credential::Bearer(text.to_owned());
    if jwt::has_jwt_shape(text) {
        let signed = jwt::verify(state, text, now_ms)
            .ok_or_else(|| AuthError::TokenExpired("invalid or expired token"))?;
        return match signed.token {
            Some(token) => from_token(token, signed.account, credential),
            None => {
                let account = signed.account;
                let who = Principal::Account { id: account.id, name: account.name.clone() };
                Ok(Identity::for_account(account, account.role, who, credential))
            }
        };
    }
    let token = state.tokens.get(&secret::hash_secret(text)).ok_or(AuthError::UnknownToken)?;
    if !token.is_valid(now_ms) {
        return Err(AuthError::TokenExpired("token expired"));
    }
    let account = state.enabled_account(token.account).ok_or(AuthError::UnknownToken)?;
    directory.touch_token(token.id, now_ms);
    from_token(token, account, credential)
}

fn from_token(token: &Token, account: &Account, credential: Credential) -> Result<Identity, AuthError> {
    let who = Principal::Token {
        id: token.id,
        name: token.name.clone(),
        account: account.id,
        account_name: account.name.clone(),
    };
    match Role::parse(&token.scope) {
        Some(role) => Ok(Identity::for_account(account, role, who, credential)),
        // A viewer's token can't send: nothing may more than its account.
        None if account.role >= Role::Operator => {
            Ok(Identity { host_tags: account.host_tags.clone(), ..Identity::for_ingest(who, credential) })
        }
        None => Err(AuthError::UnknownToken),
    }
}

fn from_agent_secret(
    directory: &AuthDirectory,
    state: &AuthSnapshot,
    text: &str,
    now_ms: i64,
) -> Result<Identity, AuthError> {
    let credential = Credential::Bearer(text.to_owned());
    let sender = |who| Identity::for_ingest(who, credential);
    // Hashes are compared, so that the time tells nothing of the secret.
    let hash = secret::hash_secret(text);
    if hash == directory.embedded_agent_hash {
        return Ok(sender(Principal::EmbeddedAgent));
    }
    let agent = state.agents.get(&hash).ok_or(AuthError::UnknownAgent)?;
    if agent.revoked_ms.is_some() {
        return Err(AuthError::AgentRevoked);
    }
    directory.touch_agent(agent.id, now_ms);
    Ok(sender(Principal::Agent { id: agent.id, host: agent.host }))
}
