//! Hub: ingests snapshots, stores their history, streams them, and serves the API and the dashboard. The hub
//! reaches the outside only through ports; the binary provides the adapters.
//!
//! A request passes the listener, the middleware (authentication, access, rate limits) and the router to a
//! handler in `api`. Snapshots pass `ingest`; WebSockets are served by `ws`. Storage, alerting, live data and
//! SSH collection are separate crates, which `hub` wires.

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
