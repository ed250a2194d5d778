//! Keeps the rest of the hub in step with the servers: which hosts are looked at and how often,
//! which rest, what stands sealed by an old key; and that each has a look planned.

use super::Servers;
use super::queue::unless_conflict;
use crate::fleet::Planned;
use perfwatch_model::HostId;
use perfwatch_store::StoreError;
use perfwatch_store::servers::ServerRow;
use std::collections::HashMap;
use std::sync::Arc;
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
        let planned = |row: &ServerRow| {
            let interval_ms = u32::try_from(row.interval_ms).unwrap_or(u32::MAX);
            (HostId(row.id), Planned { enabled: row.enabled, interval_ms })
        };
        let planned: HashMap<HostId, Planned> = rows.iter().map(planned).collect();
        let rest = self.rooms.fleet.set_planned(planned);
        // Who rests is not silent, and nothing is wrong there any more.
        rest.into_iter().for_each(|host| self.rooms.alerting.forget(host));
        self.reseal(&rows).await?;
        self.keep_rules(&rows).await?;
        self.plan().await
    }

    /// By the key of now, where another one sealed it.
    async fn reseal(&self, rows: &[ServerRow]) -> Result<(), StoreError> {
        let old = rows.iter().filter_map(|row| {
            let sealed = row.secret.as_deref().filter(|sealed| self.vault.is_old(sealed))?;
            let anew = self.seal(row.id, &self.unseal(row).ok()?)?;
            Some(ServerRow::reseal(row.id, sealed, &anew).into())
        });
        let old: Vec<_> = old.collect();
        if old.is_empty() {
            return Ok(());
        }
        tracing::info!(servers = old.len(), "credentials are sealed by the new key");
        self.rooms.store.commit(old).await.or_else(unless_conflict)
    }
}
