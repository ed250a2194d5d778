//! One look: the target from the row, the look, the snapshot's way in, and what is to be written
//! down of it.

use super::Servers;
use crate::ingest::Submission;
use perfwatch_model::remote::{Ask, Cause, Failure, Looked, Seen, Stage, Step, Target};
use perfwatch_model::{HostId, HostRef};
use perfwatch_store::servers::{LookRow, ServerRow};
use perfwatch_store::{Change, StoreError};
use std::time::Duration;
use uuid::Uuid;

/// Hosts on the way to one.
const MOST_JUMPS: usize = 3;
/// Whatever happens, a look ends; each of its steps has a shorter time of its own.
pub(super) const LONGEST: Duration = Duration::from_secs(150);

/// Why it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its time came.
    Scheduled,
    /// Somebody asked for it.
    Asked,
    /// Somebody watches.
    Live,
    /// To see whether it can be made.
    Test,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Asked => "asked",
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// How long what a look opens is held, and since when counters still say something of now.
pub(super) struct Manner {
    pub(super) kind: Kind,
    pub(super) tries: i64,
    pub(super) interval: Duration,
    pub(super) hold: Duration,
    pub(super) carried: Option<Vec<u8>>,
}

/// What came of it, and what there is to write down.
pub(crate) struct Outcome {
    pub(crate) took_ms: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) failure: Option<Failure>,
    /// The key that it showed.
    pub(crate) key: Option<String>,
    pub(super) carried: Option<Vec<u8>>,
    pub(super) changes: Vec<Change>,
}

fn failure(cause: Cause, stage: Stage, message: impl Into<String>) -> Failure {
    Failure { server: None, stage, cause, message: message.into(), shown_key: None }
}

impl Servers {
    /// Where it is and how to enter, with what lies on the way.
    async fn target(&self, row: &ServerRow) -> Result<Result<Target, Failure>, StoreError> {
        let mut chain = vec![row.clone()];
        while let Some(jump) = chain.last().and_then(Self::record).and_then(|server| server.jump) {
            if chain.len() > MOST_JUMPS || chain.iter().any(|row| row.id == jump) {
                let why = "the way to it leads through itself, or through more than three others";
                return Ok(Err(failure(Cause::Unreachable, Stage::Connect, why)));
            }
            let Some(next) = ServerRow::one(self.store(), jump).await? else {
                let why = "the server on the way to it is no more";
                return Ok(Err(failure(Cause::Unreachable, Stage::Connect, why)));
            };
            if next.refused.is_some() {
                let name = Self::record(&next).map(|server| server.name).unwrap_or_default();
                let why = format!("{name}, which is on the way, is not tried any more: see there");
                return Ok(Err(failure(Cause::Unreachable, Stage::Connect, why)));
            }
            chain.push(next);
        }
        let mut target = None;
        for row in chain.iter().rev() {
            let Some(server) = Self::record(row) else {
                return Ok(Err(failure(Cause::Internal, Stage::Resolve, "its record can't be read")));
            };
            let login = match self.unseal(row) {
                Ok(credentials) => credentials.login(),
                Err(why) => {
                    let why = format!("credentials of {}: {why}", server.name);
                    return Ok(Err(failure(Cause::Internal, Stage::Login, why)));
                }
            };
            target = Some(Target {
                server: row.id,
                address: server.address,
                port: server.port,
                user: server.user,
                login,
                pin: row.host_key.clone(),
                jump: target.map(Box::new),
            });
        }
        let missing = || failure(Cause::Internal, Stage::Resolve, "there is no such server");
        Ok(target.ok_or_else(missing))
    }

    /// Tries whether a connection can be made as it is asked for, and keeps nothing.
    pub(crate) async fn try_out(&self, row: &ServerRow) -> Result<Outcome, StoreError> {
        let manner = Manner {
            kind: Kind::Test,
            tries: 1,
            interval: Duration::from_secs(60),
            hold: Duration::ZERO,
            carried: None,
        };
        // Those who wait are few, and each of them for a bounded time.
        let _turn = self.tests.acquire().await;
        self.look(row, manner).await
    }

