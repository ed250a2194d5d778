//! Periodically reconciles hosts, schedules and rules with the stored servers.

use crate::credentials::endpoint_bytes;
use crate::deps::AgentlessDeps;
use crate::schedule::next_run_ms;
use crate::scheduler::CollectionScheduler;
use crate::server::Server;
use crate::server_table::ServerTable;
use crate::threshold_rules::sync_threshold_rules;
use crate::types::ignore_conflict;
use perfwatch_alerting::Alerting;
use perfwatch_auth::encryption::{Keyring, SecretRotation};
use perfwatch_live::host_registry::{HostRegistry, PollSchedule};
use perfwatch_model::{Clock, FailureStreak, HostId};
use perfwatch_store::collection_jobs::CollectionJobs;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Store, StoreError, Transaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Maximum delay after which the changes of other hubs are applied.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval at which finished jobs and old collections are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Keeps poll schedules, threshold rules and jobs in step with the stored servers.
pub(crate) struct Reconciler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    hosts: Arc<HostRegistry>,
    alerting: Arc<Alerting>,
    keyring: Arc<Keyring>,
    scheduler: Arc<CollectionScheduler>,
    /// Notified when this hub changed a server.
    servers_changed: Notify,
    /// Last time at which the queue was paused, Unix milliseconds.
    paused_since_ms: AtomicI64,
}

impl Reconciler {
    pub(crate) fn new(deps: &AgentlessDeps, scheduler: Arc<CollectionScheduler>) -> Self {
        Self {
            store: deps.store.clone(),
            clock: deps.clock.clone(),
            hosts: deps.hosts.clone(),
            alerting: deps.alerting.clone(),
            keyring: deps.keyring.clone(),
            scheduler,
            servers_changed: Notify::new(),
            paused_since_ms: AtomicI64::new(0),
        }
    }

    /// Starts the next reconciliation without delay.
    pub(crate) fn wake(&self) {
        self.servers_changed.notify_one();
    }

    /// Reconciles periodically and after changes, until the hub stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(RECONCILE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purged: Option<Instant> = None;
        let mut failures = FailureStreak::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.servers_changed.notified() => {}
            }
            let started = self.clock.monotonic();
            let reconciled = self.reconcile().await;
            let run = (self.clock.wall_ms(), self.clock.monotonic().saturating_sub(started));
            let error = reconciled.as_ref().err().map(ToString::to_string);
            self.scheduler.tasks.record("agentless_hosts", Some(RECONCILE_INTERVAL), run, error);
            if let Some(error) = failures.first_error(&reconciled) {
                tracing::warn!(%error, "failed to reconcile servers");
            }
            if purged.is_none_or(|time| time.elapsed() >= PURGE_INTERVAL) {
                purged = Some(Instant::now());
                if let Err(error) = self.scheduler.purge().await {
                    tracing::warn!(error = %error, "failed to purge old jobs and collections");
                }
            }
        }
    }

    /// Reconciles hosts, rules and jobs once.
    pub(crate) async fn reconcile(&self) -> Result<(), StoreError> {
        let rows = ServerRow::list(&*self.store).await?;
        let now_ms = self.clock.wall_ms();
        self.update_poll_schedules(&rows, now_ms).await?;
        sync_threshold_rules(&self.alerting, &rows).await?;
        self.advance_late_jobs(&rows, now_ms).await?;
        self.scheduler.schedule_missing().await
    }

    /// Passes the poll schedules to the host registry. Alerts of disabled hosts are resolved.
    async fn update_poll_schedules(&self, rows: &[ServerRow], now_ms: i64) -> Result<(), StoreError> {
        // A paused queue causes no no-data alerts: all hosts count as received until it is resumed.
        if CollectionJobs::is_paused(&*self.store).await? {
            self.paused_since_ms.store(now_ms, Ordering::Relaxed);
        }
        let paused_ms = self.paused_since_ms.load(Ordering::Relaxed);
        let poll_schedule = |row: &ServerRow| PollSchedule {
            enabled: row.enabled,
            interval_ms: u32::try_from(row.interval_ms).unwrap_or(u32::MAX),
            last_success_ms: row.last_success_ms.map(|success_ms| success_ms.max(paused_ms)),
        };
        let schedules: HashMap<HostId, PollSchedule> =
            rows.iter().map(|row| (HostId(row.id), poll_schedule(row))).collect();
        for host in self.hosts.replace_poll_schedules(schedules) {
            self.alerting.remove_host(host);
        }
        Ok(())
    }

    /// Moves jobs that are more than an interval away, after the interval or the clock was changed.
    async fn advance_late_jobs(&self, rows: &[ServerRow], now_ms: i64) -> Result<(), StoreError> {
        let is_late = |row: &&ServerRow| {
            row.next_run_ms.is_some_and(|next_ms| next_ms > now_ms + row.interval_ms + 1_000)
        };
        let mut tx = Transaction::default();
        for row in rows.iter().filter(is_late) {
            tx.collection_jobs().reschedule(row.id, next_run_ms(row.id, row.interval_ms, now_ms));
        }
        if tx.is_empty() {
            return Ok(());
        }
        ignore_conflict(self.store.commit(tx).await)
    }

    /// Re-encrypts credentials with the current key. Only at the start of a hub: hubs with different
    /// orders of keys would re-encrypt forever.
    pub(crate) async fn reencrypt(&self) -> Result<(), StoreError> {
        let rows = ServerRow::list(&*self.store).await?;
        let table = ServerTable::new(rows.clone());
        let mut rotation = SecretRotation::new(&self.keyring, "server credentials");
        let mut tx = Transaction::default();
        for row in &rows {
            let Some(encrypted) = row.encrypted_credentials.as_deref() else { continue };
            let Some(server) = Server::from_row(row) else { continue };
            let Some(path) = table.path(row, &server) else { continue };
            let aad = path.aad(row.id, &server.user);
            let earlier = path.before_pinning().map(|path| path.aad(row.id, &server.user));
            // Of versions that did not bind credentials to the path.
            let former = earlier.chain([endpoint_bytes(row.id, &server)]);
            if let Some(reencrypted) = rotation.rebind(&aad, former, encrypted) {
                tx.servers().reencrypt(row.id, encrypted, &reencrypted);
            }
        }
        rotation.log();
        if tx.is_empty() {
            return Ok(());
        }
        ignore_conflict(self.store.commit(tx).await)
    }
}
