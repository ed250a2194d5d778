//! One host's way to its hub: the ticker reads at a fixed phase, the spool keeps what was read
//! until it is acked, the pusher sends. Collecting never waits for sending.
//!
//! Threads, no async: one a collector, one ticker, one pusher. There is no way in: the agent
//! listens to nothing, and all a hub can change is how often it sends.

mod config;
mod error;
mod guarded;
mod hub;
mod identity;
mod push;
mod run;
mod runner;
mod self_metrics;
mod spool;
mod tick;

pub use config::{AgentConfig, ConfigProblem};
pub use error::AgentError;
pub use guarded::Guarded;
pub use hub::{ENROLMENT, EnrolError, HubAnswer, HubClient, keep_secret, kept_secret};
pub use identity::{host_id, host_name};
pub use run::{Agent, take_reading_pair};
pub use self_metrics::METRICS;
