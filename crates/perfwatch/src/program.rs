//! Identity of the running program: the full binary or the agent alone.

/// Program whose command line was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `perfwatch`, which has the agent as a command.
    #[cfg(feature = "hub")]
    Full,
    /// `perfwatch-agent`, without the hub.
    Agent,
}
