//! Recent window of accepted snapshots, and the queues of the clients that receive them; publishing never blocks.
//!
//! Clients that read too slowly lose snapshots of their bounded queue; they receive `lagged` and the newest
//! state. The crate also contains the host registry and the cache.

pub mod cache;
pub mod client_share;
mod encoding;
pub mod expected_interval;
mod host_creators;
pub mod host_names;
pub mod host_registry;
pub mod host_status;
pub mod live_stream;
pub mod message;
mod poll_schedule;
mod published;
mod receivers;
pub mod recent_page;
mod recent_rows;
mod recent_window;
mod redis_site;
mod redis_url_error;
pub mod selection;
pub mod sender_clock;
mod sender_conflicts;
mod sentinels;
pub mod shape_registry;
mod subscription;
pub mod viewers;

pub use cache::Cache;
pub use host_registry::HostRegistry;
pub use message::ClientMessage;
pub use published::PublishedSnapshot;
pub use receivers::{Lagged, LiveReceiver, ReceivedHosts};
pub use recent_rows::{RecentRows, RecentSnapshots};
pub use subscription::Subscription;

use client_share::ClientShares;
use perfwatch_model::{Clock, HostId, Snapshot};
use perfwatch_store::{HostRecord, SharePrincipal};
use receivers::Receivers;
use recent_rows::DecodeMemory;
use recent_window::RecentWindow;
use selection::Selections;
use std::sync::Arc;
use std::time::Duration;
use viewers::Viewers;

/// Fan-out of accepted snapshots to live clients.
#[derive(Default)]
pub struct LiveFeed {
    window: RecentWindow,
    decode_memory: DecodeMemory,
    receivers: Receivers,
    selections: Selections,
    viewers: Viewers,
    client_shares: ClientShares,
}

impl LiveFeed {
    /// Creates a feed without snapshots and clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an accepted snapshot to the recent window, in the share of a principal, and queues it for the clients that
    /// receive its host.
    pub fn publish(&self, published: PublishedSnapshot, principal: SharePrincipal, now_ms: i64) {
        let published = Arc::new(published);
        self.window.insert(published.clone(), principal, now_ms);
        self.receivers.send(&published);
    }

    /// Adds a snapshot that was accepted before this hub started to the recent window, without sending it.
    pub fn restore(&self, host: &HostRecord, name: &Arc<str>, row: Arc<Snapshot>, now_ms: i64) {
        let published = PublishedSnapshot::new(host.id, name.clone(), row, Duration::ZERO);
        self.window.insert(Arc::new(published), host.share_principal(now_ms), now_ms);
    }

    /// Rows of a host in the recent window from `from_ms` on; `None` without a row.
    pub fn recent_rows(&self, host: HostId, from_ms: i64, now_ms: i64) -> Option<RecentRows> {
        self.window.rows(host, from_ms, now_ms)
    }

    /// Newest snapshot of a host at or before `at_ms` in the recent window.
    pub fn snapshot_at(&self, host: HostId, at_ms: i64, now_ms: i64) -> Option<Arc<Snapshot>> {
        self.window.snapshot_at(host, at_ms, now_ms)
    }

    /// Snapshots of a host in the recent window from `from_ms` on, oldest first.
    pub async fn recent(&self, host: HostId, from_ms: i64, now_ms: i64) -> RecentSnapshots {
        match self.window.rows(host, from_ms, now_ms) {
            Some(rows) => self.decode_memory.decode(rows).await,
            None => RecentSnapshots::default(),
        }
    }

    /// Hosts whose page is open.
    pub fn viewed_hosts(&self) -> Vec<HostId> {
        self.viewers.hosts()
    }

    /// Returns whether the page of the host is open.
    pub fn has_viewers(&self, host: HostId) -> bool {
        self.viewers.contains(host)
    }

    /// Receiver of the snapshots of all hosts that are published from now on.
    pub fn subscribe(&self) -> LiveReceiver {
        self.receivers.add()
    }

    /// Newest snapshot of every host in the recent window.
    pub fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        self.window.latest_per_host()
    }

    /// Selections that subscriptions for the same series share.
    pub fn selections(&self) -> &Selections {
        &self.selections
    }

    /// Viewers of all hosts.
    pub fn viewers(&self) -> &Viewers {
        &self.viewers
    }

    /// Shares of the accounts with clients.
    pub fn client_shares(&self) -> &ClientShares {
        &self.client_shares
    }

    /// Removes a host from the recent window.
    pub fn remove(&self, host: HostId) {
        self.window.remove(host);
    }

    /// Removes snapshots that are older than the recent window, unused selections and unused shares.
    pub fn prune(&self, clock: &dyn Clock) {
        self.window.prune(clock.wall_ms());
        self.selections.prune();
        self.client_shares.prune(clock.monotonic());
    }
}
