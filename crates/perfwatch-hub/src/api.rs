//! Handlers and their DTOs, one module per resource.

pub(crate) mod account;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod backtest;
mod browser_session;
pub(crate) mod catalog;
pub(crate) mod channels;
pub(crate) mod collection_jobs;
pub(crate) mod collections;
mod definitions;
pub(crate) mod enrollment_tokens;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod incidents;
pub(crate) mod install;
pub(crate) mod notifications;
pub(crate) mod oidc;
pub(crate) mod recent;
pub(crate) mod rules;
pub(crate) mod servers;
pub(crate) mod servers_import;
pub(crate) mod silences;
pub(crate) mod system;
pub(crate) mod tokens;
pub(crate) mod users;
