//! Subscriptions of a connection: their limits, hosts and backfill.

use super::{CloseReason, Connection, FullSnapshots, pause};
use crate::host_access;
use perfwatch_live::message::{self, BackfillBuilder, SubscribeRequest};
use perfwatch_live::{ReceivedHosts, Subscription};
use perfwatch_model::{HostId, SeriesSelector, limit_table, limits};
use std::collections::HashSet;

/// Hosts of a backfill after which other tasks of the thread run.
const MAX_HOSTS_PER_POLL: usize = 32;

impl Connection {
    /// Adds or replaces a subscription, and sends its backfill.
    pub(super) async fn subscribe(&mut self, mut request: SubscribeRequest) -> Result<(), CloseReason> {
        if request.hosts.len() > limits::MAX_SELECTORS || request.metrics.len() > limits::MAX_SELECTORS {
            limit_table::SELECTORS.refuse();
            return self.send_error("limit_reached", "too many hosts or metrics in one subscription").await;
        }
        let is_pattern = |metric: &&String| SeriesSelector::parse(metric).is_pattern();
        if request.metrics.iter().filter(is_pattern).count() > limits::MAX_SELECTOR_PATTERNS {
            limit_table::SELECTOR_PATTERNS.refuse();
            return self.send_error("limit_reached", "too many wildcard patterns in one subscription").await;
        }
        if self.subscriptions.len() >= limits::MAX_SUBSCRIPTIONS
            && !self.subscriptions.contains_key(&request.id)
        {
            limit_table::SUBSCRIPTIONS.refuse();
            return self.send_error("limit_reached", "too many subscriptions on one connection").await;
        }
        let mut hosts = HashSet::new();
        for name in &request.hosts {
            match host_access::host(&self.app, &self.identity, name) {
                Ok(host) => hosts.insert(host.record.id),
                Err(error) if error.code() == "not_found" => {
                    return self.send_error("unknown_host", error.message()).await;
                }
                Err(error) => return self.send_error(error.code(), error.message()).await,
            };
        }
        self.full_snapshots = FullSnapshots::Off;
        let hosts = (!request.hosts.is_empty()).then_some(hosts);
        self.state.set_hosts(hosts.as_ref().map(HashSet::len));
        let visible = if hosts.is_none() { self.app.hosts.count() } else { 0 };
        // A replaced subscription releases its share first.
        self.subscriptions.remove(&request.id);
        let selected = (std::mem::take(&mut request.metrics), request.processes);
        let subscription = Subscription::new(&self.app.live_feed, &self.share, selected, hosts, visible);
        // Before the backfill, so that no snapshot is missing between it and the first message.
        self.receive_hosts(subscription.as_ref());
        let Some(mut subscription) = subscription else {
            return self.send_error("limit_reached", "too many subscriptions of your account").await;
        };
        if request.backfill_s > 0 {
            self.send_backfill(&mut subscription, &request).await?;
        }
        self.subscriptions.insert(request.id, subscription);
        Ok(())
    }

    /// Receives the hosts of the subscriptions and of an `added` one; all hosts before the first subscription.
    pub(super) fn receive_hosts(&mut self, added: Option<&Subscription>) {
        if self.full_snapshots != FullSnapshots::Off {
            return;
        }
        let mut received = HashSet::new();
        for subscription in self.subscriptions.values().chain(added) {
            match &subscription.hosts {
                Some(hosts) => received.extend(hosts),
                None => return self.snapshots.set_hosts(ReceivedHosts::All),
            }
        }
        self.snapshots.set_hosts(ReceivedHosts::Some(received));
    }

    /// Sends recent snapshots, host by host, so that only a message of them is in memory.
    async fn send_backfill(
        &mut self,
        subscription: &mut Subscription,
        request: &SubscribeRequest,
    ) -> Result<(), CloseReason> {
        let mut hosts: Vec<HostId> = match &subscription.hosts {
            Some(hosts) => hosts.iter().copied().collect(),
            None => self.app.hosts.ids(),
        };
        hosts.retain(|host| self.identity.can_view(&self.auth_snapshot, *host));
        pause(self.message_delay(hosts.len())).await;
        let mut builder = BackfillBuilder::new(request.id);
        for (index, host) in hosts.into_iter().enumerate() {
            // Other tasks of this thread go on while a long backfill is encoded.
            if index % MAX_HOSTS_PER_POLL == 0 {
                tokio::task::yield_now().await;
            }
            let now_ms = self.app.clock.wall_ms();
            let recent = subscription.backfill(&self.app.live_feed, host, request, now_ms).await;
            for entry in message::backfill_entries(&recent.snapshots, &subscription.selection) {
                if let Some(text) = builder.push(entry) {
                    self.send_text(text.into()).await?;
                }
                tokio::task::yield_now().await;
            }
        }
        if let Some(text) = builder.finish() {
            self.send_text(text.into()).await?;
        }
        Ok(())
    }
}
