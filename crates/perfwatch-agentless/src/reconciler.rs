//! Keeps the rest of the hub in step with the servers: which hosts are looked at and how often,
//! which rest, what stands sealed by an old key; and that each has a look planned.

use super::Agentless;
use super::scheduler::{ignore_conflict, next_run_ms};
use perfwatch_auth::encryption::log_reencryption;
use perfwatch_live::host_registry::PollSchedule;
use perfwatch_model::HostId;
use perfwatch_store::collection_jobs::CollectionJobs;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{StoreError, Write};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What other hubs changed is known after this long.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

impl Agentless {
    pub(super) async fn run_reconciler(self: &Arc<Self>, stop: &CancellationToken) {
        let mut ticks = interval(RECONCILE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleaned: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.reconcile_wake.notified() => {}
            }
            if let Err(error) = self.reconcile().await {
                tracing::warn!(%error, "failed to reconcile servers");
            }
            if cleaned.is_none_or(|at| at.elapsed() >= Self::CLEAN_EVERY) {
                cleaned = Some(Instant::now());
                if let Err(error) = self.purge().await {
                    tracing::warn!(%error, "failed to purge old jobs and collections");
                }
            }
        }
    }

    /// Once.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        let rows = ServerRow::list(self.store()).await?;
        let now_ms = self.deps.clock.wall_ms();
        // Nobody is silent because nobody looks: while looks are paused, all were just heard.
        if CollectionJobs::is_paused(self.store()).await? {
            self.paused_since_ms.store(now_ms, Ordering::Relaxed);
        }
        let paused_ms = self.paused_since_ms.load(Ordering::Relaxed);
        let planned = |row: &ServerRow| {
            let interval_ms = u32::try_from(row.interval_ms).unwrap_or(u32::MAX);
            let heard_ms = row.last_success_ms.map(|ok_ms| ok_ms.max(paused_ms));
            (HostId(row.id), PollSchedule { enabled: row.enabled, interval_ms, last_success_ms: heard_ms })
        };
        let planned: HashMap<HostId, PollSchedule> = rows.iter().map(planned).collect();
        let rest = self.deps.hosts.replace_poll_schedules(planned);
        // Who rests is not silent, and nothing is wrong there any more.
        rest.into_iter().for_each(|host| self.deps.alerting.remove_host(host));
        self.sync_threshold_rules(&rows).await?;
        // A clock that was ahead, or a rhythm that was slower, plans too late.
        let late = rows
            .iter()
            .filter(|row| row.next_run_ms.is_some_and(|next_ms| next_ms > now_ms + row.interval_ms + 1_000));
        let sooner: Vec<Write> = late
            .map(|row| {
                CollectionJobs::reschedule(row.id, next_run_ms(row.id, row.interval_ms, now_ms)).into()
            })
            .collect();
        if !sooner.is_empty() {
            self.deps.store.commit(sooner).await.or_else(ignore_conflict)?;
        }
        self.schedule_missing().await
    }

    /// By the key of now, where another one sealed it. Once at each start: hubs whose keys stand in
    /// another order would go on for ever.
    pub async fn reencrypt(&self) -> Result<(), StoreError> {
        let rows = ServerRow::list(self.store()).await?;
        let mut closed = 0;
        let old = rows.iter().filter_map(|row| {
            let sealed = row.encrypted_credentials.as_deref()?;
            let Ok(credentials) = self.decrypt_credentials(row) else {
                closed += 1;
                return None;
            };
            let old = self.deps.keyring.needs_reencryption(sealed).then_some(sealed)?;
            let anew = self.encrypt_credentials(row.id, &Self::from_row(row)?, &credentials)?;
            Some(ServerRow::reencrypt(row.id, old, &anew).into())
        });
        let old: Vec<_> = old.collect();
        log_reencryption("credentials of servers", Some((old.len(), closed)));
        if old.is_empty() {
            return Ok(());
        }
        self.deps.store.commit(old).await.or_else(ignore_conflict)
    }
}
