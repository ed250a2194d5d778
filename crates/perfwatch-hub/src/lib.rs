//! The hub: takes snapshots in, keeps the last minutes live, streams them, serves the API and
//! the dashboard. Reaches the outside only through ports; the binary ties adapters to them.
//!
//! Rooms: [`guard`] and [`auth`] (who may enter), [`ingest`] (one way in), [`history`] (what was), [`live`] (who watches),
//! [`alerting`] (who is told), [`servers`] (whom we look at ourselves), [`api`] (who asks), [`ui`] (what they see),
//! [`fleet`] (whom we know).

mod agentless;
mod alerting;
mod api;
mod app;
mod auth;
mod cache;
mod config;
mod encryption;
mod error;
mod guard;
mod history;
mod host_registry;
mod hub;
mod ingest;
mod listener;
mod live;
mod openapi;
mod router;
mod self_metrics;
mod ui;

pub use auth::admin::{AdminCli, AdminError};
pub use auth::identity::SessionLifetimes;
pub use auth::oidc::OidcConfig;
pub use auth::rate_limit::RateLimitConfig;
pub use config::{EncryptionKeys, HubConfig, HubConfigError, InitialAdmin, TlsFiles};
pub use history::HistoryConfig;
pub use history::export::{ExportError, ExportRequest, export};
pub use hub::{Hub, HubDependencies, HubError};
