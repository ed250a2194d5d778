//! Who asks: found once a request, from its cookie or its token, and looked at again while a
//! WebSocket stays open.

use super::people::{People, State};
use super::{jwt, secret};
use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use perfwatch_model::HostId;
use perfwatch_store::people::{Account, Hash, Role, Session, Token};
use std::time::Duration;
use uuid::Uuid;

/// The cookie of a browser that is logged in.
pub(crate) const COOKIE: &str = "perfwatch_session";
/// What a token may do beside the roles: send snapshots of any host, and nothing else.
pub(crate) const INGEST: &str = "ingest";

/// Why someone of a role can't make a token of a scope.
pub(crate) fn scope_problem(scope: &str, role: Role) -> Option<String> {
    let enough = match Role::of(scope) {
        Some(scope) => scope <= role,
        None if scope == INGEST => role >= Role::Operator,
        None => return Some("a scope is viewer, operator, admin or ingest".to_owned()),
    };
    (!enough).then(|| format!("a token may not do more than its user, a {}", role.name()))
}

/// How long browsers stay logged in.
#[derive(Debug, Clone, Copy)]
pub struct SessionTimes {
    /// Without asking for anything.
    pub idle: Duration,
    /// At most.
    pub most: Duration,
}

impl Default for SessionTimes {
    fn default() -> Self {
        Self { idle: Duration::from_secs(7 * 86_400), most: Duration::from_secs(30 * 86_400) }
    }
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// A person.
    Account { id: Uuid, name: String },
    /// A script of theirs.
    Token { id: Uuid, name: String, account: Uuid, of: String },
    /// An agent, which speaks for one host.
    Agent { id: Uuid, host: HostId },
    /// The agent in the hub's own process.
    OwnAgent,
}

/// By what it was known: the same is looked up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Session(Hash),
    Bearer(String),
}

/// Someone who may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) who: Who,
    /// None: only sends.
    pub(crate) role: Option<Role>,
    /// Sees hosts with one of these tags; empty for all.
    pub(crate) host_tags: Vec<String>,
    pub(crate) credential: Credential,
    /// [`Account::epoch`] when it was found.
    epoch: i64,
}

impl Identity {
    fn of_account(account: &Account, role: Role, who: Who, credential: Credential) -> Self {
        let (role, host_tags) = (Some(role.min(account.role)), account.host_tags.clone());
        Self { who, role, host_tags, credential, epoch: account.epoch }
    }

    /// One that only sends.
    pub(super) fn sender(who: Who, credential: Credential) -> Self {
        Self { who, role: None, host_tags: Vec::new(), credential, epoch: 0 }
    }

    /// The same, where it stays open and is looked at again: what was signed is not held against
    /// its time, which only says how long one may come in by it.
    pub(crate) fn again(&self, people: &People) -> Option<Self> {
        let state = people.now();
        match (&self.credential, &self.who) {
            (Credential::Bearer(_), Who::Account { id, .. }) => {
                let account = state.enabled(*id).filter(|account| account.epoch == self.epoch)?;
                let (who, credential) = (self.who.clone(), self.credential.clone());
                Some(Self::of_account(account, account.role, who, credential))
            }
            (Credential::Bearer(_), Who::Token { id, account, .. }) => {
                let lasts = |token: &&Token| token.id == *id && token.lasts(people.now_ms());
                let token = state.tokens.values().find(lasts)?;
                of_token(token, state.enabled(*account)?, self.credential.clone()).ok()
            }
            _ => known(people, &self.credential).ok(),
        }
    }

    /// As the audit log names it.
    pub(crate) fn actor(&self) -> String {
        match &self.who {
            Who::Account { name, .. } => format!("user {name}"),
            Who::Token { name, of, .. } => format!("token {name} of {of}"),
            Who::Agent { id, .. } => format!("agent {id}"),
            Who::OwnAgent => "the hub's own agent".to_owned(),
        }
    }

    /// The person behind it.
    pub(crate) fn account(&self) -> Option<Uuid> {
        match &self.who {
            Who::Account { id, .. } | Who::Token { account: id, .. } => Some(*id),
            Who::Agent { .. } | Who::OwnAgent => None,
        }
    }

    /// Whether it may look at a host.
    pub(crate) fn sees(&self, state: &State, host: HostId) -> bool {
        self.role.is_some() && self.concerns(state, host)
    }

    /// Whether a host is one of those it is limited to.
    pub(crate) fn concerns(&self, state: &State, host: HostId) -> bool {
        let one_of_ours = |tags: &Vec<String>| tags.iter().any(|tag| self.host_tags.contains(tag));
        self.host_tags.is_empty() || state.host_tags.get(&host).is_some_and(one_of_ours)
    }

    /// Whether it may send, and of which host alone.
    pub(crate) fn sends(&self) -> Option<Option<HostId>> {
        match &self.who {
            Who::Agent { host, .. } => Some(Some(*host)),
            Who::OwnAgent => Some(None),
            // A script with the scope, or one that may run the fleet.
            Who::Token { .. } if self.role.is_none_or(|role| role >= Role::Operator) => Some(None),
            Who::Token { .. } => None,
            Who::Account { .. } => self.role.filter(|role| *role >= Role::Operator).map(|_| None),
        }
    }
}

