//! Looks at hosts over SSH, with nothing installed there. The walk: [`Looks`] finds the connection
//! that is held, or [`session`] makes one (the host's key is the pinned one, or nothing is said to
//! it); the shell there gets `probe.sh` once and prints a capture each time it is asked; [`look`]
//! has the agent's own collectors read it.
//!
//! What answers may be anybody: each step has its deadline, each text its size.

mod abortable_stream;
mod collector;
mod connect_trace;
mod keys;
mod session;
mod shell;
mod snapshot;
#[cfg(test)]
mod tests;

pub use collector::SshCollector;

/// What is run on the host: prints a capture at each line that it reads.
pub const PROBE: &str = include_str!("probe.sh");
