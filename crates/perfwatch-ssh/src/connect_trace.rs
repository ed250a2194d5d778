//! The way to a host: each step within its deadline, each fault in words for a person.

use perfwatch_model::Clock;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, CollectionStep, FailureCause};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageTimeouts {
    pub(crate) resolve: Duration,
    pub(crate) connect: Duration,
    pub(crate) handshake: Duration,
    pub(crate) login: Duration,
    pub(crate) shell: Duration,
    pub(crate) read: Duration,
}

impl Default for StageTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            resolve: seconds(5),
            connect: seconds(8),
            handshake: seconds(10),
            login: seconds(15),
            shell: seconds(10),
            read: seconds(30),
        }
    }
}

/// What was done so far.
pub(crate) struct ConnectTrace<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) deadlines: StageTimeouts,
    pub(crate) steps: Vec<CollectionStep>,
    pub(crate) keys: Vec<(Uuid, String)>,
}

impl<'a> ConnectTrace<'a> {
    pub(crate) fn new(clock: &'a dyn Clock, deadlines: StageTimeouts) -> Self {
        Self { clock, deadlines, steps: Vec::new(), keys: Vec::new() }
    }

    /// One step: what it brings, and what there is to say of it.
    pub(crate) async fn run_stage<T>(
        &mut self,
        name: CollectionStage,
        within: Duration,
        work: impl Future<Output = Result<(T, String), CollectionFailure>>,
    ) -> Result<T, CollectionFailure> {
        let began = self.clock.monotonic();
        let result = timeout(within, work).await;
        let (value, detail) = result.unwrap_or_else(|_| Err(timeout_failure(name, within)))?;
        let took = self.clock.monotonic().saturating_sub(began);
        self.steps.push(CollectionStep {
            stage: name,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            detail,
        });
        Ok(value)
    }
}

pub(crate) fn failure(
    stage: CollectionStage,
    cause: FailureCause,
    message: impl Into<String>,
) -> CollectionFailure {
    CollectionFailure { server_id: None, stage, cause, message: message.into(), offered_host_key: None }
}

fn timeout_failure(stage: CollectionStage, within: Duration) -> CollectionFailure {
    let what = match stage {
        CollectionStage::Resolve => "DNS lookup timed out",
        CollectionStage::Connect => "connection timed out",
        CollectionStage::Handshake => "key exchange timed out",
        CollectionStage::Authenticate => "authentication timed out",
        CollectionStage::Shell => "shell start timed out",
        CollectionStage::Read => "it did not finish",
    };
    failure(stage, FailureCause::TimedOut, format!("{what} within {} s", within.as_secs()))
}

/// Text of a host as it may be shown: one line, not too long.
pub(crate) fn sanitize_output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ");
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// What a fault of the connection means.
pub(crate) fn failure_from_russh(stage: CollectionStage, error: &russh::Error) -> CollectionFailure {
    use russh::Error as E;
    let (cause, message) = match error {
        E::NoCommonAlgo { kind, theirs, .. } => (
            FailureCause::NoCommonAlgorithm,
            format!("no common {kind:?} algorithm; server offers {}", theirs.join(", ")),
        ),
        E::Disconnect | E::HUP | E::SendError | E::RecvError => {
            (FailureCause::ConnectionClosed, "connection closed by the server".to_owned())
        }
        E::IO(error) => (FailureCause::ConnectionClosed, format!("connection lost: {error}")),
        E::ConnectionTimeout | E::KeepaliveTimeout | E::InactivityTimeout | E::Elapsed(_) => {
            (FailureCause::TimedOut, "connection timed out".to_owned())
        }
        E::ChannelOpenFailure(why) => (FailureCause::CommandFailed, format!("it opens no session: {why:?}")),
        E::Join(_) => (FailureCause::Internal, "this connection's task failed".to_owned()),
        other => (FailureCause::NotSsh, format!("SSH protocol error: {other}")),
    };
    failure(stage, cause, sanitize_output(message.as_bytes()))
}
