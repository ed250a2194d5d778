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
const SEAL_EVERY: Duration = Duration::from_secs(5);
const BUDGET_EVERY: Duration = Duration::from_secs(2);
const ROLL_UP_EVERY: Duration = Duration::from_secs(20);
const RETAIN_EVERY: Duration = Duration::from_secs(300);
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// Longer than any step of the work that it guards.
const LEASE_MS: i64 = 60_000;
/// Taking the lease is a write: it tells whether the store takes any.
pub(super) const WRITING: &str = "writing";

impl History {
    /// Starts all tasks; they end when `stop` is cancelled, after what they are at.
    pub(crate) fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        self.watch_space();
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(SPACE_EVERY);
            while next(&token, &mut ticks).await {
                history.watch_space();
            }
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(SEAL_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = token.cancelled() => break,
                    _ = ticks.tick() => {}
                    () = history.due.notified() => {}
                }
                let sealed = history.seal(history.store.head_is_large()).await;
                history.note("seal", sealed, &history.counts.sealed);
            }
            // What is in no block stays in the head: a start reads it back.
        });
        let (history, token) = (self.clone(), stop.clone());
        tasks.spawn(async move { history.keep(&token).await });
    }

    async fn keep(&self, stop: &CancellationToken) {
        let mut ticks = interval(BUDGET_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut rolled, mut retained) = (None, None);
        while next(stop, &mut ticks).await {
            // Each hub goes by what is taken, whoever lets go.
            let usage = self.store.usage().await;
            match &usage {
                Ok(usage) => self.counts.set_usage(*usage),
                Err(error) => tracing::debug!(%error, "usage"),
            }
            let leased = self.store.lease("history", LEASE_MS).await;
            let ours = leased == Ok(true);
            self.note(WRITING, leased.map(|_| 0), &self.counts.failed);
            if !ours {
                continue;
            }
            let now = self.clock.monotonic();
            let due =
                |last: Option<Duration>, every| last.is_none_or(|last| now.saturating_sub(last) >= every);
            let kept = match usage {
                Ok(usage) => self.keep_within_budget(usage).await,
                Err(error) => Err(error),
            };
            self.note("budget", kept.map(|_| 0), &self.counts.failed);
            if due(rolled, ROLL_UP_EVERY) {
                let done = self.roll_up().await;
                self.note("roll up", done, &self.counts.rolled);
                rolled = Some(now);
            }
            if due(retained, RETAIN_EVERY) {
                let done = self.retain().await;
                self.note("retention", done.map(|_| 0), &self.counts.failed);
                retained = Some(now);
            }
            let raw_ms = i64::try_from(self.config.raw.as_millis()).unwrap_or(i64::MAX);
            let tidied = self.store.tidy(self.clock.wall_ms().saturating_sub(raw_ms)).await;
            self.note("tidy", tidied.map(|()| 0), &self.counts.failed);
        }
    }

    fn note(&self, what: &'static str, done: Result<usize, StoreError>, count: &Counter) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(done) => {
                count.inc_by(done as u64);
                if troubles.remove(what).is_some() {
                    tracing::info!(task = what, "history: this works again");
                }
            }
            Err(error) => {
                self.counts.failed.inc();
                let text = error.to_string();
                // Said once, however often it is tried.
                if troubles.get(what) != Some(&text) {
                    tracing::warn!(task = what, error = text, "history");
                    troubles.insert(what, text);
                }
            }
        }
    }

    /// Says no to new rows while there is too little space, and yes again when there is more.
    fn watch_space(&self) {
        let least = self.config.min_free_bytes;
        let Some(free) = self.store.free_bytes() else {
            return;
        };
        let mut refusing = self.refusing.lock().unwrap_or_else(PoisonError::into_inner);
        // A tenth more than the least, so that it does not change its mind at each row.
        let short = free < if refusing.is_some() { least + least / 10 } else { least };
        if short != refusing.is_some() {
            let (free_mb, least_mb) = (free >> 20, least >> 20);
            if short {
                tracing::error!(
                    free_mb,
                    least_mb,
                    "too little disk space: nothing is taken in until there is more"
                );
            } else {
                tracing::info!(free_mb, "there is disk space again");
            }
        }
        *refusing = short.then(|| {
            format!(
                "only {} MB are free where history is kept, and {} MB are to stay free",
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
