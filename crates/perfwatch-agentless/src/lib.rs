//! Agentless hosts: servers that the hub collects over SSH.
//!
//! [`server`] is the stored configuration, with encrypted [`credentials`]. The reconciler keeps poll
//! schedules, threshold rules and jobs in step with the stored servers. The scheduler claims due jobs
//! with a lease and starts them in a worker pool. The runner resolves the target, calls the port
//! [`RemoteCollector`](perfwatch_model::remote_collector::RemoteCollector) and passes the snapshot to
//! [`sink`]. The on-demand poller collects every few seconds while the page of a host is open.
//! [`summary`] caches the last values for lists. [`Agentless`] starts these services and is their
//! interface for the hub.

pub mod credentials;
mod deps;
mod disconnects;
pub mod import;
mod import_entry;
pub mod import_plan;
pub mod import_yaml;
mod inventory;
mod jumps;
mod metrics;
mod on_demand;
mod progress;
mod queue_series;
mod queue_stats;
mod reconciler;
mod runner;
mod schedule;
mod scheduler;
pub mod server;
pub mod server_change;
pub mod server_request;
pub mod server_table;
pub mod sink;
mod ssh_path;
pub mod summary;
mod target;
mod test_slots;
mod threshold_rules;
mod types;
mod worker;
mod yaml_values;

pub use credentials::{Credentials, CredentialsError};
pub use deps::AgentlessDeps;
pub use metrics::AgentlessMetrics;
pub use progress::{CollectionEvent, EventSender};
pub use queue_series::QueueSeries;
pub use queue_stats::QueueStats;
pub use schedule::next_run_ms;
pub use server::Server;
pub use server_change::{ServerChange, ServerChangeError, ServerEditor};
pub use server_table::ServerTable;
pub use sink::SnapshotSink;
pub use types::{CollectionReport, ConnectionTestError};

use import_plan::{ImportAccess, ImportPlan, ImportRequest, plan_import};
use on_demand::OnDemandPoller;
use perfwatch_auth::{Actor, AuthError};
use perfwatch_model::remote_collector::{CollectionObserver, CollectionStage};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::collection_jobs::{CollectionJobs, JobState, MAX_LISTED_JOBS};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{CommitError, Store, StoreError, Transaction};
use perfwatch_workers::{WorkError, WorkKind, WorkRequest};
use reconciler::Reconciler;
use runner::CollectionRunner;
use scheduler::CollectionScheduler;
use std::collections::HashSet;
use std::sync::Arc;
use summary::ServerSummaries;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use worker::Worker;

/// Reason why a text was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// The text cannot be imported.
    #[error(transparent)]
    Text(#[from] import::ImportError),
    /// The default credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] ServerChangeError),
    /// The text was not parsed in time.
    #[error("parsing the text: {0}")]
    Work(WorkError),
}

/// Agentless collection of a hub: owns the services and starts them.
pub struct Agentless {
    deps: AgentlessDeps,
    workers: usize,
    reconciler: Arc<Reconciler>,
    scheduler: Arc<CollectionScheduler>,
    runner: Arc<CollectionRunner>,
    on_demand: Arc<OnDemandPoller>,
    summaries: Arc<ServerSummaries>,
}

impl Agentless {
    /// Creates the services with a number of workers, at least 1. Nothing runs before [`Self::start`].
    pub fn new(deps: AgentlessDeps, metrics: AgentlessMetrics, workers: usize) -> Arc<Self> {
        let workers = workers.max(1);
        let (store, clock) = (&deps.store, &deps.clock);
        let summaries = Arc::new(ServerSummaries::new(deps.cache.clone(), clock.clone()));
        let tasks = metrics.tasks.clone();
        let runner = Arc::new(CollectionRunner::new(&deps, summaries.clone(), metrics));
        let worker = Worker::new(store.clone(), clock.clone(), runner.clone());
        let scheduler = CollectionScheduler::new((store.clone(), clock.clone()), worker, workers, tasks);
        let scheduler = Arc::new(scheduler);
        let reconciler = Arc::new(Reconciler::new(&deps, scheduler.clone()));
        let (hosts, live_feed) = (deps.hosts.clone(), deps.live_feed.clone());
        let on_demand = Arc::new(OnDemandPoller::new(store.clone(), hosts, live_feed, runner.clone()));
        Arc::new(Self { deps, workers, reconciler, scheduler, runner, on_demand, summaries })
    }

