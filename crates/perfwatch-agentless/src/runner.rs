//! One look: the target from the row, the look, the snapshot's way in, and what is to be written
//! down of it.

use super::Agentless;
use super::summary::ServerSummary;
use crate::sink::{CollectedSnapshot, SinkError};
use perfwatch_model::remote_collector::{
    CollectRequest, Collected, CollectionFailure, CollectionOutcome, CollectionStage, CollectionStep,
    FailureCause, SshTarget,
};
use perfwatch_model::{HostId, HostRef};
use perfwatch_store::collections::{CollectTrigger, CollectionRow};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{SqlStatement, StoreError};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Hosts on the way to one.
const MAX_JUMP_HOSTS: usize = 3;
/// Whatever happens, a look ends; each of its steps has a shorter time of its own.
pub(super) const MAX_COLLECTION_TIME: Duration = Duration::from_secs(150);

/// Counters of before say something of now for three intervals; where looks are late for want of
/// hands, longer, or a look would take more of them.
const MAX_COUNTER_AGE: Duration = Duration::from_secs(900);

/// How long a test waits for its turn.
const TEST_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what a look opens is held, and since when counters still say something of now.
pub(super) struct CollectOptions {
    pub(super) trigger: CollectTrigger,
    pub(super) attempt: i64,
    pub(super) interval: Duration,
    pub(super) keep_alive: Duration,
    pub(super) counter_state: Option<Vec<u8>>,
}

/// What came of it, and what there is to write down.
pub struct CollectionReport {
    pub duration_ms: u64,
    pub steps: Vec<CollectionStep>,
    pub failure: Option<CollectionFailure>,
    /// The key that it showed.
    pub host_key: Option<String>,
    pub(super) counter_state: Option<Vec<u8>>,
    pub(super) statements: Vec<SqlStatement>,
}

fn collection_failure(
    cause: FailureCause,
    stage: CollectionStage,
    message: impl Into<String>,
) -> CollectionFailure {
    CollectionFailure { server_id: None, stage, cause, message: message.into(), offered_host_key: None }
}

/// Those that a look goes through, the host itself first, as they stood when it began.
type ServerVersions = Vec<(Uuid, i64)>;

/// Servers, of a version, whose connection ended while we logged in the last time.
#[derive(Default)]
pub(super) struct DisconnectTracker(Mutex<HashSet<(Uuid, i64)>>);

impl DisconnectTracker {
    /// A connection that ends while we log in may have broken, or be the host's way to refuse: twice
    /// in a row, it is refused, so that a password is not said again and again.
    fn classify(&self, failure: CollectionFailure, row: Uuid, versions: &[(Uuid, i64)]) -> CollectionFailure {
        if (failure.stage, failure.cause) != (CollectionStage::Authenticate, FailureCause::ConnectionClosed) {
            return failure;
        }
        let whose = failure.server_id.unwrap_or(row);
        let mut hung_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = versions.iter().find(|(id, _)| *id == whose);
        if known.is_none_or(|known| hung_up.insert(*known)) {
            return failure;
        }
        let message =
            format!("{} (second consecutive disconnect, treated as authentication failure)", failure.message);
        CollectionFailure { cause: FailureCause::AuthenticationFailed, message, ..failure }
    }

    /// Whoever let us in has not hung up: the host itself, or those on the way to it.
    fn clear<T>(&self, result: &Result<T, CollectionFailure>, versions: &[(Uuid, i64)]) {
        let mut hung_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = match result {
            Err(failure) if failure.stage == CollectionStage::Authenticate => {
                versions.get(1..).unwrap_or_default()
            }
            _ => versions,
        };
        entered.iter().for_each(|one| {
            hung_up.remove(one);
        });
    }
}

