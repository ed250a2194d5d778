//! Keeps the rest of the hub in step with the servers: which hosts are looked at and how often,
//! which rest, what stands sealed by an old key; and that each has a look planned.

use super::Servers;
use super::queue::{next_run_ms, unless_conflict};
use crate::fleet::Planned;
use crate::vault::resealed;
use perfwatch_model::HostId;
use perfwatch_store::jobs::Jobs;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{StoreError, Write};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What other hubs changed is known after this long.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Servers {
    pub(super) async fn keep(self: &Arc<Self>, stop: &CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleaned: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.changed.notified() => {}
            }
            if let Err(error) = self.keep_up().await {
                tracing::warn!(%error, "servers");
            }
            if cleaned.is_none_or(|at| at.elapsed() >= Self::CLEAN_EVERY) {
                cleaned = Some(Instant::now());
                if let Err(error) = self.clean().await {
                    tracing::warn!(%error, "servers");
                }
            }
        }
    }

    /// Once.
    pub(crate) async fn keep_up(&self) -> Result<(), StoreError> {
        let rows = ServerRow::all(self.store()).await?;
        let now_ms = self.rooms.clock.wall_ms();
        // Nobody is silent because nobody looks: while looks are paused, all were just heard.
        if Jobs::paused(self.store()).await? {
            self.paused_ms.store(now_ms, Ordering::Relaxed);
        }
        let paused_ms = self.paused_ms.load(Ordering::Relaxed);
        let planned = |row: &ServerRow| {
            let interval_ms = u32::try_from(row.interval_ms).unwrap_or(u32::MAX);
            let heard_ms = row.last_ok_ms.map(|ok_ms| ok_ms.max(paused_ms));
            (HostId(row.id), Planned { enabled: row.enabled, interval_ms, heard_ms })
        };
        let planned: HashMap<HostId, Planned> = rows.iter().map(planned).collect();
        let rest = self.rooms.fleet.set_planned(planned);
        // Who rests is not silent, and nothing is wrong there any more.
        rest.into_iter().for_each(|host| self.rooms.alerting.forget(host));
        self.keep_rules(&rows).await?;
        // A clock that was ahead, or a rhythm that was slower, plans too late.
        let late = rows
            .iter()
            .filter(|row| row.next_ms.is_some_and(|next_ms| next_ms > now_ms + row.interval_ms + 1_000));
        let sooner: Vec<Write> = late
            .map(|row| Jobs::replan(row.id, next_run_ms(row.id, row.interval_ms, now_ms)).into())
            .collect();
        if !sooner.is_empty() {
            self.rooms.store.commit(sooner).await.or_else(unless_conflict)?;
        }
        self.plan().await
    }

    /// By the key of now, where another one sealed it. Once at each start: hubs whose keys stand in
    /// another order would go on for ever.
    pub(crate) async fn reseal(&self) -> Result<(), StoreError> {
        let rows = ServerRow::all(self.store()).await?;
        let mut closed = 0;
        let old = rows.iter().filter_map(|row| {
            let sealed = row.secret.as_deref()?;
            let Ok(credentials) = self.unseal(row) else {
                closed += 1;
                return None;
            };
            let old = self.rooms.vault.is_old(sealed).then_some(sealed)?;
            let anew = self.seal(row.id, &Self::record(row)?, &credentials)?;
            Some(ServerRow::reseal(row.id, old, &anew).into())
        });
        let old: Vec<_> = old.collect();
        resealed("credentials of servers", Some((old.len(), closed)));
        if old.is_empty() {
            return Ok(());
        }
        self.rooms.store.commit(old).await.or_else(unless_conflict)
    }
}
