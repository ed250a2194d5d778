//! Runs one collection: resolve the target, collect via its jump hosts, ingest the snapshot, and
//! prepare the writes that record the result.

use crate::deps::AgentlessDeps;
use crate::disconnects::DisconnectTracker;
use crate::jumps::VerifiedJumps;
use crate::metrics::AgentlessMetrics;
use crate::server::Server;
use crate::sink::{CollectedSnapshot, SinkError, SnapshotSink};
use crate::summary::{ServerSummaries, ServerSummary};
use crate::target::{ReboundCredentials, ResolveError, ResolvedTarget, TargetResolver};
use crate::test_slots::TestSlots;
use crate::types::{
    CollectOptions, CollectionReport, ConnectionTestError, MAX_COLLECTION_TIME, ServerVersions, block_server,
    cause_name, collection_failure, ignore_conflict,
};
use perfwatch_model::remote_collector::{
    CollectRequest, Collected, CollectionFailure, CollectionObserver, CollectionOutcome, CollectionStage,
    CollectionStep, FailureCause, RemoteCollector, SshTarget,
};
use perfwatch_model::{Clock, HostId, HostRef};
use perfwatch_store::collections::{CollectTrigger, CollectionRow};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Minimum of the maximum age of the previous counters. Normally three intervals; 15 minutes when workers
/// are saturated, because collecting twice would increase the backlog.
const MAX_COUNTER_AGE: Duration = Duration::from_secs(900);

/// Outcome of the collector, and the servers that it refers to.
struct CollectionAttempt {
    outcome: CollectionOutcome,
    versions: ServerVersions,
    rebound: Vec<ReboundCredentials>,
}

/// Completed collection before it is recorded.
struct CompletedCollection<'a> {
    row: &'a ServerRow,
    options: &'a CollectOptions,
    versions: &'a ServerVersions,
    duration_ms: u64,
    steps: &'a [CollectionStep],
    host_keys: &'a [(Uuid, String)],
    rebound: &'a [ReboundCredentials],
    /// Counter state, or the failure.
    result: Result<&'a [u8], &'a CollectionFailure>,
}

/// Outcome of a collection that ended before the collector was called, or by its timeout.
fn failed_outcome(failure: CollectionFailure) -> CollectionOutcome {
    CollectionOutcome { steps: Vec::new(), host_keys: Vec::new(), result: Err(failure) }
}

/// Runs collections of agentless hosts.
pub(crate) struct CollectionRunner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn SnapshotSink>,
    collector: Arc<dyn RemoteCollector>,
    summaries: Arc<ServerSummaries>,
    metrics: AgentlessMetrics,
    resolver: TargetResolver,
    test_slots: TestSlots,
    verified_jumps: VerifiedJumps,
    disconnects: DisconnectTracker,
}

impl CollectionRunner {
    pub(crate) fn new(
        deps: &AgentlessDeps,
        summaries: Arc<ServerSummaries>,
        metrics: AgentlessMetrics,
    ) -> Self {
        Self {
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            sink: deps.sink.clone(),
            collector: deps.collector.clone(),
            summaries,
            metrics,
            resolver: TargetResolver { store: deps.store.clone(), keyring: deps.keyring.clone() },
            test_slots: TestSlots::default(),
            verified_jumps: VerifiedJumps::default(),
            disconnects: DisconnectTracker::default(),
        }
    }

    /// Counts a request for the collection of all servers.
    pub(crate) fn charge_collect_all(&self, principal: &str) -> Result<(), ConnectionTestError> {
        self.test_slots.charge_collect_all(principal, self.clock.monotonic())
    }

    /// Tests the connection to a server, which may be unsaved. The snapshot is discarded.
    pub(crate) async fn test_connection(
        &self,
        principal: &str,
        row: &ServerRow,
        observer: Option<Arc<dyn CollectionObserver>>,
    ) -> Result<CollectionReport, ConnectionTestError> {
        let options = CollectOptions {
            trigger: CollectTrigger::Test,
            attempt: 1,
            interval: Duration::from_secs(60),
            keep_alive: Duration::ZERO,
            counter_state: None,
            observer,
        };
        let slot = self.test_slots.acquire(principal, self.clock.monotonic());
        let _slot = slot.inspect_err(|_| self.metrics.record_refused_test())?;
        Ok(self.collect(row, options).await?)
    }