impl Agentless {
    /// Where it is and how to enter, with what lies on the way; and of which version each of them is.
    async fn resolve_target(
        &self,
        row: &ServerRow,
    ) -> Result<Result<(SshTarget, ServerVersions), CollectionFailure>, StoreError> {
        let mut chain = vec![row.clone()];
        while let Some(jump) = chain.last().and_then(Self::from_row).and_then(|server| server.jump) {
            if chain.len() > MAX_JUMP_HOSTS || chain.iter().any(|row| row.id == jump) {
                let why = "jump hosts form a cycle or exceed the limit of three";
                return Ok(Err(collection_failure(FailureCause::Unreachable, CollectionStage::Connect, why)));
            }
            let Some(next) = ServerRow::get(self.store(), jump).await? else {
                let why = "the jump host was deleted";
                return Ok(Err(collection_failure(FailureCause::Unreachable, CollectionStage::Connect, why)));
            };
            if next.blocked_reason.is_some() {
                let name = Self::from_row(&next).map(|server| server.name).unwrap_or_default();
                let why = format!("jump host {name} is blocked");
                return Ok(Err(collection_failure(FailureCause::Unreachable, CollectionStage::Connect, why)));
            }
            chain.push(next);
        }
        let versions = chain.iter().map(|row| (row.id, row.version)).collect();
        let mut target = None;
        for row in chain.iter().rev() {
            let Some(server) = Self::from_row(row) else {
                return Ok(Err(collection_failure(
                    FailureCause::Internal,
                    CollectionStage::Resolve,
                    "server record is unreadable",
                )));
            };
            let login = match self.decrypt_credentials(row) {
                Ok(credentials) => credentials.into_ssh_auth(),
                Err(why) => {
                    let why = format!("credentials of {}: {why}", server.name);
                    return Ok(Err(collection_failure(
                        FailureCause::Internal,
                        CollectionStage::Authenticate,
                        why,
                    )));
                }
            };
            target = Some(SshTarget {
                server_id: row.id,
                address: server.address,
                port: server.port,
                user: server.user,
                auth: login,
                pinned_host_key: row.host_key.clone(),
                jump: target.map(Box::new),
            });
        }
        let missing = || {
            collection_failure(FailureCause::Internal, CollectionStage::Resolve, "there is no such server")
        };
        Ok(target.ok_or_else(missing).map(|target| (target, versions)))
    }

