//! Command line: parses the flags, loads the configuration, runs the command.

mod agent;
mod exit;
mod flags;
#[cfg(feature = "hub")]
mod perfwatch;

pub use agent::agent_main;
#[cfg(feature = "hub")]
pub use perfwatch::main;
