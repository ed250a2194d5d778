//! Who may enter, and what for: accounts with sessions, tokens and signed tokens; agents.
//!
//! All of it stands in memory ([`people::People`]), read from the store at start and whenever it
//! changed, so that a request costs no query and goes on while the database is away. What is
//! changed goes through one commit with its entry in the audit log.

pub(crate) mod access;
pub(crate) mod by_hand;
pub(crate) mod client;
pub(crate) mod doer;
pub(crate) mod identity;
pub(crate) mod jwt;
pub(crate) mod limits;
pub(crate) mod login;
pub(crate) mod oidc;
pub(crate) mod password;
pub(crate) mod people;
pub(crate) mod secret;
pub(crate) mod throttle;
pub(crate) mod totp;

pub(crate) use client::Client;
pub(crate) use doer::Doer;
pub(crate) use identity::Identity;
pub(crate) use limits::Limits;
pub(crate) use people::People;
