//! Background tasks: seal, roll-up, retention, disk budget, free-space check.
//!
//! Each hub seals the rows that it accepted. The other tasks change the shared store and run on the hub
//! that holds the lease.

use super::History;
use super::task::HistoryTask;
use super::tier_sizes::TierSizes;
use perfwatch_store::{CommitError, DiskUsage, LeasedTask, RENEWAL_INTERVAL, StoreError, Transaction, Write};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Interval of the checks for rows that reached their maximum age. Full blocks are sealed immediately.
const SEAL_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the disk budget checks.
const BUDGET_INTERVAL: Duration = Duration::from_secs(2);
const ROLLUP_INTERVAL: Duration = Duration::from_secs(20);
const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
/// Time until a failed renewal of the leases is repeated: a hub is ready soon after the store is back.
const RENEWAL_RETRY_DELAY: Duration = Duration::from_millis(300);
/// Time after which a renewal fails; below the length of a lease.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);
const FREE_SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Returns whether an interval has passed since the last run.
fn is_due(last_run: Option<Duration>, now: Duration, interval: Duration) -> bool {
    last_run.is_none_or(|last_run| now.saturating_sub(last_run) >= interval)
}

impl History {
    /// Starts all tasks. They end when `stop` is cancelled, after their current step.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        self.check_free_space();
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(FREE_SPACE_INTERVAL);
            while next_tick(&token, &mut ticks).await {
                history.check_free_space();
            }
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { history.run_seal(&token).await });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(RENEWAL_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while next_tick(&token, &mut ticks).await {
                let renewed = history.renew_leases().await;
                if renewed.is_err() {
                    ticks.reset_after(RENEWAL_RETRY_DELAY);
                }
                history.record_result(HistoryTask::WriteCheck, renewed);
            }
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { history.run_maintenance(&token).await });
    }

    /// Renews the leases of this hub. A store that does not respond is an error: its hub is not ready.
    async fn renew_leases(&self) -> Result<(), StoreError> {
        let renewed = tokio::time::timeout(RENEWAL_TIMEOUT, self.backend.renew_leases()).await;
        renewed.unwrap_or_else(|_| Err(StoreError::Unavailable("the store does not respond".to_owned())))
    }

    /// Seals due rows until `stop` is cancelled. Unsealed rows stay in the head and are loaded at the start.
    async fn run_seal(&self, stop: &CancellationToken) {
        let mut ticks = interval(SEAL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = self.seal_due.notified() => {}
            }
            let seal = self.seal(self.backend.is_head_over_limit());
            if let Some(count) = self.run_task(HistoryTask::Seal, SEAL_INTERVAL, seal).await {
                self.metrics.blocks_sealed.inc_by(count as u64);
            }
        }
    }

    async fn run_maintenance(&self, stop: &CancellationToken) {
        let mut ticks = interval(BUDGET_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_rollup, mut last_retention, mut last_lease) = (None, None, None);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                // A shorter retention deletes at once.
                () = self.config_changed.notified() => last_retention = None,
            }
            let lease = self.backend.lease(LeasedTask::HistoryMaintenance);
            if lease != last_lease {
                // The holder before may have deleted blocks.
                self.tier_sizes().forget();
                last_lease = lease;
            }
            // Every hub reports the disk usage; the holder of the lease deletes.
            let usage = self.run_task(HistoryTask::DiskUsage, BUDGET_INTERVAL, self.disk_usage()).await;
            if let Some(usage) = usage {
                self.metrics.set_usage(usage);
                self.record_result(HistoryTask::DiskUsage, self.update_over_share(usage).await);
            }
            let Some(lease) = lease else { continue };
            *self.maintenance_lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
            let now = self.clock.monotonic();
            if let Some(usage) = usage {
                let enforced = self.enforce_disk_budget(usage);
                self.run_task(HistoryTask::DiskBudget, BUDGET_INTERVAL, enforced).await;
            }
            if is_due(last_rollup, now, ROLLUP_INTERVAL) {
                let rolled_up = self.run_task(HistoryTask::Rollup, ROLLUP_INTERVAL, self.roll_up()).await;
                if let Some(count) = rolled_up {
                    self.metrics.rollups.inc_by(count as u64);
                }
                last_rollup = Some(now);
            }
            if is_due(last_retention, now, RETENTION_INTERVAL) {
                self.run_task(HistoryTask::Retention, RETENTION_INTERVAL, self.apply_retention()).await;
                last_retention = Some(now);
            }
            let raw_ms = i64::try_from(self.config().raw_retention.as_millis()).unwrap_or(i64::MAX);
            let vacuum = self.backend.vacuum(self.clock.wall_ms().saturating_sub(raw_ms));
            self.run_task(HistoryTask::Vacuum, BUDGET_INTERVAL, vacuum).await;
        }
    }

    pub(super) fn tier_sizes(&self) -> MutexGuard<'_, TierSizes> {
        self.tier_sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Disk usage of the store, with sizes of the tiers that are half a minute old at most.
    async fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let now = self.clock.monotonic();
        let known = self.tier_sizes().unexpired(now);
        let usage = self.backend.disk_usage(known).await?;
        if known.is_none() {
            *self.tier_sizes() = TierSizes { bytes: usage.tier_bytes, measured_at: Some(now) };
        }
        Ok(usage)
    }

    /// Commits changes of a task that runs under the lease; a conflict if another hub has the lease since.
    pub(super) async fn commit_maintenance(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        let lease = *self.maintenance_lease.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tx = Transaction::from(writes);
        if let Some(lease) = lease {
            tx.require_lease(lease);
        }
        self.backend.commit(tx).await
    }

    /// Runs a task, records the run, and returns the value of a success.
    async fn run_task<T>(
        &self,
        task: HistoryTask,
        interval: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        let started = self.clock.monotonic();
        let result = work.await;
        let took = self.clock.monotonic().saturating_sub(started);
        let error = result.as_ref().err().map(ToString::to_string);
        self.metrics.tasks.record(task.name(), Some(interval), (self.clock.wall_ms(), took), error);
        self.record_result(task, result)
    }

    /// Counts a failure and logs it once per error message. Returns the value of a success.
    fn record_result<T>(&self, task: HistoryTask, result: Result<T, StoreError>) -> Option<T> {
        let mut errors = self.task_errors.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(value) => {
                if errors.remove(&task).is_some() {
                    tracing::info!(task = task.name(), "history task recovered");
                }
                Some(value)
            }
            Err(error) => {
                self.metrics.record_failure(task);
                let message = error.to_string();
                // A task that is retried fails many times with the same error.
                if errors.get(&task) != Some(&message) {
                    tracing::warn!(task = task.name(), error = message, "history task failed");
                    errors.insert(task, message);
                }
                None
            }
        }
    }

    /// Blocks ingestion while the free disk space is below its minimum.
    fn check_free_space(&self) {
        let min_bytes = self.config().min_free_bytes;
        let Some(free_bytes) = self.backend.free_bytes() else {
            return;
        };
        let (free_mb, min_free_mb) = (free_bytes >> 20, min_bytes >> 20);
        let mut low_space_error = self.low_space_error.lock().unwrap_or_else(PoisonError::into_inner);
        let was_low = low_space_error.is_some();
        // Hysteresis of a tenth, so that the state does not change with each row.
        let is_low = free_bytes < if was_low { min_bytes + min_bytes / 10 } else { min_bytes };
        if is_low && !was_low {
            tracing::error!(free_mb, min_free_mb, "low disk space; ingestion is blocked");
        } else if was_low && !is_low {
            tracing::info!(free_mb, "disk space available again; ingestion resumed");
        }
        *low_space_error = is_low.then(|| {
            format!("ingestion blocked: {free_mb} MB free, {min_free_mb} MB required (hub.min_free_space)")
        });
    }
}

/// Waits for the next tick. Returns `false` when `stop` is cancelled.
async fn next_tick(stop: &CancellationToken, ticks: &mut Interval) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
