//! HTTP building blocks of the hub: everything between a socket and a handler that does not depend on the
//! routes or the state of the hub.
//!
//! A request passes [`listener`] (limits of connections, TLS) and the hub's middleware, which uses [`origin`],
//! [`rate_limit`] and [`default_response`] (security headers, panics). [`base_path`] nests all routes below a path.
//! Handlers read it with [`extract`], [`body`], [`compressed_body`], [`ingest_body`], [`ingest_memory`], [`cookies`] and
//! [`params`]. Each failure becomes an [`ApiError`].

pub mod base_path;
pub mod body;
mod body_memory;
pub mod compressed_body;
pub mod compression;
pub mod connections;
pub mod cookies;
pub mod default_response;
pub mod error;
pub mod event_stream;
pub mod extract;
pub mod first_seen;
pub mod ingest_body;
pub mod ingest_memory;
pub mod install_script;
pub mod listener;
pub mod origin;
pub mod params;
pub mod poll_times;
pub mod process_metrics;
pub mod proxy_check;
pub mod public_address;
pub mod rate_limit;
pub mod read_limiter;
#[cfg(feature = "openapi")]
pub mod schemas;
pub mod shared_compression;
pub mod shared_json;
mod timed;
mod tls;
pub mod ui;

pub use error::ApiError;
pub use extract::{AllHosts, Audited, Caller, Client};
