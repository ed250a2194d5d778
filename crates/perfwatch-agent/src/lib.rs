//! Agent that monitors a host: the ticker collects at a fixed phase, the spool stores snapshots until they
//! are acknowledged, the pusher sends them to the hub. Collecting never waits for sending.
//!
//! Threads, no async: one for the collectors, one ticker, one pusher. The agent opens no listening
//! socket; the only setting that a hub can change is the collection interval.

mod agent;
mod agent_state;
mod body_limit;
mod collector_pool;
mod collector_queue;
mod config;
mod credential;
mod error;
mod failure_log;
mod heartbeat;
mod hub_client;
mod identity;
mod machine;
mod push_outcome;
mod pusher;
mod resolver;
mod schedule;
mod scope;
mod self_metrics;
mod spool;
mod timeout_source;
mod url;

pub use agent::{Agent, Sampler, collect_once};
pub use config::AgentConfig;
pub use credential::AgentToken;
pub use error::{AgentConfigError, AgentError};
pub use heartbeat::{HeartbeatError, check_heartbeat};
pub use hub_client::{EnrollError, HubClient, HubResponse, StoredSecret, load_secret, save_secret};
pub use identity::{foreign_identifier, host_name, load_host_id};
pub use self_metrics::METRICS;
pub use timeout_source::TimeoutSource;
pub use url::is_unencrypted;
