//! Who may enter, and what for: accounts with sessions, tokens and signed tokens; agents.
//!
//! All of it stands in memory ([`people::People`]), read from the store at start and whenever it
//! changed, so that a request costs no query and goes on while the database is away. What is
//! changed goes through one commit with its entry in the audit log.

pub(crate) mod access;
pub(crate) mod actor;
pub(crate) mod admin;
pub(crate) mod client_addr;
pub(crate) mod directory;
pub(crate) mod identity;
pub(crate) mod jwt;
pub(crate) mod login;
pub(crate) mod login_throttle;
pub(crate) mod oidc;
pub(crate) mod password;
pub(crate) mod rate_limit;
pub(crate) mod secret;
pub(crate) mod totp;

pub(crate) use actor::Actor;
pub(crate) use client_addr::ClientAddr;
pub(crate) use directory::AuthDirectory;
pub(crate) use identity::Identity;
pub(crate) use rate_limit::RateLimiters;
