//! Authentication and authorization: accounts with sessions, API tokens and signed tokens; agents;
//! the access table; the audit log; encryption of secrets.
//!
//! [`AuthDirectory`] holds all credentials in memory, so that a request needs no query and keeps
//! working while the database is unavailable. A change of rights is one commit with its audit entry.

pub mod access;
pub mod account_name;
pub mod actor;
pub mod admin;
mod audit_retention;
pub mod client_addr;
mod client_auth;
pub mod config;
pub mod confirmation;
pub mod directory;
pub mod encryption;
pub mod enrollment;
pub mod error;
pub mod forwarded;
pub mod grant;
mod hash_threads;
pub mod identity;
mod identity_shares;
pub mod jwt;
mod last_used;
pub mod login;
pub mod login_throttle;
pub mod oidc;
mod oidc_user;
pub mod password;
pub mod preferences;
mod resolver;
pub mod revocation;
pub mod secret;
pub mod signing_keys;
pub mod snapshot;
#[cfg(test)]
mod test_directory;
pub mod totp;

pub use actor::Actor;
pub use client_addr::ClientAddr;
pub use config::SessionLifetimes;
pub use directory::AuthDirectory;
pub use encryption::Keyring;
pub use error::AuthError;
pub use grant::Grant;
pub use identity::Identity;
pub use snapshot::AuthSnapshot;
