//! The way to a host: each step within its deadline, each fault in words for a person.

use perfwatch_model::Clock;
use perfwatch_model::remote::{Cause, Failure, Stage, Step};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) resolve: Duration,
    pub(crate) connect: Duration,
    pub(crate) handshake: Duration,
    pub(crate) login: Duration,
    pub(crate) shell: Duration,
    pub(crate) read: Duration,
}

impl Default for Deadlines {
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
pub(crate) struct Way<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) deadlines: Deadlines,
    pub(crate) steps: Vec<Step>,
    pub(crate) keys: Vec<(Uuid, String)>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(clock: &'a dyn Clock, deadlines: Deadlines) -> Self {
        Self { clock, deadlines, steps: Vec::new(), keys: Vec::new() }
    }

    /// One step: what it brings, and what there is to say of it.
    pub(crate) async fn step<T>(
        &mut self,
        name: Stage,
        within: Duration,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Result<T, Failure> {
        let began = self.clock.monotonic();
        let result = timeout(within, work).await;
        let (value, detail) = result.unwrap_or_else(|_| Err(late(name, within)))?;
        let took = self.clock.monotonic().saturating_sub(began);
        self.steps.push(Step { name, took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), detail });
        Ok(value)
    }
}

pub(crate) fn fail(stage: Stage, cause: Cause, message: impl Into<String>) -> Failure {
    Failure { server: None, stage, cause, message: message.into(), shown_key: None }
}

fn late(stage: Stage, within: Duration) -> Failure {
    let what = match stage {
        Stage::Resolve => "the name was not resolved",
        Stage::Connect => "nobody answered",
        Stage::Handshake => "it did not agree on keys",
        Stage::Login => "it did not say whether it lets us in",
        Stage::Shell => "no shell answered",
        Stage::Read => "it did not finish",
    };
    fail(stage, Cause::TimedOut, format!("{what} within {} s", within.as_secs()))
}

/// Text of a host as it may be shown: one line, not too long.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ");
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// What a fault of the connection means.
pub(crate) fn broken(stage: Stage, error: &russh::Error) -> Failure {
    use russh::Error as E;
    let (cause, message) = match error {
        E::NoCommonAlgo { kind, theirs, .. } => {
            (Cause::NoCommonWay, format!("no common {kind:?} algorithm; it offers {}", theirs.join(", ")))
        }
        E::Disconnect | E::HUP | E::SendError | E::RecvError => {
            (Cause::Closed, "it ended the connection".to_owned())
        }
        E::IO(error) => (Cause::Closed, format!("the connection broke: {error}")),
        E::ConnectionTimeout | E::KeepaliveTimeout | E::InactivityTimeout | E::Elapsed(_) => {
            (Cause::TimedOut, "it fell silent".to_owned())
        }
        E::ChannelOpenFailure(why) => (Cause::CommandFailed, format!("it opens no session: {why:?}")),
        E::Join(_) => (Cause::Internal, "this connection's task failed".to_owned()),
        other => (Cause::NoSsh, format!("it does not speak SSH as it should: {other}")),
    };
    fail(stage, cause, plain(message.as_bytes()))
}
