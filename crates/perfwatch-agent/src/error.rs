//! Errors that prevent an agent from starting.

/// Error that prevents the start of an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Invalid setting of the agent.
    #[error(transparent)]
    Config(#[from] AgentConfigError),
    /// State directory in use: two agents with one host id would send every snapshot twice.
    #[error("another agent already uses {0}")]
    Locked(String),
    /// Failure to start a thread.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Invalid setting with its key and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct AgentConfigError {
    /// Key below the section `agent`.
    pub key: &'static str,
    /// Description of the error and of the accepted values.
    pub message: String,
}