    /// Tries whether a connection can be made as it is asked for, and keeps nothing.
    /// Nothing where too many are tried already.
    pub async fn test_connection(&self, row: &ServerRow) -> Result<Option<CollectionReport>, StoreError> {
        let manner = CollectOptions {
            trigger: CollectTrigger::Test,
            attempt: 1,
            interval: Duration::from_secs(60),
            keep_alive: Duration::ZERO,
            counter_state: None,
        };
        let turn = tokio::time::timeout(TEST_QUEUE_TIMEOUT, self.test_permits.acquire()).await;
        match turn {
            Ok(Ok(_turn)) => self.collect(row, manner).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Looks once.
    pub(super) async fn collect(
        &self,
        row: &ServerRow,
        manner: CollectOptions,
    ) -> Result<CollectionReport, StoreError> {
        let began = self.deps.clock.monotonic();
        let (looked, versions) = self.collect_via_jumps(row, &manner).await?;
        let CollectionOutcome { steps, host_keys: keys, result } = looked;
        let (failure, carried) = match result {
            Ok(seen) if manner.trigger == CollectTrigger::Test => (None, Some(seen.counter_state)),
            Ok(seen) => {
                let carried = seen.counter_state.clone();
                (self.ingest(row, seen).await.err(), Some(carried))
            }
            Err(failure) => (Some(failure), None),
        };
        self.counts.looks.inc();
        if failure.is_some() {
            self.counts.failed.inc();
        }
        let took = self.deps.clock.monotonic().saturating_sub(began);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let carried = carried.filter(|_| failure.is_none());
        let note = CollectionRow {
            id: 0,
            server: row.id,
            finished_ms: self.deps.clock.wall_ms(),
            trigger: manner.trigger,
            attempt: manner.attempt,
            duration_ms: i64::try_from(took_ms).unwrap_or(i64::MAX),
            cause: failure.as_ref().map(|failure| name(failure.cause)),
            error: failure.as_ref().map(|failure| failure.message.clone()),
            steps: serde_json::to_string(&steps).unwrap_or_default(),
        };
        let mut changes = vec![note.insert()];
        if manner.trigger != CollectTrigger::Test {
            changes.push(note.update_server(row.version, carried.as_deref()));
        }
        // On first use; the store keeps the first, and none of how a server was before.
        let version =
            |server: Uuid| versions.iter().find(|(id, _)| *id == server).map(|(_, version)| *version);
        let pin =
            |(server, key): &(Uuid, String)| Some(ServerRow::pin_host_key(*server, version(*server)?, key));
        changes.extend(keys.iter().filter_map(pin));
        let key = keys.into_iter().find(|(server, _)| *server == row.id).map(|(_, key)| key);
        if let Some(failure) = failure.as_ref().filter(|failure| failure.cause.is_permanent()) {
            // Nobody tries again with what was refused: not this server, nor what leads through it.
            let whose = failure.server_id.unwrap_or(row.id);
            let (cause, shown) = (name(failure.cause), failure.offered_host_key.as_deref());
            changes.extend(version(whose).map(|version| ServerRow::block(whose, version, &cause, shown)));
        }
        Ok(CollectionReport {
            duration_ms: took_ms,
            steps,
            failure,
            host_key: key,
            counter_state: carried,
            statements: changes,
        })
    }

    /// There and back. Through a host that did not let us in yet, one goes alone: of many that wait
    /// behind it, one tries its credentials, and the others hear what came of it.
    async fn collect_via_jumps(
        &self,
        row: &ServerRow,
        manner: &CollectOptions,
    ) -> Result<(CollectionOutcome, ServerVersions), StoreError> {
        let lost =
            |failure| CollectionOutcome { steps: Vec::new(), host_keys: Vec::new(), result: Err(failure) };
        let (mut target, mut versions) = match self.resolve_target(row).await? {
            Ok(found) => found,
            Err(failure) => return Ok((lost(failure), vec![(row.id, row.version)])),
        };
        let unproven = |versions: &ServerVersions| {
            let proven = self.verified_jumps.lock().unwrap_or_else(PoisonError::into_inner);
            versions.iter().skip(1).any(|one| !proven.contains(one))
        };
        let mut turn = None;
        if unproven(&versions) {
            turn = tokio::time::timeout(TEST_QUEUE_TIMEOUT * 2, self.verify_lock.lock()).await.ok();
            if turn.is_none() {
                let why = "another collection is verifying the jump host";
                let failure = collection_failure(FailureCause::TimedOut, CollectionStage::Connect, why);
                return Ok((lost(failure), vec![(row.id, row.version)]));
            }
            (target, versions) = match self.resolve_target(row).await? {
                Ok(found) => found,
                Err(failure) => return Ok((lost(failure), vec![(row.id, row.version)])),
            };
        }
        let mut looked = self.run_collector(target, manner).await;
        looked.result =
            looked.result.map_err(|failure| self.disconnects.classify(failure, row.id, &versions));
        let shown = |server: Uuid| looked.host_keys.iter().any(|(id, _)| *id == server);
        match &looked.result {
            // Whoever came to the host itself came through those before it.
            _ if shown(row.id) => {
                self.disconnects.clear(&looked.result, &versions);
                let mut proven = self.verified_jumps.lock().unwrap_or_else(PoisonError::into_inner);
                proven.extend(versions.iter().skip(1).copied());
            }
            // Before the others go on, they are to know.
            Err(failure) if turn.is_some() && failure.cause.is_permanent() => {
                let whose = failure.server_id.and_then(|id| versions.iter().find(|(known, _)| *known == id));
                let (cause, shown) = (name(failure.cause), failure.offered_host_key.as_deref());
                let refuse = whose.map(|(id, version)| ServerRow::block(*id, *version, &cause, shown).into());
                if let Some(refuse) = refuse {
                    self.deps.store.commit(vec![refuse]).await.or_else(super::scheduler::ignore_conflict)?;
                }
            }
            _ => {}
        }
        drop(turn);
        Ok((looked, versions))
    }

    async fn run_collector(&self, target: SshTarget, manner: &CollectOptions) -> CollectionOutcome {
        let ask = CollectRequest {
            target,
            counter_state: manner.counter_state.clone(),
            max_counter_age: MAX_COUNTER_AGE.max(manner.interval * 3),
            interval: manner.interval,
            keep_alive: manner.keep_alive,
            force_new_connection: manner.trigger == CollectTrigger::Test,
        };
        let looked = tokio::time::timeout(MAX_COLLECTION_TIME, self.deps.collector.collect(ask)).await;
        looked.unwrap_or_else(|_| CollectionOutcome {
            steps: Vec::new(),
            host_keys: Vec::new(),
            result: Err(collection_failure(
                FailureCause::TimedOut,
                CollectionStage::Read,
                "collection timed out",
            )),
        })
    }

    /// The same way in as any agent's.
    async fn ingest(&self, row: &ServerRow, seen: Collected) -> Result<(), CollectionFailure> {
        let internal = |why: String| collection_failure(FailureCause::Internal, CollectionStage::Read, why);
        // It may have gone meanwhile, or be another one: what was seen is not of it then.
        let now = ServerRow::get(self.store(), row.id).await.map_err(|error| internal(error.to_string()))?;
        if now.is_none_or(|now| !now.enabled || now.version != row.version) {
            return Err(internal("the server was changed during the collection".to_owned()));
        }
        let server = Self::from_row(row);
        let name = server.as_ref().map_or(seen.hostname, |server| server.name.clone());
        let latest = ServerSummary::from_snapshot(&seen.snapshot);
        let collected = CollectedSnapshot {
            host: HostRef { id: Some(HostId(row.id)), name },
            snapshot: seen.snapshot,
            clock_skew_ms: seen.skew_ms,
        };
        self.deps.sink.submit(collected).await.map_err(|error| match error {
            SinkError::Rejected(message) => {
                collection_failure(FailureCause::UnparseableOutput, CollectionStage::Read, message)
            }
            SinkError::Unavailable(_) => internal(error.to_string()),
        })?;
        if let Some(server) = server {
            self.put(row.id, &server, &latest).await;
        }
        Ok(())
    }

    /// Tests are written down too.
    pub async fn record(&self, outcome: &CollectionReport) -> Result<(), perfwatch_store::CommitError> {
        self.commit(outcome.statements.iter().cloned().map(Into::into).collect()).await
    }
}

/// As it is kept and shown.
pub fn name(cause: FailureCause) -> String {
    let name = serde_json::to_value(cause).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_disconnects_count_as_authentication_failure() {
        let (row, jump) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let versions = [(row, 3), (jump, 1)];
        let hung_up = DisconnectTracker::default();
        let ends = |server, stage| {
            let failure = CollectionFailure {
                server_id: server,
                ..collection_failure(FailureCause::ConnectionClosed, stage, "it ended")
            };
            hung_up.classify(failure, row, &versions).cause
        };
        assert_eq!(ends(None, CollectionStage::Authenticate), FailureCause::ConnectionClosed);
        // Elsewhere it says nothing; and the one on the way is another one.
        assert_eq!(ends(None, CollectionStage::Handshake), FailureCause::ConnectionClosed);
        assert_eq!(ends(Some(jump), CollectionStage::Authenticate), FailureCause::ConnectionClosed);
        assert_eq!(ends(None, CollectionStage::Authenticate), FailureCause::AuthenticationFailed);
        assert_eq!(ends(Some(jump), CollectionStage::Authenticate), FailureCause::AuthenticationFailed);
        // Who came as far as the host itself was let in on the way.
        hung_up.clear(
            &Err::<(), _>(collection_failure(
                FailureCause::ConnectionClosed,
                CollectionStage::Authenticate,
                "it ended",
            )),
            &versions,
        );
        assert_eq!(ends(Some(jump), CollectionStage::Authenticate), FailureCause::ConnectionClosed);
        assert_eq!(ends(None, CollectionStage::Authenticate), FailureCause::AuthenticationFailed);
        hung_up.clear(&Ok(()), &versions);
        assert_eq!(ends(None, CollectionStage::Authenticate), FailureCause::ConnectionClosed);
        // Changed by somebody, it is another one.
        let changed = CollectionFailure {
            server_id: None,
            ..collection_failure(FailureCause::ConnectionClosed, CollectionStage::Authenticate, "it ended")
        };
        assert_eq!(hung_up.classify(changed, row, &[(row, 4)]).cause, FailureCause::ConnectionClosed);
    }
}
