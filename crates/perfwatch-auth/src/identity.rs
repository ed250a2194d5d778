//! Resolves the credential of a request to an identity. WebSockets refresh their identity when access
//! data changes.

use crate::confirmation::{self, Confirmation};
use crate::directory::AuthDirectory;
use crate::error::AuthError;
use crate::snapshot::{self, AuthSnapshot};
use crate::{jwt, secret};
use data_encoding::HEXLOWER;
use perfwatch_model::HostId;
use perfwatch_store::accounts::{Account, Role, SecretHash, Session, Token};
use perfwatch_store::audit::principal_of_actor;
use std::net::IpAddr;
use std::time::Duration;
use uuid::Uuid;

/// Scope of an API token that may only send snapshots, of any host.
pub const SCOPE_INGEST: &str = "ingest";

/// Time since the last login at the identity provider after which API tokens of the user pause.
const SSO_LOGIN_VALIDITY_MS: i64 = 90 * 86_400_000;

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

/// Name of an API token in the audit log.
pub fn token_actor_name(name: &str, account_name: &str) -> String {
    format!("token {name} (user {account_name})")
}

impl Principal {
    /// Name of the account of an actor, as the audit log names users and their tokens.
    pub fn account_of_actor(actor: &str) -> Option<&str> {
        principal_of_actor(actor).strip_prefix("user ")
    }
}

/// Credential that an identity was resolved from; kept for [`Identity::refresh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Hash of a session cookie.
    Session(SecretHash),
    /// API token, signed token or agent secret.
    Bearer(String),
    /// Claims of a WebSocket token, which was valid when the WebSocket was opened.
    WebSocketToken(Box<jwt::Claims>),
}

/// Kind of a credential, which limits what a caller may create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// Cookie of a browser session.
    Session,
    /// API token of a script.
    ApiToken,
    /// Signed token in a header.
    SignedToken,
    /// Token in the address of a WebSocket.
    WebSocketToken,
    /// Secret of an agent.
    AgentSecret,
}

impl Credential {
    /// Kind of the credential.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Self::Session(_) => CredentialKind::Session,
            Self::Bearer(text) if jwt::has_jwt_shape(text) => CredentialKind::SignedToken,
            Self::Bearer(text) if secret::has_prefix(secret::SecretKind::Agent, text) => {
                CredentialKind::AgentSecret
            }
            Self::Bearer(_) => CredentialKind::ApiToken,
            Self::WebSocketToken(_) => CredentialKind::WebSocketToken,
        }
    }
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
    /// Proof that the user of a session is present.
    pub confirmation: Confirmation,
}

impl Identity {
    fn for_account(account: &Account, role: Role, principal: Principal, credential: Credential) -> Self {
        let (role, host_tags) = (Some(role.min(account.role)), account.host_tags.clone());
        Self { principal, role, host_tags, credential, confirmation: Confirmation::None }
    }

    /// Identity that may only send snapshots.
    pub fn for_ingest(principal: Principal, credential: Credential) -> Self {
        let confirmation = Confirmation::None;
        Self { principal, role: None, host_tags: Vec::new(), credential, confirmation }
    }

    /// Resolves the identity of an open connection again; `None` if its credential ended. The minute of a
    /// WebSocket token limits only when the connection may be opened.
    pub fn refresh(&self, directory: &AuthDirectory) -> Option<Self> {
        resolve(directory, &self.credential).ok()
    }

    /// Name of the identity in the audit log.
    pub fn actor_name(&self) -> String {
        match &self.principal {
            Principal::Account { name, .. } => format!("user {name}"),
            Principal::Token { name, account_name, .. } => token_actor_name(name, account_name),
            Principal::Agent { id, .. } => format!("agent {id}"),
            Principal::EmbeddedAgent => "embedded agent".to_owned(),
        }
    }

