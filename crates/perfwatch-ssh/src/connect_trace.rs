//! Connection stages with timeouts and failure causes.

use perfwatch_model::Clock;
use perfwatch_model::remote_collector::{
    CollectionFailure, CollectionObserver, CollectionStage, CollectionStep, FailureCause,
};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum length of a host's text in messages, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// Timeout of each stage of a collection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageTimeouts {
    pub(crate) resolve: Duration,
    pub(crate) connect: Duration,
    pub(crate) handshake: Duration,
    pub(crate) authenticate: Duration,
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
            authenticate: seconds(15),
            shell: seconds(10),
            read: seconds(30),
        }
    }
}

/// Completed steps and offered host keys of a collection.
pub(crate) struct ConnectTrace<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) timeouts: StageTimeouts,
    pub(crate) steps: Vec<CollectionStep>,
    pub(crate) host_keys: Vec<(Uuid, String)>,
    observer: Option<&'a dyn CollectionObserver>,
}

impl<'a> ConnectTrace<'a> {
    pub(crate) fn new(
        clock: &'a dyn Clock,
        timeouts: StageTimeouts,
        observer: Option<&'a dyn CollectionObserver>,
    ) -> Self {
        Self { clock, timeouts, steps: Vec::new(), host_keys: Vec::new(), observer }
    }

    /// Runs one stage within its time limit and records it as a step. `work` returns the result and
    /// the detail of the step.
    pub(crate) async fn run_stage<T>(
        &mut self,
        stage: CollectionStage,
        limit: Duration,
        work: impl Future<Output = Result<(T, String), CollectionFailure>>,
    ) -> Result<T, CollectionFailure> {
        let started_at = self.clock.monotonic();
        if let Some(observer) = self.observer {
            observer.stage_started(stage);
        }
        let result = timeout(limit, work).await;
        let (value, detail) = result.unwrap_or_else(|_| Err(timeout_failure(stage, limit)))?;
        let elapsed = self.clock.monotonic().saturating_sub(started_at);
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let step = CollectionStep { stage, duration_ms, detail };
        if let Some(observer) = self.observer {
            observer.step_completed(&step);
        }
        self.steps.push(step);
        Ok(value)
    }
}

/// Failure of a stage that is not yet attributed to a server.
pub(crate) fn failure(
    stage: CollectionStage,
    cause: FailureCause,
    message: impl Into<String>,
) -> CollectionFailure {
    CollectionFailure { server_id: None, stage, cause, message: message.into(), offered_host_key: None }
}

fn timeout_failure(stage: CollectionStage, limit: Duration) -> CollectionFailure {
    let message = match stage {
        CollectionStage::Resolve => "DNS lookup timed out",
        CollectionStage::Connect => "connection timed out",
        CollectionStage::Handshake => "key exchange timed out",
        CollectionStage::Authenticate => "authentication timed out",
        CollectionStage::Shell => "shell start timed out",
        CollectionStage::Read => "probe timed out",
    };
    failure(stage, FailureCause::TimedOut, format!("{message} after {} s", limit.as_secs()))
}

/// Text from a host as one line without control characters, at most [`MAX_TEXT_CHARS`] long.
pub(crate) fn sanitize_output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ");
    line.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

/// Maps an error of the SSH library to a failure cause and a message.
pub(crate) fn failure_from_russh(stage: CollectionStage, error: &russh::Error) -> CollectionFailure {
    use russh::Error as E;
    let (cause, message) = match error {
        E::NoCommonAlgo { kind, theirs: offered, .. } => (
            FailureCause::NoCommonAlgorithm,
            format!("no common {kind:?} algorithm; server offers {}", offered.join(", ")),
        ),
        E::Disconnect | E::HUP | E::SendError | E::RecvError => {
            (FailureCause::ConnectionClosed, "connection closed by the server".to_owned())
        }
        E::IO(error) => (FailureCause::ConnectionClosed, format!("connection lost: {error}")),
        E::ConnectionTimeout | E::KeepaliveTimeout | E::InactivityTimeout | E::Elapsed(_) => {
            (FailureCause::TimedOut, "connection timed out".to_owned())
        }
        E::ChannelOpenFailure(reason) => {
            (FailureCause::CommandFailed, format!("server rejected the session channel: {reason:?}"))
        }
        E::Join(_) => (FailureCause::Internal, "connection task failed".to_owned()),
        other => (FailureCause::NotSsh, format!("SSH protocol error: {other}")),
    };
    failure(stage, cause, sanitize_output(message.as_bytes()))
}
