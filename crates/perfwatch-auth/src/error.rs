//! Reasons for rejecting a credential, a login or a change of an account.

use perfwatch_store::{CommitError, StoreError};
use std::time::Duration;

/// Rejected credential, login or account change. The message is safe to show to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request carries no credential, and the route requires one.
    #[error("authentication required: log in or send Authorization: Bearer TOKEN")]
    Unauthenticated,
    /// The `Authorization` header is not of the form `Bearer TOKEN` (RFC 6750, section 2.1).
    #[error("invalid Authorization header; expected Bearer TOKEN")]
    InvalidAuthorizationHeader,
    /// A token other than a WebSocket token in a URL, where proxies and browsers log it.
    #[error("?token= accepts only WebSocket tokens; create one with POST /api/v1/auth/websocket-token")]
    TokenInQuery,
    /// A session whose user must enter the password again before a lasting change.
    #[error("enter your password again: POST /api/v1/auth/confirm")]
    ConfirmationRequired,
    /// The browser session has ended.
    #[error("session expired")]
    SessionExpired,
    /// An API token or signed token past its expiry, or with an invalid signature.
    #[error("{0}")]
    TokenExpired(&'static str),
    /// An API token that does not exist, or whose account is disabled.
    #[error("unknown token")]
    UnknownToken,
    /// An agent secret that does not exist.
    #[error("unknown agent; enroll it again")]
    UnknownAgent,
    /// The secret of a revoked agent.
    #[error("this agent was revoked")]
    AgentRevoked,
    /// The identity lacks the access that the route requires.
    #[error("{0}")]
    Forbidden(String),
    /// Wrong name, password or two-factor code.
    #[error("invalid name, password or code")]
    InvalidCredentials,
    /// The two-factor secret cannot be decrypted; recovery codes still work.
    #[error("two-factor codes cannot be verified at the moment; use a recovery code")]
    TotpUnavailable,
    /// Name and password are correct, and a two-factor code is missing.
    #[error("two-factor code required")]
    TotpRequired,
    /// Wrong password in a repeated authentication.
    #[error("current password is wrong")]
    WrongPassword,
    /// Too many failed attempts; the value is the time until the next attempt is accepted.
    #[error("too many failed attempts; wait {} s", .0.as_secs() + 1)]
    Throttled(Duration),
    /// An account name or a password that violates the rules.
    #[error("{0}")]
    InvalidAccount(String),
    /// No encryption key is configured, so a secret cannot be stored.
    #[error("no encryption key is configured; set hub.encryption_key")]
    EncryptionKeyMissing,
    /// The password hash could not be computed.
    #[error("password hashing failed")]
    HashingFailed,
    /// No key is available to sign a token with.
    #[error("no signing key is available")]
    SigningKeyMissing,
    /// The identity provider failed; the cause is in the log.
    #[error("identity provider error")]
    IdentityProvider,
    /// The account or the directory changed concurrently.
    #[error("modified concurrently; reload and retry")]
    Conflict,
    /// The store failed or is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for AuthError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Conflict,
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
