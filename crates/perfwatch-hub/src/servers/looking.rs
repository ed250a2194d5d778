//! One look: the target from the row, the look, the snapshot's way in, and what is to be written
//! down of it.

use super::Servers;
use super::latest::Latest;
use crate::ingest::Submission;
use perfwatch_model::remote::{Ask, Cause, Failure, Looked, Seen, Stage, Step, Target};
use perfwatch_model::{HostId, HostRef};
use perfwatch_store::servers::{LookRow, ServerRow};
use perfwatch_store::{Change, StoreError};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Hosts on the way to one.
const MOST_JUMPS: usize = 3;
/// Whatever happens, a look ends; each of its steps has a shorter time of its own.
pub(super) const LONGEST: Duration = Duration::from_secs(150);

/// Counters of before say something of now for three intervals; where looks are late for want of
/// hands, longer, or a look would take more of them.
const FRESH: Duration = Duration::from_secs(900);

/// How long a test waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Those that a look goes through, the host itself first, as they stood when it began.
type Versions = Vec<(Uuid, i64)>;

/// Servers, of a version, whose connection ended while we logged in the last time.
#[derive(Default)]
pub(super) struct HungUp(Mutex<HashSet<(Uuid, i64)>>);

impl HungUp {
    /// A connection that ends while we log in may have broken, or be the host's way to refuse: twice
    /// in a row, it is refused, so that a password is not said again and again.
    fn judge(&self, failure: Failure, row: Uuid, versions: &[(Uuid, i64)]) -> Failure {
        if (failure.stage, failure.cause) != (Stage::Login, Cause::Closed) {
            return failure;
        }
        let whose = failure.server.unwrap_or(row);
        let mut hung_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = versions.iter().find(|(id, _)| *id == whose);
        if known.is_none_or(|known| hung_up.insert(*known)) {
            return failure;
        }
        let message = format!("{}; the second time in a row, that is taken as a refusal", failure.message);
        Failure { cause: Cause::LoginRefused, message, ..failure }
    }

    /// Whoever let us in has not hung up: the host itself, or those on the way to it.
    fn calm<T>(&self, result: &Result<T, Failure>, versions: &[(Uuid, i64)]) {
        let mut hung_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = match result {
            Err(failure) if failure.stage == Stage::Login => versions.get(1..).unwrap_or_default(),
            _ => versions,
        };
        entered.iter().for_each(|one| {
            hung_up.remove(one);
        });
    }
}

impl Servers {
    /// Where it is and how to enter, with what lies on the way; and of which version each of them is.
    async fn target(&self, row: &ServerRow) -> Result<Result<(Target, Versions), Failure>, StoreError> {
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
        let versions = chain.iter().map(|row| (row.id, row.version)).collect();
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
        Ok(target.ok_or_else(missing).map(|target| (target, versions)))
    }

