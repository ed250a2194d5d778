//! The hub: takes snapshots in, keeps the last minutes live, streams them, serves the API and
//! the dashboard. Reaches the outside only through ports; the binary ties adapters to them.
//!
//! Rooms: [`guard`] and [`auth`] (who may enter), [`ingest`] (one way in), [`history`] (what was), [`live`] (who watches),
//! [`alerting`] (who is told), [`servers`] (whom we look at ourselves), [`api`] (who asks), [`ui`] (what they see),
//! [`fleet`] (whom we know).

mod alerting;
mod api;
mod app;
mod auth;
mod cache;
mod config;
mod error;
mod fleet;
mod guard;
mod history;
mod hub;
mod ingest;
mod live;
mod openapi;
mod router;
mod self_metrics;
mod serve;
mod servers;
mod ui;
mod vault;

pub use auth::by_hand::{UserError, Users};
pub use auth::identity::SessionTimes;
pub use auth::limits::RequestLimits;
pub use auth::oidc::OidcConfig;
pub use config::{FirstAdmin, HubConfig, HubProblem, SecretKeys, TlsFiles};
pub use history::HistoryConfig;
pub use history::export::{ExportError, ExportRequest, export};
pub use hub::{Deps, Hub, HubError};