    /// Runs one collection and ingests its snapshot.
    pub(crate) async fn collect(
        &self,
        row: &ServerRow,
        options: CollectOptions,
    ) -> Result<CollectionReport, StoreError> {
        let started = self.clock.monotonic();
        let CollectionAttempt { outcome, versions, rebound } = self.collect_via_jumps(row, &options).await?;
        let CollectionOutcome { steps, host_keys, result } = outcome;
        let result = match result {
            Ok(mut collected) => {
                let counter_state = std::mem::take(&mut collected.counter_state);
                match options.trigger {
                    CollectTrigger::Test => Ok(counter_state),
                    _ => self.ingest(row, collected).await.map(|()| counter_state),
                }
            }
            Err(failure) => Err(failure),
        };
        self.metrics.record_collection(result.is_ok());
        let duration = self.clock.monotonic().saturating_sub(started);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let tx = self.result_transaction(&CompletedCollection {
            row,
            options: &options,
            versions: &versions,
            duration_ms,
            steps: &steps,
            host_keys: &host_keys,
            rebound: &rebound,
            result: result.as_deref(),
        });
        let host_key = host_keys.into_iter().find(|(server, _)| *server == row.id).map(|(_, key)| key);
        let (counter_state, failure) = match result {
            Ok(counter_state) => (Some(counter_state), None),
            Err(failure) => (None, Some(failure)),
        };
        Ok(CollectionReport { duration_ms, steps, failure, host_key, counter_state, tx })
    }

    /// Commits the writes of a report: the connection tests of saved servers are recorded too.
    pub(crate) async fn record(&self, report: &CollectionReport) -> Result<(), CommitError> {
        self.store.commit(report.tx.clone()).await
    }

    /// Writes that record a collection: history, last result of the server, pinned host keys, and
    /// the blocked state.
    fn result_transaction(&self, collection: &CompletedCollection<'_>) -> Transaction {
        let CompletedCollection { row, options, versions, .. } = collection;
        let failure = collection.result.err();
        let result = CollectionRow {
            id: 0,
            server: row.id,
            finished_ms: self.clock.wall_ms(),
            trigger: options.trigger,
            attempt: options.attempt,
            duration_ms: i64::try_from(collection.duration_ms).unwrap_or(i64::MAX),
            cause: failure.map(|failure| cause_name(failure.cause)),
            error: failure.map(|failure| failure.message.clone()),
            steps: serde_json::to_string(collection.steps).unwrap_or_default(),
        };
        let mut tx = Transaction::default();
        tx.collections().insert(&result);
        if options.trigger != CollectTrigger::Test {
            tx.collections().update_server(&result, row.version, collection.result.ok());
        }
        // Only at first use: the write has no effect on a pinned key or on a changed server.
        for (server, key) in collection.host_keys {
            if let Some(server) = versions.find(*server) {
                tx.servers().pin_host_key(server.id, server.version, key);
            }
        }
        for ReboundCredentials { server_id, before, after } in
            collection.rebound.iter().filter(|_| failure.is_none())
        {
            tx.servers().reencrypt(*server_id, before, after);
        }
        // Rejected credentials are not sent again, neither for this server nor for those behind it.
        if let Some(failure) = failure.filter(|failure| failure.cause.is_permanent())
            && let Some(failed) = versions.find_failed(failure)
        {
            block_server(&mut tx, failure, failed);
        }
        tx
    }

    /// Resolves the target and collects via its jump hosts. A failure to resolve is an outcome as well.
    async fn collect_via_jumps(
        &self,
        row: &ServerRow,
        options: &CollectOptions,
    ) -> Result<CollectionAttempt, StoreError> {
        match self.resolve_and_collect(row, options).await {
            Ok(attempt) => Ok(attempt),
            Err(ResolveError::Failed(failure)) => {
                let versions = ServerVersions::of_target(row);
                Ok(CollectionAttempt { outcome: failed_outcome(failure), versions, rebound: Vec::new() })
            }
            Err(ResolveError::Store(error)) => Err(error),
        }
    }