    /// Account and credential for which a signed token is created.
    ///
    /// # Errors
    /// Rejects a signed token, which must not extend its own lifetime, and agents.
    pub fn token_parent(&self) -> Result<(Uuid, jwt::TokenParent), AuthError> {
        match (&self.principal, &self.credential) {
            (Principal::Account { id, .. }, Credential::Session(hash)) => {
                Ok((*id, jwt::TokenParent::Session(HEXLOWER.encode(hash))))
            }
            (Principal::Token { id, account, .. }, credential)
                if credential.kind() == CredentialKind::ApiToken =>
            {
                Ok((*account, jwt::TokenParent::ApiToken(*id)))
            }
            _ => {
                let message = "a signed token cannot create another; authenticate with name and password or an \
                               API token";
                Err(AuthError::Forbidden(message.to_owned()))
            }
        }
    }

    /// Signs a token for the address of a WebSocket.
    ///
    /// # Errors
    /// Rejects agents, and credentials that have just ended.
    pub fn sign_websocket_token(&self, directory: &AuthDirectory) -> Result<String, AuthError> {
        let (snapshot, now_ms) = (directory.snapshot(), directory.now_ms());
        let (account, parent, until) = match &self.credential {
            Credential::Bearer(text) if jwt::has_jwt_shape(text) => {
                let claims = jwt::verify(&snapshot, text, now_ms);
                let claims = claims.ok_or(AuthError::TokenExpired("invalid or expired token"))?;
                (claims.sub, claims.parent, Some(claims.exp))
            }
            _ => self.token_parent().map(|(account, parent)| (account, parent, None))?,
        };
        let account = snapshot.enabled_account(account).ok_or(AuthError::Unauthenticated)?;
        jwt::sign_websocket(&snapshot, account, parent, until, now_ms).ok_or(AuthError::SigningKeyMissing)
    }

    /// Notes how an agent sends. Requests from the machine of the hub need no encryption.
    pub fn record_transport(&self, directory: &AuthDirectory, client: IpAddr, is_encrypted: bool) {
        if let Principal::Agent { id, .. } = self.principal {
            let is_local = client.to_canonical().is_loopback();
            directory.unencrypted_agents().record(id, !is_encrypted && !is_local);
        }
    }

    /// API token of the identity, or that its signed token was created with.
    pub fn token_id(&self) -> Option<Uuid> {
        match &self.principal {
            Principal::Token { id, .. } => Some(*id),
            Principal::Account { .. } | Principal::Agent { .. } | Principal::EmbeddedAgent => None,
        }
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
        self.includes_host_with(snapshot.host_tags(host))
    }

    /// Returns whether a host with these tags is within the identity's host tags.
    pub fn includes_host_with(&self, tags: &[String]) -> bool {
        snapshot::limit_includes(&self.host_tags, tags)
    }

    /// Returns whether everything that these tags give access to is within the identity's own limit. No tags
    /// give access to all hosts.
    pub fn includes_scope(&self, host_tags: &[String]) -> bool {
        self.host_tags.is_empty()
            || (!host_tags.is_empty() && host_tags.iter().all(|tag| self.host_tags.contains(tag)))
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

/// Credentials of a request, unverified. Only WebSocket tokens are accepted in the query.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestCredentials<'a> {
    /// Value of the `Authorization` header.
    pub authorization: Option<&'a str>,
    /// Values of the session cookies; the first valid one counts. Hubs that share a host name receive each
    /// other's cookies.
    pub session_cookies: &'a [&'a str],
    /// Values of the confirmation cookies.
    pub confirmation_cookies: &'a [&'a str],
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
    let bearer = match request.authorization {
        None => None,
        Some(header) => {
            let token = header.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or(AuthError::InvalidAuthorizationHeader)?;
            Some(token.trim().to_owned())
        }
    };
    if let Some(bearer) = bearer {
        return resolve(directory, &Credential::Bearer(bearer)).map(Some);
    }
    if let Some(token) = request.query_token {
        return from_websocket_token(directory, token).map(Some);
    }
    let credentials =
        request.session_cookies.iter().map(|cookie| Credential::Session(secret::hash_secret(cookie)));
    let identity = credentials.filter_map(|credential| resolve(directory, &credential).ok()).next();
    Ok(identity.map(|identity| {
        let confirmation = match &identity.credential {
            Credential::Session(hash) => {
                confirmation::of_session(directory, hash, request.confirmation_cookies)
            }
            Credential::Bearer(_) | Credential::WebSocketToken(_) => Confirmation::None,
        };
        Identity { confirmation, ..identity }
    }))
}