    /// Starts scheduler, reconciler and on-demand poller; they end when `stop` is cancelled.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(self.scheduler.clone().run(stop.clone(), tasks.clone()));
        tasks.spawn(self.reconciler.clone().run(stop.clone()));
        tasks.spawn(self.on_demand.clone().run(stop.clone(), tasks.clone()));
    }

    /// Returns the store of servers, jobs and collections.
    pub fn store(&self) -> &dyn Store {
        &*self.deps.store
    }

    /// Reads all servers off the serving threads: thousands of records are parsed.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn server_table(&self) -> Result<ServerTable, StoreError> {
        let (store, runtime) = (self.deps.store.clone(), Handle::current());
        let load = move || runtime.block_on(ServerTable::load(&*store));
        tokio::task::spawn_blocking(load)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Counts a request for the collection of all servers.
    ///
    /// # Errors
    /// Returns [`ConnectionTestError::TooManyTests`] if the share of the principal is used.
    pub fn charge_collect_all(&self, principal: &str) -> Result<(), ConnectionTestError> {
        self.runner.charge_collect_all(principal)
    }

    /// Commits a change of the queue with its audit entry, and applies it without delay. The right of the actor
    /// is checked again.
    ///
    /// # Errors
    /// Returns the reason if the actor lost the right, [`AuthError::Conflict`] if a row was changed or deleted
    /// concurrently.
    pub async fn commit(
        &self,
        mut tx: Transaction,
        (actor, entry): (&Actor, AuditEntry),
    ) -> Result<(), AuthError> {
        actor.recheck()?;
        tx.audit().insert(&AuditEntry { at_ms: self.deps.clock.wall_ms(), ..entry });
        self.deps.store.commit(tx).await?;
        self.notify_changed(None);
        Ok(())
    }

    /// Applies a change of a server without delay; `None` for changes of the queue or of several servers.
    pub fn notify_changed(&self, server: Option<Uuid>) {
        if let Some(server) = server {
            // The open connection uses the former address and credentials.
            self.deps.collector.close_connection(server);
        }
        self.reconciler.wake();
        self.scheduler.wake();
    }

    /// Returns the statistics of the queue, of visible servers only if a filter is given.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store is unavailable.
    pub async fn queue_stats(
        &self,
        is_visible: Option<&(dyn Fn(Uuid) -> bool + Sync)>,
    ) -> Result<QueueStats, StoreError> {
        let capacity = (self.workers, self.deps.collector.open_connections());
        QueueStats::read(&*self.deps.store, self.deps.clock.wall_ms(), is_visible, capacity).await
    }

    /// Returns the collections of the last 24 hours by time, of visible servers only if a scope with its
    /// filter is given. The scope identifies the visible servers in the cache.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store is unavailable.
    pub async fn queue_series(
        &self,
        scope: Option<(&str, &(dyn Fn(Uuid) -> bool + Sync))>,
    ) -> Result<QueueSeries, StoreError> {
        QueueSeries::read(&*self.deps.store, &self.deps.cache, self.deps.clock.wall_ms(), scope).await
    }

    /// Returns the current stage of the collection of a server; `None` unless its job runs on this hub.
    pub fn running_stage(&self, server: Uuid) -> Option<CollectionStage> {
        self.scheduler.running_stage(server)
    }

    /// Puts the failed jobs of visible servers that can be collected into the queue again. Returns the
    /// number of servers; nothing is committed.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store is unavailable.
    pub async fn retry_failed(
        &self,
        is_visible: impl Fn(Uuid) -> bool,
        tx: &mut Transaction,
    ) -> Result<usize, StoreError> {
        let rows = ServerRow::list(self.store()).await?;
        let is_collectable =
            |row: &&ServerRow| row.enabled && row.blocked_reason.is_none() && is_visible(row.id);
        let collectable: HashSet<Uuid> = rows.iter().filter(is_collectable).map(|row| row.id).collect();
        let failed = CollectionJobs::list(self.store(), JobState::Failed, MAX_LISTED_JOBS).await?;
        let mut requested = HashSet::new();
        for job in failed.iter().filter(|job| collectable.contains(&job.server)) {
            tx.collection_jobs().delete_failed(job.id);
            if requested.insert(job.server) {
                tx.collection_jobs().run_now(job.server, self.deps.clock.wall_ms());
            }
        }
        Ok(requested.len())
    }

    /// Returns the cached summaries of servers.
    pub fn summaries(&self) -> &ServerSummaries {
        &self.summaries
    }

    /// Returns the planner of changes that concern credentials.
    pub fn editor(&self) -> ServerEditor {
        ServerEditor {
            keyring: self.deps.keyring.clone(),
            collector: self.deps.collector.clone(),
            workers: self.deps.workers.clone(),
        }
    }

    /// Opens the default credentials of an import, parses its text and plans its servers in the worker
    /// pool, without a lock.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the servers cannot be read.
    pub async fn plan_import(
        &self,
        principal: &str,
        mut request: ImportRequest,
        access: impl ImportAccess + Send + 'static,
    ) -> Result<Result<ImportPlan, ImportFailure>, StoreError> {
        let (editor, table) = (self.editor(), self.server_table().await?);
        if let Some(credentials) = request.credentials.take() {
            match editor.open(principal, credentials).await {
                Ok(opened) => request.credentials = Some(opened),
                Err(error) => return Ok(Err(error.into())),
            }
        }
        let input_bytes = request.text.len();
        let work = WorkRequest { kind: WorkKind::Import, principal, input_bytes };
        let plan = move |cancellation: &_| plan_import(&editor, &access, &request, table, cancellation);
        let planned = self.deps.workers.run(work, plan).await;
        Ok(planned.map_err(ImportFailure::Work).and_then(|plan| plan.map_err(ImportFailure::Text)))
    }

    /// Tests the connection to a server, which may be unsaved. The snapshot is discarded; the result is
    /// recorded by [`Self::record`].
    ///
    /// # Errors
    /// Returns [`ConnectionTestError::TooManyTests`] if the share of the principal is used, and
    /// [`ConnectionTestError::Store`] if the store cannot be read.
    pub async fn test_connection(
        &self,
        principal: &str,
        row: &ServerRow,
        observer: Option<Arc<dyn CollectionObserver>>,
    ) -> Result<CollectionReport, ConnectionTestError> {
        self.runner.test_connection(principal, row, observer).await
    }

    /// Records a connection test in the collection history.
    ///
    /// # Errors
    /// Returns a [`CommitError`] if the store cannot be written.
    pub async fn record(&self, report: &CollectionReport) -> Result<(), CommitError> {
        self.runner.record(report).await
    }

    /// Reconciles hosts, schedules and rules with the stored servers once.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read or written.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        self.reconciler.reconcile().await
    }

    /// Re-encrypts credentials with the current key; once at the start of a hub.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the store cannot be read or written.
    pub async fn reencrypt(&self) -> Result<(), StoreError> {
        self.reconciler.reencrypt().await
    }
}