    async fn resolve_and_collect(
        &self,
        row: &ServerRow,
        options: &CollectOptions,
    ) -> Result<CollectionAttempt, ResolveError> {
        let mut resolved = self.resolver.resolve(row).await?;
        let mut verification = None;
        if !self.verified_jumps.contains_all(&resolved.versions) {
            let Some(guard) = self.verified_jumps.lock().await else {
                let message = "another collection is verifying the jump host";
                let failure = collection_failure(FailureCause::TimedOut, CollectionStage::Connect, message);
                return Err(ResolveError::Failed(failure));
            };
            verification = Some(guard);
            // The collection that held the lock may have blocked a jump host.
            resolved = self.resolver.resolve(row).await?;
        }
        let ResolvedTarget { target, versions, rebound } = resolved;
        let mut outcome = self.run_collector(target, options).await;
        outcome.result = outcome.result.map_err(|failure| self.disconnects.classify(failure, &versions));
        let target_reached = outcome.host_keys.iter().any(|(server, _)| *server == row.id);
        if target_reached {
            self.disconnects.clear(&outcome.result, &versions);
            self.verified_jumps.insert(&versions);
        } else if let Err(failure) = &outcome.result
            && verification.is_some()
            && failure.cause.is_permanent()
        {
            // Before the next collection gets the lock.
            self.block_jump(failure, &versions).await?;
        }
        drop(verification);
        Ok(CollectionAttempt { outcome, versions, rebound })
    }

    /// Blocks the server that a failure names.
    async fn block_jump(
        &self,
        failure: &CollectionFailure,
        versions: &ServerVersions,
    ) -> Result<(), StoreError> {
        match failure.server_id.and_then(|server| versions.find(server)) {
            Some(failed) => {
                let tx = Transaction::build(|tx| block_server(tx, failure, failed));
                ignore_conflict(self.store.commit(tx).await)
            }
            None => Ok(()),
        }
    }

    async fn run_collector(&self, target: SshTarget, options: &CollectOptions) -> CollectionOutcome {
        let request = CollectRequest {
            target,
            counter_state: options.counter_state.clone(),
            max_counter_age: MAX_COUNTER_AGE.max(options.interval * 3),
            interval: options.interval,
            keep_alive: options.keep_alive,
            force_new_connection: options.trigger == CollectTrigger::Test,
            observer: options.observer.clone(),
        };
        let outcome = tokio::time::timeout(MAX_COLLECTION_TIME, self.collector.collect(request)).await;
        outcome.unwrap_or_else(|_| {
            let message = "collection timed out";
            failed_outcome(collection_failure(FailureCause::TimedOut, CollectionStage::Read, message))
        })
    }

    /// Passes the snapshot to the hub's ingestion, and caches its summary.
    async fn ingest(&self, row: &ServerRow, collected: Collected) -> Result<(), CollectionFailure> {
        let failure = |cause, message| collection_failure(cause, CollectionStage::Read, message);
        let internal = |message: String| failure(FailureCause::Internal, message);
        // The snapshot of a deleted or changed server belongs to another host.
        let current = ServerRow::get(&*self.store, row.id).await;
        let current = current.map_err(|error| internal(error.to_string()))?;
        if current.is_none_or(|current| !current.enabled || current.version != row.version) {
            return Err(internal("the server was changed during the collection".to_owned()));
        }
        let server = Server::from_row(row);
        let name = server.as_ref().map_or(collected.hostname, |server| server.name.clone());
        let summary = ServerSummary::from_snapshot(&collected.snapshot);
        let collected = CollectedSnapshot {
            host: HostRef { id: Some(HostId(row.id)), name },
            snapshot: collected.snapshot,
            clock_skew_ms: collected.skew_ms,
        };
        self.sink.submit(collected).await.map_err(|error| match error {
            SinkError::Rejected(message) => failure(FailureCause::UnparseableOutput, message),
            SinkError::Unavailable(_) => internal(error.to_string()),
        })?;
        if let Some(server) = server {
            self.summaries.put(row.id, &server, &summary).await;
        }
        Ok(())
    }
}
