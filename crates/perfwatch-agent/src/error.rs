//! Why an agent does not start; once it runs, nothing ends it but its owner.

use crate::config::AgentConfigError;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting that can't be.
    #[error(transparent)]
    Config(#[from] AgentConfigError),
    /// Two agents with one identity would count the same numbers.
    #[error("another agent already uses {0}")]
    Locked(String),
    /// The machine has no thread to give.
    #[error("can't start a thread: {0}")]
    Thread(#[from] std::io::Error),
}
