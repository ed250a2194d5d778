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
    /// State directory of another machine, and no token to enroll as a new host.
    #[error(
        "the state directory {state} belongs to another machine ({identifier} differs). If this machine is a \
         clone, start it with an enrollment token (--token): it enrolls as a new host. If it replaces the \
         other machine, delete {state}/machine to keep the host"
    )]
    ForeignState {
        /// Path of the state directory.
        state: String,
        /// Identifier of the machine that differs.
        identifier: String,
    },
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
