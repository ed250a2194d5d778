//! Agentless collection over SSH; nothing is installed on the host. [`SshCollector`] reuses an open
//! connection, or [`session`] opens one: no credential is sent unless the host key is the pinned key.
//! The remote [`shell`] receives `probe.sh` once and prints a capture for each request. [`snapshot`]
//! parses the capture with the agent's collectors.
//!
//! A server is not trusted: every stage has a timeout, every output a size limit.

mod abortable_stream;
mod collector;
mod connect_trace;
mod key_cost;
mod keys;
mod session;
mod shell;
mod snapshot;
#[cfg(test)]
mod tests;

pub use collector::SshCollector;

/// Returns whether a private key can be opened; the entry of the fuzz target.
#[doc(hidden)]
pub fn can_open_private_key(key: &str, passphrase: Option<&str>) -> bool {
    use perfwatch_model::remote_collector::SshAuth;
    let auth = SshAuth::Key { key: key.into(), passphrase: passphrase.map(Into::into) };
    keys::load_private_key(&auth).is_ok()
}

/// Shell script that runs on the host and prints a capture for each line `capture` it reads.
pub const PROBE: &str = include_str!("probe.sh");