    /// Tries whether a connection can be made as it is asked for, and keeps nothing.
    /// Nothing where too many are tried already.
    pub(crate) async fn try_out(&self, row: &ServerRow) -> Result<Option<Outcome>, StoreError> {
        let manner = Manner {
            kind: Kind::Test,
            tries: 1,
            interval: Duration::from_secs(60),
            hold: Duration::ZERO,
            carried: None,
        };
        let turn = tokio::time::timeout(PATIENCE, self.tests.acquire()).await;
        match turn {
            Ok(Ok(_turn)) => self.look(row, manner).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Looks once.
    pub(super) async fn look(&self, row: &ServerRow, manner: Manner) -> Result<Outcome, StoreError> {
        let began = self.rooms.clock.monotonic();
        let (looked, versions) = self.go(row, &manner).await?;
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
            changes.push(note.note(row.version, carried.as_deref()));
        }
        // On first use; the store keeps the first, and none of how a server was before.
        let version =
            |server: Uuid| versions.iter().find(|(id, _)| *id == server).map(|(_, version)| *version);
        let pin = |(server, key): &(Uuid, String)| Some(ServerRow::pin(*server, version(*server)?, key));
        changes.extend(keys.iter().filter_map(pin));
        let key = keys.into_iter().find(|(server, _)| *server == row.id).map(|(_, key)| key);
        if let Some(failure) = failure.as_ref().filter(|failure| failure.cause.is_final()) {
            // Nobody tries again with what was refused: not this server, nor what leads through it.
            let whose = failure.server.unwrap_or(row.id);
            let (cause, shown) = (cause_name(failure.cause), failure.shown_key.as_deref());
            changes.extend(version(whose).map(|version| ServerRow::refuse(whose, version, &cause, shown)));
        }
        Ok(Outcome { took_ms, steps, failure, key, carried, changes })
    }

    /// There and back. Through a host that did not let us in yet, one goes alone: of many that wait
    /// behind it, one tries its credentials, and the others hear what came of it.
    async fn go(&self, row: &ServerRow, manner: &Manner) -> Result<(Looked, Versions), StoreError> {
        let lost = |failure| Looked { steps: Vec::new(), keys: Vec::new(), result: Err(failure) };
        let (mut target, mut versions) = match self.target(row).await? {
            Ok(found) => found,
            Err(failure) => return Ok((lost(failure), vec![(row.id, row.version)])),
        };
        let unproven = |versions: &Versions| {
            let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            versions.iter().skip(1).any(|one| !proven.contains(one))
        };
        let mut turn = None;
        if unproven(&versions) {
            turn = tokio::time::timeout(PATIENCE * 2, self.proving.lock()).await.ok();
            if turn.is_none() {
                let why = "another look tries first whether the host on the way lets us in";
                let failure = failure(Cause::TimedOut, Stage::Connect, why);
                return Ok((lost(failure), vec![(row.id, row.version)]));
            }
            (target, versions) = match self.target(row).await? {
                Ok(found) => found,
                Err(failure) => return Ok((lost(failure), vec![(row.id, row.version)])),
            };
        }
        let mut looked = self.ask(target, manner).await;
        looked.result = looked.result.map_err(|failure| self.hung_up.judge(failure, row.id, &versions));
        let shown = |server: Uuid| looked.keys.iter().any(|(id, _)| *id == server);
        match &looked.result {
            // Whoever came to the host itself came through those before it.
            _ if shown(row.id) => {
                self.hung_up.calm(&looked.result, &versions);
                let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
                proven.extend(versions.iter().skip(1).copied());
            }
            // Before the others go on, they are to know.
            Err(failure) if turn.is_some() && failure.cause.is_final() => {
                let whose = failure.server.and_then(|id| versions.iter().find(|(known, _)| *known == id));
                let (cause, shown) = (cause_name(failure.cause), failure.shown_key.as_deref());
                let refuse =
                    whose.map(|(id, version)| ServerRow::refuse(*id, *version, &cause, shown).into());
                if let Some(refuse) = refuse {
                    self.rooms.store.commit(vec![refuse]).await.or_else(super::queue::unless_conflict)?;
                }
            }
            _ => {}
        }
        drop(turn);
        Ok((looked, versions))
    }

    async fn ask(&self, target: Target, manner: &Manner) -> Looked {
        let ask = Ask {
            target,
            carried: manner.carried.clone(),
            fresh: FRESH.max(manner.interval * 3),
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

    /// The same way in as any agent's.
    async fn take_in(&self, row: &ServerRow, seen: Seen) -> Result<(), Failure> {
        let internal = |why: String| failure(Cause::Internal, Stage::Read, why);
        // It may have gone meanwhile, or be another one: what was seen is not of it then.
        let now = ServerRow::one(self.store(), row.id).await.map_err(|error| internal(error.to_string()))?;
        if now.is_none_or(|now| !now.enabled || now.version != row.version) {
            return Err(internal("it was changed meanwhile".to_owned()));
        }
        let server = Self::record(row);
        let name = server.as_ref().map_or(seen.hostname, |server| server.name.clone());
        let latest = Latest::of(&seen.snapshot);
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
            None => {
                if let Some(server) = server {
                    self.remember(row.id, &server, &latest).await;
                }
                Ok(())
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_twice_in_a_row_has_refused() {
        let (row, jump) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let versions = [(row, 3), (jump, 1)];
        let hung_up = HungUp::default();
        let ends = |server, stage| {
            let failure = Failure { server, ..failure(Cause::Closed, stage, "it ended") };
            hung_up.judge(failure, row, &versions).cause
        };
        assert_eq!(ends(None, Stage::Login), Cause::Closed);
        // Elsewhere it says nothing; and the one on the way is another one.
        assert_eq!(ends(None, Stage::Handshake), Cause::Closed);
        assert_eq!(ends(Some(jump), Stage::Login), Cause::Closed);
        assert_eq!(ends(None, Stage::Login), Cause::LoginRefused);
        assert_eq!(ends(Some(jump), Stage::Login), Cause::LoginRefused);
        // Who came as far as the host itself was let in on the way.
        hung_up.calm(&Err::<(), _>(failure(Cause::Closed, Stage::Login, "it ended")), &versions);
        assert_eq!(ends(Some(jump), Stage::Login), Cause::Closed);
        assert_eq!(ends(None, Stage::Login), Cause::LoginRefused);
        hung_up.calm(&Ok(()), &versions);
        assert_eq!(ends(None, Stage::Login), Cause::Closed);
        // Changed by somebody, it is another one.
        let changed = Failure { server: None, ..failure(Cause::Closed, Stage::Login, "it ended") };
        assert_eq!(hung_up.judge(changed, row, &[(row, 4)]).cause, Cause::Closed);
    }
}
