//! The port through which the hub looks at a host that has no agent: where to go, how to enter,
//! and what came of it. Whoever stands behind it brings a snapshot like any agent's.

use crate::Snapshot;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use uuid::Uuid;

/// Where a host is, and how to enter.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Whose: what is held open is held by this.
    pub server_id: Uuid,
    /// Name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Who enters.
    pub user: String,
    /// By what.
    pub auth: SshAuth,
    /// The key that the host must show; any on first use.
    pub pinned_host_key: Option<String>,
    /// Through which other host.
    pub jump: Option<Box<SshTarget>>,
}

/// What opens a host's door.
#[derive(Debug, Clone)]
pub enum SshAuth {
    /// A password.
    Password(SecretString),
    /// A private key in OpenSSH's, PEM's or PuTTY's form.
    Key {
        /// Its text.
        key: SecretString,
        /// What it is locked with.
        passphrase: Option<SecretString>,
    },
}

/// What is asked of a look.
#[derive(Debug, Clone)]
pub struct CollectRequest {
    /// Where.
    pub target: SshTarget,
    /// What the last look carried over.
    pub counter_state: Option<Vec<u8>>,
    /// Counters older than this say nothing of now: it looks twice instead.
    pub max_counter_age: Duration,
    /// How often it is looked at: the time that a snapshot stands for.
    pub interval: Duration,
    /// How long the connection is held for the next look.
    pub keep_alive: Duration,
    /// A connection of its own, whatever is held: to try whether one can be made.
    pub force_new_connection: bool,
}

/// One thing done on the way, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectionStep {
    /// What.
    pub stage: CollectionStage,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// What was seen.
    pub detail: String,
}

/// What is done, in this order; through another host, its first four come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CollectionStage {
    /// Name to addresses.
    Resolve,
    /// A TCP connection.
    Connect,
    /// Keys are exchanged; the host shows its own.
    Handshake,
    /// Who we are.
    Authenticate,
    /// A shell answers.
    Shell,
    /// It prints what the kernel says.
    Read,
}

/// Why it came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureCause {
    /// No such name.
    DnsFailure,
    /// Nobody listens, or nothing leads there.
    Unreachable,
    /// It took longer than it may.
    TimedOut,
    /// What answers does not speak SSH as it should.
    NotSsh,
    /// No way of talking that both know.
    NoCommonAlgorithm,
    /// It shows another key than before.
    HostKeyChanged,
    /// It lets us not in.
    AuthenticationFailed,
    /// Our own key can't be used: it is garbled, or locked with another passphrase.
    InvalidPrivateKey,
    /// It ended the connection.
    ConnectionClosed,
    /// Its shell did not do what it was asked.
    CommandFailed,
    /// It says more than any host has to.
    OutputTooLarge,
    /// What it says is no account of a Linux host.
    UnparseableOutput,
    /// A fault of our own.
    Internal,
}

impl FailureCause {
    /// Whether nothing is tried again until somebody acts: wrong passwords lock accounts, and a
    /// changed key may be somebody else's.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::HostKeyChanged | Self::AuthenticationFailed | Self::InvalidPrivateKey)
    }
}

/// Why there is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionFailure {
    /// Whose fault: the host's, or that of one on the way to it.
    pub server_id: Option<Uuid>,
    /// Where it ended.
    pub stage: CollectionStage,
    /// Why.
    pub cause: FailureCause,
    /// In words, for a person.
    pub message: String,
    /// The key that the host showed instead of the one it should.
    pub offered_host_key: Option<String>,
}

impl fmt::Display for CollectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a look brought.
#[derive(Debug, Clone)]
pub struct Collected {
    /// As an agent would have sent it.
    pub snapshot: Snapshot,
    /// What the host calls itself.
    pub hostname: String,
    /// How far its clock is ahead of ours.
    pub skew_ms: i64,
    /// For the next look.
    pub counter_state: Vec<u8>,
}

/// A look and how it went.
#[derive(Debug, Clone)]
pub struct CollectionOutcome {
    /// What was done.
    pub steps: Vec<CollectionStep>,
    /// Keys that were shown, of the host and those on the way to it, by server.
    pub host_keys: Vec<(Uuid, String)>,
    /// What was seen.
    pub result: Result<Collected, CollectionFailure>,
}

/// Looks at hosts. Every look ends by itself, within a time that it sets.
pub trait RemoteCollector: Send + Sync {
    /// Looks once.
    fn collect(&self, ask: CollectRequest) -> Pin<Box<dyn Future<Output = CollectionOutcome> + Send + '_>>;
    /// Lets go of what is held open.
    fn close_connection(&self, server: Uuid);
    /// How many connections are held open.
    fn open_connections(&self) -> usize;
}
