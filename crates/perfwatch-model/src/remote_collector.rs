//! Port for SSH collection: request, stages, outcome.
//!
//! The hub collects agentless hosts through [`RemoteCollector`]; the result is a snapshot with
//! the same content as that of an agent.

use crate::Snapshot;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Address and credentials of a server, with its jump host.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Server that the connection belongs to; open connections are looked up by this id.
    pub server_id: Uuid,
    /// DNS name or IP address.
    pub address: String,
    /// TCP port of the SSH service.
    pub port: u16,
    /// Login name on the server.
    pub user: String,
    /// Credential of the login.
    pub auth: SshAuth,
    /// Required host key; `None` accepts any key at first use.
    pub pinned_host_key: Option<String>,
    /// Jump host through which the server is reached.
    pub jump: Option<Box<SshTarget>>,
}

/// Credential of an SSH login.
#[derive(Debug, Clone)]
pub enum SshAuth {
    /// Password or keyboard-interactive login.
    Password(SecretString),
    /// Private key in OpenSSH, PEM or PuTTY format.
    Key {
        /// Text of the key file.
        key: SecretString,
        /// Passphrase of an encrypted key.
        passphrase: Option<SecretString>,
    },
}

/// Request for one collection.
#[derive(Debug, Clone)]
pub struct CollectRequest {
    /// Server to collect from.
    pub target: SshTarget,
    /// Counter state of the previous collection.
    pub counter_state: Option<Vec<u8>>,
    /// Maximum age of the counter state. With older counters, the host is read twice in this
    /// collection.
    pub max_counter_age: Duration,
    /// Collection interval: the time span that the snapshot covers.
    pub interval: Duration,
    /// Time for which the connection stays open for the next collection.
    pub keep_alive: Duration,
    /// Opens a new connection even if an open connection exists; used by connection tests.
    pub force_new_connection: bool,
    /// Observer of the stages while the collection runs.
    pub observer: Option<Arc<dyn CollectionObserver>>,
}

/// Observes a running collection. Its methods must not block.
pub trait CollectionObserver: fmt::Debug + Send + Sync {
    /// A stage begins.
    fn stage_started(&self, stage: CollectionStage);
    /// A step was completed.
    fn step_completed(&self, step: &CollectionStep);
}

/// One completed step of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectionStep {
    /// Stage that the step belongs to.
    pub stage: CollectionStage,
    /// Duration of the step in milliseconds.
    pub duration_ms: u64,
    /// Human-readable result, for example the resolved addresses.
    pub detail: String,
}

/// Stage of a collection, in order of execution. With a jump host, the first four stages run for
/// the jump host first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CollectionStage {
    /// DNS lookup of the address.
    Resolve,
    /// Opening a TCP connection.
    Connect,
    /// SSH key exchange and verification of the host key.
    Handshake,
    /// Login with the configured credential.
    Authenticate,
    /// Start of a shell on the host.
    Shell,
    /// Running the probe and reading its capture.
    Read,
}

/// Cause of a failed collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureCause {
    /// Name could not be resolved.
    DnsFailure,
    /// Connection refused, or no route to the address.
    Unreachable,
    /// Time limit of a stage exceeded.
    TimedOut,
    /// Peer does not speak valid SSH.
    NotSsh,
    /// No algorithm supported by both sides.
    NoCommonAlgorithm,
    /// Offered host key differs from the pinned key.
    HostKeyChanged,
    /// Server rejected the credential.
    AuthenticationFailed,
    /// Configured private key is malformed, or its passphrase is wrong.
    InvalidPrivateKey,
    /// Server closed the connection.
    ConnectionClosed,
    /// Probe failed in the host's shell.
    CommandFailed,
    /// Output exceeds the size limit.
    OutputTooLarge,
    /// Output is not a capture of a Linux host.
    UnparseableOutput,
    /// Stored password was deleted, because the path to the server changed.
    CredentialsRequired,
    /// Fault of the hub, independent of the server.
    Internal,
}

impl FailureCause {
    /// Returns whether the server is blocked until an operator acts: repeated wrong passwords lock
    /// accounts, and a changed host key may belong to an attacker.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::HostKeyChanged
                | Self::AuthenticationFailed
                | Self::InvalidPrivateKey
                | Self::CredentialsRequired
        )
    }
}

/// Reason why a collection produced no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionFailure {
    /// Server that caused the failure: the target or a jump host.
    pub server_id: Option<Uuid>,
    /// Stage at which the collection failed.
    pub stage: CollectionStage,
    /// Machine-readable cause of the failure.
    pub cause: FailureCause,
    /// Human-readable description of the failure.
    pub message: String,
    /// Host key that was offered instead of the pinned key.
    pub offered_host_key: Option<String>,
}

impl fmt::Display for CollectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Result of a successful collection.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Snapshot with the same content as that of an agent.
    pub snapshot: Snapshot,
    /// Hostname reported by the host.
    pub hostname: String,
    /// Lead of the host's clock over the hub's clock, milliseconds; negative if it is behind.
    pub skew_ms: i64,
    /// Counter state for the next collection.
    pub counter_state: Vec<u8>,
}

/// Steps and result of a collection.
#[derive(Debug, Clone)]
pub struct CollectionOutcome {
    /// Completed steps, in order of execution.
    pub steps: Vec<CollectionStep>,
    /// Offered host keys of the target and its jump hosts, by server.
    pub host_keys: Vec<(Uuid, String)>,
    /// Snapshot, or the reason for its absence.
    pub result: Result<Collected, CollectionFailure>,
}

/// Collects metrics of agentless hosts. Every collection ends within the implementation's time
/// limits.
pub trait RemoteCollector: Send + Sync {
    /// Runs a collection to its end.
    fn collect(
        &self,
        request: CollectRequest,
    ) -> Pin<Box<dyn Future<Output = CollectionOutcome> + Send + '_>>;
    /// Opens a private key: decrypts it with its passphrase and returns it without encryption, so that
    /// connections do not pay for the key derivation. Expensive; runs in a worker pool.
    ///
    /// # Errors
    /// Returns the reason if the key is malformed or too expensive to open, or the passphrase is missing
    /// or wrong.
    fn open_private_key(
        &self,
        key: &SecretString,
        passphrase: Option<&SecretString>,
    ) -> Result<SecretString, String>;
    /// Closes the open connection to a server, if there is any.
    fn close_connection(&self, server_id: Uuid);
    /// Number of open connections.
    fn open_connections(&self) -> usize;
}
