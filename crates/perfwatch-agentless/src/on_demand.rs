//! Polls agentless hosts every few seconds while their page is open, over a connection that stays open.

use crate::runner::CollectionRunner;
use crate::types::CollectOptions;
use perfwatch_live::LiveFeed;
use perfwatch_live::client_share::{ClientShare, LiveResource, Reservation};
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{HostId, limit_table, limits};
use perfwatch_store::Store;
use perfwatch_store::collection_jobs::CollectionJobs;
use perfwatch_store::collections::CollectTrigger;
use perfwatch_store::servers::ServerRow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Interval of the collections of a polled host.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Interval at which open pages are checked: the maximum delay before polling starts.
const VIEWER_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a host is not polled after a failed collection.
const FAILURE_BACKOFF: Duration = Duration::from_secs(30);
/// Hosts that are polled, or wait after a failure, each in the share of an account that views it.
#[derive(Default)]
struct PolledHosts(Mutex<HashMap<HostId, Reservation>>);

impl PolledHosts {
    /// Adds a host. Returns `false` if it is polled already, or a limit is reached.
    fn add(&self, host: HostId, viewers: &[Arc<ClientShare>]) -> bool {
        let mut polled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if polled.contains_key(&host) {
            return false;
        }
        if polled.len() >= limits::MAX_POLLED_HOSTS {
            limit_table::POLLED_HOSTS.refuse();
            return false;
        }
        let reservation = viewers.iter().find_map(|share| share.reserve(LiveResource::PolledHosts, 1));
        reservation.is_some_and(|reservation| polled.insert(host, reservation).is_none())
    }

    fn remove(&self, host: HostId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }
}

/// Poller of the hosts whose pages are open.
pub(crate) struct OnDemandPoller {
    store: Arc<dyn Store>,
    hosts: Arc<HostRegistry>,
    live_feed: Arc<LiveFeed>,
    runner: Arc<CollectionRunner>,
    polled_hosts: PolledHosts,
}

impl OnDemandPoller {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        hosts: Arc<HostRegistry>,
        live_feed: Arc<LiveFeed>,
        runner: Arc<CollectionRunner>,
    ) -> Self {
        Self { store, hosts, live_feed, runner, polled_hosts: PolledHosts::default() }
    }

    /// Starts polling of hosts whose page was opened, until the hub stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken, tasks: TaskTracker) {
        let mut ticks = interval(VIEWER_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for host in self.live_feed.viewed_hosts() {
                let viewers = self.live_feed.viewers();
                if self.hosts.is_agentless(host) && self.polled_hosts.add(host, &viewers.shares(host)) {
                    let (poller, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = poller.poll_host(host) => {}
                        }
                        poller.polled_hosts.remove(host);
                    });
                }
            }
        }
    }

    /// Collects a host until its pages are closed, collections are disabled, or one fails.
    async fn poll_host(&self, host: HostId) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counter_state = None;
        while self.live_feed.has_viewers(host) {
            ticks.tick().await;
            let Some(row) = self.load_enabled(host).await else { return };
            let options = CollectOptions {
                trigger: CollectTrigger::OnDemand,
                attempt: 1,
                interval: POLL_INTERVAL,
                keep_alive: POLL_INTERVAL * 3,
                counter_state: counter_state.take(),
                observer: None,
            };
            let Ok(report) = self.runner.collect(&row, options).await else { return };
            if report.failure.is_some() {
                // Successful collections are visible in the charts; only failures are recorded.
                if let Err(error) = self.runner.record(&report).await {
                    tracing::warn!(server.id = %host, error = %error, "failed to record a collection");
                }
                tokio::time::sleep(FAILURE_BACKOFF).await;
                return;
            }
            counter_state = report.counter_state;
        }
    }

    /// Reads the server of a host; `None` if it must not be collected now.
    async fn load_enabled(&self, host: HostId) -> Option<ServerRow> {
        let row = ServerRow::get(&*self.store, host.0).await.ok().flatten()?;
        let is_enabled = row.enabled && row.blocked_reason.is_none();
        (is_enabled && !CollectionJobs::is_paused(&*self.store).await.unwrap_or(true)).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Review of the shares: an account with many open pages took the polls of the others.
    #[test]
    fn polled_hosts_are_bounded_per_account() {
        let polled = PolledHosts::default();
        let (one, other): (Arc<ClientShare>, Arc<ClientShare>) = Default::default();
        let hosts: Vec<HostId> = (0..30).map(|_| HostId::generate()).collect();
        let added: Vec<bool> =
            hosts.iter().map(|host| polled.add(*host, std::slice::from_ref(&one))).collect();
        assert_eq!(added.iter().filter(|added| **added).count(), limits::MAX_POLLED_HOSTS_PER_ACCOUNT);
        assert!(!polled.add(hosts[0], std::slice::from_ref(&other)), "the host is polled already");
        assert!(polled.add(hosts[29], &[one.clone(), other]), "another account views the host too");
        polled.remove(hosts[0]);
        assert!(polled.add(hosts[28], &[one]));
    }
}
