//! What runs beside: sealing, roll-up, retention, the disk budget, the watch over free space.
//! Sealing is each hub's own; the rest is done by the one hub that holds the lease.

use super::History;
use perfwatch_store::StoreError;
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Rows that are due are looked for this often, beside being told.
const SEAL_INTERVAL: Duration = Duration::from_secs(5);
const BUDGET_INTERVAL: Duration = Duration::from_secs(2);
const ROLLUP_INTERVAL: Duration = Duration::from_secs(20);
const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
const FREE_SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than any step of the work that it guards.
const LEASE_MS: i64 = 60_000;
/// Taking the lease is a write: it tells whether the store takes any.
pub(super) const WRITE_CHECK: &str = "writing";

impl History {
    /// Starts all tasks; they end when `stop` is cancelled, after what they are at.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        self.check_free_space();
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(FREE_SPACE_INTERVAL);
            while next(&token, &mut ticks).await {
                history.check_free_space();
            }
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(SEAL_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = token.cancelled() => break,
                    _ = ticks.tick() => {}
                    () = history.seal_due.notified() => {}
                }
                let sealed = history.seal(history.backend.is_head_over_limit()).await;
                history.record_result("seal", sealed, &history.counts.blocks_sealed);
            }
            // What is in no block stays in the head: a start reads it back.
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { history.run_tasks(&token).await });
    }

    async fn run_tasks(&self, stop: &CancellationToken) {
        let mut ticks = interval(BUDGET_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut rolled, mut retained) = (None, None);
        while next(stop, &mut ticks).await {
            // Each hub goes by what is taken, whoever lets go.
            let usage = self.backend.disk_usage().await;
            match &usage {
                Ok(usage) => self.counts.set_usage(*usage),
                Err(error) => tracing::debug!(%error, "failed to read disk usage"),
            }
            let leased = self.backend.acquire_lease("history_maintenance", LEASE_MS).await;
            let ours = leased == Ok(true);
            self.record_result(WRITE_CHECK, leased.map(|_| 0), &self.counts.task_failures);
            if !ours {
                continue;
            }
            let now = self.clock.monotonic();
            let due =
                |last: Option<Duration>, every| last.is_none_or(|last| now.saturating_sub(last) >= every);
            let kept = match usage {
                Ok(usage) => self.enforce_disk_budget(usage).await,
                Err(error) => Err(error),
            };
            self.record_result("budget", kept.map(|_| 0), &self.counts.task_failures);
            if due(rolled, ROLLUP_INTERVAL) {
                let done = self.roll_up().await;
                self.record_result("roll up", done, &self.counts.rollups);
                rolled = Some(now);
            }
            if due(retained, RETENTION_INTERVAL) {
                let done = self.apply_retention().await;
                self.record_result("retention", done.map(|_| 0), &self.counts.task_failures);
                retained = Some(now);
            }
            let raw_ms = i64::try_from(self.config.raw_retention.as_millis()).unwrap_or(i64::MAX);
            let tidied = self.backend.vacuum(self.clock.wall_ms().saturating_sub(raw_ms)).await;
            self.record_result("tidy", tidied.map(|()| 0), &self.counts.task_failures);
        }
    }

    fn record_result(&self, what: &'static str, done: Result<usize, StoreError>, count: &Counter) {
        let mut troubles = self.task_errors.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(done) => {
                count.inc_by(done as u64);
                if troubles.remove(what).is_some() {
                    tracing::info!(task = what, "history task recovered");
                }
            }
            Err(error) => {
                self.counts.task_failures.inc();
                let text = error.to_string();
                // Said once, however often it is tried.
                if troubles.get(what) != Some(&text) {
                    tracing::warn!(task = what, error = text, "history task failed");
                    troubles.insert(what, text);
                }
            }
        }
    }

    /// Says no to new rows while there is too little space, and yes again when there is more.
    fn check_free_space(&self) {
        let least = self.config.min_free_bytes;
        let Some(free) = self.backend.free_bytes() else {
            return;
        };
        let mut refusing = self.ingest_blocked.lock().unwrap_or_else(PoisonError::into_inner);
        // A tenth more than the least, so that it does not change its mind at each row.
        let short = free < if refusing.is_some() { least + least / 10 } else { least };
        if short != refusing.is_some() {
            let (free_mb, least_mb) = (free >> 20, least >> 20);
            if short {
                tracing::error!(free_mb, least_mb, "low disk space; ingestion is blocked");
            } else {
                tracing::info!(free_mb, "disk space available again; ingestion resumed");
            }
        }
        *refusing = short.then(|| {
            format!(
                "ingestion blocked: {} MB free, {} MB required (hub.min_free_space)",
                free >> 20,
                least >> 20
            )
        });
    }
}

/// Waits for the next tick; false when it is time to end.
async fn next(stop: &CancellationToken, ticks: &mut tokio::time::Interval) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