/// Identity of a token in the address of a WebSocket.
fn from_websocket_token(directory: &AuthDirectory, token: &str) -> Result<Identity, AuthError> {
    // URLs are logged by proxies: tokens with more rights or a longer lifetime are not accepted there.
    if !jwt::has_jwt_shape(token) {
        return Err(AuthError::TokenInQuery);
    }
    let (snapshot, now_ms) = (directory.snapshot(), directory.now_ms());
    match jwt::verify_websocket(&snapshot, token, now_ms) {
        Some(claims) => resolve(directory, &Credential::WebSocketToken(Box::new(claims))),
        None if jwt::verify(&snapshot, token, now_ms).is_some() => Err(AuthError::TokenInQuery),
        None => Err(AuthError::TokenExpired("invalid or expired token")),
    }
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
        Credential::WebSocketToken(claims) => {
            let is_over = claims.until.is_some_and(|until_s| until_s <= now_ms / 1_000);
            let claims = Some(&**claims).filter(|_| !is_over);
            from_claims(directory, &snapshot, claims, credential.clone())
        }
    }
}

/// Identity of a signed token or WebSocket token: that of the credential that it was created with.
fn from_claims(
    directory: &AuthDirectory,
    snapshot: &AuthSnapshot,
    claims: Option<&jwt::Claims>,
    credential: Credential,
) -> Result<Identity, AuthError> {
    let expired = AuthError::TokenExpired("invalid or expired token");
    let account = claims.and_then(|claims| snapshot.enabled_account(claims.sub));
    let (Some(claims), Some(account)) = (claims, account) else { return Err(expired) };
    if account.token_epoch != claims.epoch {
        return Err(expired);
    }
    match &claims.parent {
        jwt::TokenParent::ApiToken(id) => {
            let is_match = |token: &&Token| token.id == *id && token.account == account.id;
            let token = snapshot.tokens.values().find(is_match).ok_or(expired)?;
            from_token(directory, token, account, credential)
        }
        jwt::TokenParent::Session(hash) => {
            let hash = HEXLOWER.decode(hash.as_bytes()).ok().and_then(|hash| SecretHash::try_from(hash).ok());
            let session = hash.and_then(|hash| snapshot.sessions.get(&hash)).ok_or(expired.clone())?;
            if session.account != account.id || !is_session_valid(directory, session) {
                return Err(expired);
            }
            let principal = Principal::Account { id: account.id, name: account.name.clone() };
            Ok(Identity::for_account(account, account.role, principal, credential))
        }
        jwt::TokenParent::Password => {
            let principal = Principal::Account { id: account.id, name: account.name.clone() };
            Ok(Identity::for_account(account, account.role, principal, credential))
        }
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
        let claims = jwt::verify(snapshot, text, now_ms);
        return from_claims(directory, snapshot, claims.as_ref(), credential);
    }
    let token = snapshot.tokens.get(&secret::hash_secret(text)).ok_or(AuthError::UnknownToken)?;
    let account = snapshot.enabled_account(token.account).ok_or(AuthError::UnknownToken)?;
    let identity = from_token(directory, token, account, credential)?;
    directory.last_used().touch_token(token.id, now_ms);
    Ok(identity)
}

fn from_token(
    directory: &AuthDirectory,
    token: &Token,
    account: &Account,
    credential: Credential,
) -> Result<Identity, AuthError> {
    let now_ms = directory.now_ms();
    if !token.is_valid(now_ms) {
        return Err(AuthError::TokenExpired("token expired"));
    }
    // The end of a role at the identity provider is seen only at a login.
    let is_sso_only = account.oidc_subject.is_some() && account.password.is_none();
    let last_login_ms = account.last_login_ms.unwrap_or(account.created_ms);
    if is_sso_only && now_ms.saturating_sub(last_login_ms) > SSO_LOGIN_VALIDITY_MS {
        return Err(AuthError::TokenExpired("token paused: its user must log in at the identity provider"));
    }
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
