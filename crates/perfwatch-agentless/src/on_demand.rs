//! While somebody watches a host without an agent, it is looked at every few seconds over one held
//! connection, and not longer.

use super::Agentless;
use super::runner::CollectOptions;
use perfwatch_store::Write;
use perfwatch_store::collection_jobs::CollectionJobs;
use perfwatch_store::collections::CollectTrigger;
use perfwatch_store::servers::ServerRow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How soon it begins, and how long it goes on for one who comes back.
const VIEWER_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A host that can't be looked at is left alone for a while.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(30);
/// Hosts that are looked at so at one time: more is no looking any more.
const MAX_POLLED_HOSTS: usize = 50;

impl Agentless {
    /// Sees who watches, and begins.
    pub(super) async fn run_on_demand(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let mut ticks = interval(VIEWER_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for host in self.deps.live_feed.viewed_hosts() {
                if !self.deps.hosts.is_agentless(host) {
                    continue;
                }
                let mut watched = self.active_hosts.lock().unwrap_or_else(PoisonError::into_inner);
                if watched.len() < MAX_POLLED_HOSTS && watched.insert(host.0) {
                    let (servers, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = servers.poll_host(host.0) => {}
                        }
                        servers.active_hosts.lock().unwrap_or_else(PoisonError::into_inner).remove(&host.0);
                    });
                }
            }
        }
    }

    /// Looks until nobody watches.
    async fn poll_host(&self, id: Uuid) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut carried = None;
        while self.deps.live_feed.has_viewers(perfwatch_model::HostId(id)) {
            ticks.tick().await;
            let Ok(Some(row)) = ServerRow::get(self.store(), id).await else { return };
            if !row.enabled
                || row.blocked_reason.is_some()
                || CollectionJobs::is_paused(self.store()).await.unwrap_or(true)
            {
                return;
            }
            let manner = CollectOptions {
                trigger: CollectTrigger::OnDemand,
                attempt: 1,
                interval: POLL_INTERVAL,
                keep_alive: POLL_INTERVAL * 3,
                counter_state: carried.take(),
            };
            let Ok(outcome) = self.collect(&row, manner).await else { return };
            if outcome.failure.is_some() {
                // Only what went wrong is news: the rest stands in the charts.
                let written =
                    self.deps.store.commit(outcome.statements.into_iter().map(Write::Sql).collect()).await;
                if let Err(error) = written {
                    tracing::warn!(server = %id, %error, "failed to record a collection");
                }
                tokio::time::sleep(FAILURE_COOLDOWN).await;
                return;
            }
            carried = outcome.counter_state;
        }
    }
}
