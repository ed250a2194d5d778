//! The hub: takes snapshots in, keeps the last minutes live, streams them, serves the API and
//! the dashboard. Reaches the outside only through ports; the binary ties adapters to them.
//!
//! Rooms: [`guard`] and [`auth`] (who may enter), [`ingest`] (one way in), [`history`] (what was), [`live`] (who watches),
//! [`alerting`] (who is told), [`servers`] (whom we look at ourselves), [`api`] (who asks), [`ui`] (what they see),
//! [`fleet`] (whom we know).

mod api;
mod app;
mod config;
mod error;
mod http;
mod hub;
mod ingest;
mod listener;
mod middleware;
mod openapi;
mod router;
mod self_metrics;
mod ui;
mod ws;

pub use config::{EncryptionKeys, HubConfig, HubConfigError, InitialAdmin, TlsFiles};
pub use hub::{Hub, HubDependencies, HubError};
pub use middleware::rate_limit::RateLimitConfig;
pub use perfwatch_auth::SessionLifetimes;
pub use perfwatch_auth::admin::{AdminCli, AdminError};
pub use perfwatch_auth::oidc::OidcConfig;
pub use perfwatch_history::HistoryConfig;
pub use perfwatch_history::export::{ExportError, ExportRequest, export};
