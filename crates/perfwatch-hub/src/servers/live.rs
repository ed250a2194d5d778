//! While somebody watches a host without an agent, it is looked at every few seconds over one held
//! connection, and not longer.

use super::Servers;
use super::looking::{Kind, Manner};
use perfwatch_store::Write;
use perfwatch_store::jobs::Jobs;
use perfwatch_store::servers::ServerRow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// How soon it begins, and how long it goes on for one who comes back.
const NOTICE: Duration = Duration::from_secs(1);
/// A host that can't be looked at is left alone for a while.
const REST: Duration = Duration::from_secs(30);
/// Hosts that are looked at so at one time: more is no looking any more.
const MOST: usize = 50;

impl Servers {
    /// Sees who watches, and begins.
    pub(super) async fn follow(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let mut ticks = interval(NOTICE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for host in self.rooms.live.watched() {
                if !self.rooms.fleet.is_remote(host) {
                    continue;
                }
                let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                if watched.len() < MOST && watched.insert(host.0) {
                    let (servers, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = servers.accompany(host.0) => {}
                        }
                        servers.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&host.0);
                    });
                }
            }
        }
    }

    /// Looks until nobody watches.
    async fn accompany(&self, id: Uuid) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut carried = None;
        while self.rooms.live.is_watched(perfwatch_model::HostId(id)) {
            ticks.tick().await;
            let Ok(Some(row)) = ServerRow::one(self.store(), id).await else { return };
            if !row.enabled || row.refused.is_some() || Jobs::paused(self.store()).await.unwrap_or(true) {
                return;
            }
            let manner = Manner {
                kind: Kind::Live,
                tries: 1,
                interval: EVERY,
                hold: EVERY * 3,
                carried: carried.take(),
            };
            let Ok(outcome) = self.look(&row, manner).await else { return };
            if outcome.failure.is_some() {
                // Only what went wrong is news: the rest stands in the charts.
                let written =
                    self.rooms.store.commit(outcome.changes.into_iter().map(Write::Sql).collect()).await;
                if let Err(error) = written {
                    tracing::warn!(server = %id, %error, "a look could not be written down");
                }
                tokio::time::sleep(REST).await;
                return;
            }
            carried = outcome.carried;
        }
    }
}
