//! One host's way to its hub: the ticker reads at a fixed phase, the spool keeps what was read
//! until it is acked, the pusher sends. Collecting never waits for sending.
//!
//! Threads, no async: one a collector, one ticker, one pusher. There is no way in: the agent
//! listens to nothing, and all a hub can change is how often it sends.

mod agent;
mod collector_pool;
mod config;
mod error;
mod hub_client;
mod identity;
mod pusher;
mod schedule;
mod self_metrics;
mod spool;
mod timeout_source;

pub use agent::{Agent, collect_once};
pub use config::{AgentConfig, AgentConfigError};
pub use error::AgentError;
pub use hub_client::{
    ENROLLMENT_TOKEN_PREFIX, EnrollError, HubClient, HubResponse, load_secret, save_secret,
};
pub use identity::{host_id, host_name};
pub use self_metrics::METRICS;
pub use timeout_source::TimeoutSource;