    /// Looks once.
    pub(super) async fn look(&self, row: &ServerRow, manner: Manner) -> Result<Outcome, StoreError> {
        let began = self.rooms.clock.monotonic();
        let looked = match self.target(row).await? {
            Ok(target) => self.ask(target, &manner).await,
            Err(failure) => Looked { steps: Vec::new(), keys: Vec::new(), result: Err(failure) },
        };
        let Looked { steps, keys, result } = looked;
        let (failure, carried) = match result {
            Ok(seen) if manner.kind == Kind::Test => (None, Some(seen.carried)),
            Ok(seen) => {
                let carried = seen.carried.clone();
                (self.take_in(row, seen).await.err(), Some(carried))
            }
            Err(failure) => (Some(failure), None),
        };
        self.counts.looks.inc();
        if failure.is_some() {
            self.counts.failed.inc();
        }
        let took = self.rooms.clock.monotonic().saturating_sub(began);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let carried = carried.filter(|_| failure.is_none());
        let note = LookRow {
            id: 0,
            server: row.id,
            at_ms: self.rooms.clock.wall_ms(),
            kind: manner.kind.name().to_owned(),
            tries: manner.tries,
            took_ms: i64::try_from(took_ms).unwrap_or(i64::MAX),
            cause: failure.as_ref().map(|failure| cause_name(failure.cause)),
            error: failure.as_ref().map(|failure| failure.message.clone()),
            steps: serde_json::to_string(&steps).unwrap_or_default(),
        };
        let mut changes = vec![note.add()];
        if manner.kind != Kind::Test {
            changes.push(note.note(carried.as_deref()));
        }
        // On first use; the store keeps the first.
        changes.extend(keys.iter().map(|(server, key)| ServerRow::pin(*server, key)));
        let key = keys.into_iter().find(|(server, _)| *server == row.id).map(|(_, key)| key);
        if let Some(failure) = failure.as_ref().filter(|failure| failure.cause.is_final()) {
            changes.extend(self.refuse(row, failure).await?);
        }
        Ok(Outcome { took_ms, steps, failure, key, carried, changes })
    }

    async fn ask(&self, target: Target, manner: &Manner) -> Looked {
        let ask = Ask {
            target,
            carried: manner.carried.clone(),
            fresh: manner.interval * 3,
            interval: manner.interval,
            hold: manner.hold,
            anew: manner.kind == Kind::Test,
        };
        let looked = tokio::time::timeout(LONGEST, self.rooms.remote.look(ask)).await;
        looked.unwrap_or_else(|_| Looked {
            steps: Vec::new(),
            keys: Vec::new(),
            result: Err(failure(Cause::TimedOut, Stage::Read, "it did not end in time")),
        })
    }

    /// Nobody tries again with what was refused: not this server, nor what leads through it.
    async fn refuse(&self, row: &ServerRow, failure: &Failure) -> Result<Vec<Change>, StoreError> {
        let (cause, shown) = (cause_name(failure.cause), failure.shown_key.as_deref());
        let whose = failure.server.unwrap_or(row.id);
        let version = match whose == row.id {
            true => Some(row.version),
            false => ServerRow::one(self.store(), whose).await?.map(|jump| jump.version),
        };
        Ok(version.map(|version| ServerRow::refuse(whose, version, &cause, shown)).into_iter().collect())
    }

    /// The same way in as any agent's.
    async fn take_in(&self, row: &ServerRow, seen: Seen) -> Result<(), Failure> {
        let internal = |why: String| failure(Cause::Internal, Stage::Read, why);
        let name = Self::record(row).map(|server| server.name).unwrap_or(seen.hostname);
        let submission = Submission {
            host: HostRef { id: Some(HostId(row.id)), name },
            snapshots: vec![(0, seen.snapshot)],
            facts: None,
            skew_ms: Some(seen.skew_ms),
        };
        let answer = self.rooms.pipeline.submit(submission).await;
        let answer = answer.map_err(|error| internal(format!("this hub could not keep it: {error}")))?;
        match answer.rejected.first() {
            Some(refusal) => Err(failure(Cause::Garbled, Stage::Read, refusal.message.clone())),
            None => Ok(()),
        }
    }

    /// Tests are written down too.
    pub(crate) async fn note(&self, outcome: &Outcome) -> Result<(), perfwatch_store::CommitError> {
        self.commit(outcome.changes.iter().cloned().map(Into::into).collect()).await
    }
}

/// As it is kept and shown.
pub(crate) fn cause_name(cause: Cause) -> String {
    let name = serde_json::to_value(cause).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The target of one that is not kept yet.
pub(crate) fn unkept(id: Uuid, body: String, secret: Option<Vec<u8>>) -> ServerRow {
    ServerRow {
        id,
        body,
        enabled: false,
        interval_ms: 0,
        secret,
        version: 1,
        host_key: None,
        shown_key: None,
        refused: None,
        last_ms: None,
        last_took_ms: None,
        last_cause: None,
        last_error: None,
        last_ok_ms: None,
        next_ms: None,
    }
}
