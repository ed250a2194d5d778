//! Command line: parses the flags, loads the configuration, runs the command.

mod agent;
#[cfg(feature = "hub")]
mod capsule;
mod exit;
mod flags;
#[cfg(feature = "hub")]
mod manual;
#[cfg(feature = "hub")]
mod perfwatch;
#[cfg(feature = "hub")]
mod top;

pub use agent::agent_main;
#[cfg(all(test, feature = "hub"))]
pub(crate) use agent::command as agent_command;
#[cfg(all(test, feature = "hub"))]
pub(crate) use perfwatch::command as hub_command;
#[cfg(feature = "hub")]
pub use perfwatch::main;