fn refused(code: &'static str, message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, message)
}

/// Who asks with these headers; nobody where they name nobody.
///
/// # Errors
/// A credential that is not, or no more, good.
pub(crate) fn identify(
    people: &People,
    headers: &HeaderMap,
    query_token: Option<&str>,
) -> Result<Option<Identity>, ApiError> {
    // A token that lasts does not belong into an address, where it is written down.
    if query_token.is_some_and(|token| !jwt::looks_like(token)) {
        return Err(refused("token_in_address", "?token= takes what POST /api/v1/auth/token gives"));
    }
    let bearer = match headers.get(header::AUTHORIZATION) {
        None => query_token.map(str::to_owned),
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let token = text.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            let Some((_, token)) = token else {
                return Err(refused("bad_authorization", "Authorization must be: Bearer TOKEN"));
            };
            Some(token.trim().to_owned())
        }
    };
    if let Some(bearer) = bearer {
        return known(people, &Credential::Bearer(bearer)).map(Some);
    }
    let Some(cookie) = cookie(headers, COOKIE) else {
        return Ok(None);
    };
    // An old cookie is nobody's fault: who has it is nobody.
    Ok(known(people, &Credential::Session(secret::hash(cookie))).ok())
}

/// A cookie of a request (RFC 6265, 4.2).
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|text| text.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Whose credential it is now.
///
/// # Errors
/// Nobody's, or nobody's any more.
pub(crate) fn known(people: &People, credential: &Credential) -> Result<Identity, ApiError> {
    let state = people.now();
    let now_ms = people.now_ms();
    match credential {
        Credential::Session(hash) => {
            let ended = || refused("session_ended", "you are not logged in any more");
            let session = state.sessions.get(hash).ok_or_else(ended)?;
            if !lasts(people, session) {
                return Err(ended());
            }
            let account = state.enabled(session.account).ok_or_else(ended)?;
            people.session_seen(*hash, now_ms);
            let who = Who::Account { id: account.id, name: account.name.clone() };
            Ok(Identity::of_account(account, account.role, who, credential.clone()))
        }
        Credential::Bearer(text) => bearer(people, &state, text, now_ms),
    }
}

/// Whether a session is not over yet.
pub(crate) fn lasts(people: &People, session: &Session) -> bool {
    let (now_ms, times) = (people.now_ms(), people.times());
    let within = |since_ms: i64, most: Duration| {
        u128::try_from(now_ms.saturating_sub(since_ms)).unwrap_or_default() < most.as_millis()
    };
    within(people.seen_ms(session), times.idle) && within(session.created_ms, times.most)
}

fn bearer(people: &People, state: &State, text: &str, now_ms: i64) -> Result<Identity, ApiError> {
    if secret::looks_like(secret::Kind::Agent, text) {
        return agent(people, state, text, now_ms);
    }
    let credential = Credential::Bearer(text.to_owned());
    if jwt::looks_like(text) {
        let signed = jwt::verify(state, text, now_ms)
            .ok_or_else(|| refused("token_ended", "this token is not good, or not any more"))?;
        return match signed.token {
            Some(token) => of_token(token, signed.account, credential),
            None => {
                let account = signed.account;
                let who = Who::Account { id: account.id, name: account.name.clone() };
                Ok(Identity::of_account(account, account.role, who, credential))
            }
        };
    }
    let token = state.tokens.get(&secret::hash(text)).ok_or_else(unknown)?;
    if !token.lasts(now_ms) {
        return Err(refused("token_ended", "this token has ended"));
    }
    let account = state.enabled(token.account).ok_or_else(unknown)?;
    people.token_used(token.id, now_ms);
    of_token(token, account, credential)
}

fn unknown() -> ApiError {
    refused("unknown_token", "there is no such token, or not any more")
}

fn of_token(token: &Token, account: &Account, credential: Credential) -> Result<Identity, ApiError> {
    let who =
        Who::Token { id: token.id, name: token.name.clone(), account: account.id, of: account.name.clone() };
    match Role::of(&token.scope) {
        Some(role) => Ok(Identity::of_account(account, role, who, credential)),
        // A viewer's token can't send: nothing may more than its account.
        None if account.role >= Role::Operator => {
            Ok(Identity { host_tags: account.host_tags.clone(), ..Identity::sender(who, credential) })
        }
        None => Err(unknown()),
    }
}

fn agent(people: &People, state: &State, text: &str, now_ms: i64) -> Result<Identity, ApiError> {
    let credential = Credential::Bearer(text.to_owned());
    let sender = |who| Identity::sender(who, credential);
    // Hashes are compared, so that the time tells nothing of the secret.
    let hash = secret::hash(text);
    if hash == people.own_agent_hash {
        return Ok(sender(Who::OwnAgent));
    }
    let agent = state
        .agents
        .get(&hash)
        .ok_or_else(|| refused("unknown_agent", "this hub does not know this agent: enrol it anew"))?;
    if agent.revoked_ms.is_some() {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "agent_revoked", "this agent was revoked"));
    }
    people.agent_seen(agent.id, now_ms);
    Ok(sender(Who::Agent { id: agent.id, host: agent.host }))
}
