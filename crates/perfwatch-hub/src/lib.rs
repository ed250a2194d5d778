//! Hub: ingests snapshots, stores their history, streams them, and serves the API and the dashboard. The hub
//! reaches the outside only through ports; the binary provides the adapters.
//!
//! A request passes the listener, the middleware (authentication, access, rate limits) and the router to a
//! handler in `api`. Snapshots pass `perfwatch_ingest`; WebSockets are served by `ws`. The HTTP building blocks,
//! storage, alerting, live data and SSH collection are separate crates, which `hub` wires.

mod api;
mod app;
mod config;
mod host_access;
mod hub;
mod initial_access;
mod middleware;
mod openapi;
mod router;
mod services;
mod ws;

pub use config::{EncryptionKeys, HubConfig, HubConfigError, InitialAdmin};
pub use hub::Hub;
pub use perfwatch_http::listener::{TlsFiles, check_certificate};
pub use perfwatch_http::rate_limit::RateLimitConfig;
pub use services::{HubDependencies, HubError};
