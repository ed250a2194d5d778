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
pub struct Target {
    /// Whose: what is held open is held by this.
    pub server: Uuid,
    /// Name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Who enters.
    pub user: String,
    /// By what.
    pub login: Login,
    /// The key that the host must show; any on first use.
    pub pin: Option<String>,
    /// Through which other host.
    pub jump: Option<Box<Target>>,
}

/// What opens a host's door.
#[derive(Debug, Clone)]
pub enum Login {
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
pub struct Ask {
    /// Where.
    pub target: Target,
    /// What the last look carried over.
    pub carried: Option<Vec<u8>>,
    /// Counters older than this say nothing of now: it looks twice instead.
    pub fresh: Duration,
    /// How often it is looked at: the time that a snapshot stands for.
    pub interval: Duration,
    /// How long the connection is held for the next look.
    pub hold: Duration,
    /// A connection of its own, whatever is held: to try whether one can be made.
    pub anew: bool,
}

/// One thing done on the way, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// What.
    pub name: Stage,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// What was seen.
    pub detail: String,
}

/// What is done, in this order; through another host, its first four come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Stage {
    /// Name to addresses.
    Resolve,
    /// A TCP connection.
    Connect,
    /// Keys are exchanged; the host shows its own.
    Handshake,
    /// Who we are.
    Login,
    /// A shell answers.
    Shell,
    /// It prints what the kernel says.
    Read,
}

/// Why it came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Cause {
    /// No such name.
    UnknownName,
    /// Nobody listens, or nothing leads there.
    Unreachable,
    /// It took longer than it may.
    TimedOut,
    /// What answers does not speak SSH as it should.
    NoSsh,
    /// No way of talking that both know.
    NoCommonWay,
    /// It shows another key than before.
    HostKeyChanged,
    /// It lets us not in.
    LoginRefused,
    /// Our own key can't be used: it is garbled, or locked with another passphrase.
    UnusableKey,
    /// It ended the connection.
    Closed,
    /// Its shell did not do what it was asked.
    CommandFailed,
    /// It says more than any host has to.
    TooMuch,
    /// What it says is no account of a Linux host.
    Garbled,
    /// A fault of our own.
    Internal,
}

impl Cause {
    /// Whether nothing is tried again until somebody acts: wrong passwords lock accounts, and a
    /// changed key may be somebody else's.
    pub fn is_final(self) -> bool {
        matches!(self, Self::HostKeyChanged | Self::LoginRefused | Self::UnusableKey)
    }
}

/// Why there is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault: the host's, or that of one on the way to it.
    pub server: Option<Uuid>,
    /// Where it ended.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
    /// In words, for a person.
    pub message: String,
    /// The key that the host showed instead of the one it should.
    pub shown_key: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a look brought.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As an agent would have sent it.
    pub snapshot: Snapshot,
    /// What the host calls itself.
    pub hostname: String,
    /// How far its clock is ahead of ours.
    pub skew_ms: i64,
    /// For the next look.
    pub carried: Vec<u8>,
}

/// A look and how it went.
#[derive(Debug, Clone)]
pub struct Looked {
    /// What was done.
    pub steps: Vec<Step>,
    /// Keys that were shown, of the host and those on the way to it, by server.
    pub keys: Vec<(Uuid, String)>,
    /// What was seen.
    pub result: Result<Seen, Failure>,
}

/// Looks at hosts. Every look ends by itself, within a time that it sets.
pub trait RemoteCollector: Send + Sync {
    /// Looks once.
    fn look(&self, ask: Ask) -> Pin<Box<dyn Future<Output = Looked> + Send + '_>>;
    /// Lets go of what is held open.
    fn release(&self, server: Uuid);
    /// How many connections are held open.
    fn held(&self) -> usize;
}
