//! Subscription of a client to metrics of hosts: the snapshots of its next message, and its backfill.

use crate::client_share::{ClientShare, LiveResource, Reservation};
use crate::message::{self, SubscribeRequest};
use crate::published::PublishedSnapshot;
use crate::selection::Selection;
use crate::viewers::ViewerGuard;
use crate::{LiveFeed, RecentSnapshots, recent_window};
use perfwatch_model::{HostId, ShapeId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Delay in which snapshots of several hosts are combined to one message.
const COALESCE_DELAY: Duration = Duration::from_millis(200);
/// Memory in bytes of a subscription, and per host for its selection, its shape and its pending snapshot.
const SUBSCRIPTION_BYTES: usize = 1_024;
const HOST_BYTES: usize = 160;

/// Subscription of a client to metrics of hosts.
pub struct Subscription {
    /// Selected series.
    pub selection: Arc<Selection>,
    /// Selected hosts; `None` for all.
    pub hosts: Option<HashSet<HostId>>,
    /// Shape of each host whose columns were sent.
    sent_shapes: HashMap<HostId, ShapeId>,
    /// Newest snapshot of each host for the next message.
    pending: Vec<Arc<PublishedSnapshot>>,
    /// Time of the next message.
    flush_at: Option<Instant>,
    /// Registers the client as a viewer of a single host.
    _viewer: Option<ViewerGuard>,
    _reservation: Reservation,
}

impl Subscription {
    /// Creates a subscription; `None` above the share of the account. `visible` is the number of hosts of a
    /// subscription to all hosts.
    pub fn new(
        feed: &LiveFeed,
        share: &Arc<ClientShare>,
        (metrics, processes): (Vec<String>, bool),
        hosts: Option<HashSet<HostId>>,
        visible: usize,
    ) -> Option<Self> {
        let host_count = hosts.as_ref().map_or(visible, HashSet::len);
        let bytes = SUBSCRIPTION_BYTES + host_count * HOST_BYTES;
        let reservation = share.reserve(LiveResource::Subscriptions, bytes)?;
        let selection = feed.selections().get(metrics, processes, share)?;
        let single = hosts.as_ref().filter(|hosts| hosts.len() == 1).and_then(|hosts| hosts.iter().next());
        let viewer = single.map(|host| feed.viewers().add(*host, share));
        Some(Self {
            selection,
            hosts,
            sent_shapes: HashMap::new(),
            pending: Vec::new(),
            flush_at: None,
            _viewer: viewer,
            _reservation: reservation,
        })
    }

    /// Returns whether the subscription includes a host.
    pub fn includes(&self, host: HostId) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&host))
    }

    /// Returns whether the subscription is for a single host, whose snapshots are sent at once.
    pub fn has_single_host(&self) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| hosts.len() == 1)
    }

    /// Time of the next message; `None` without pending snapshots.
    pub fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Removes pending snapshots of hosts that are not visible any more.
    pub fn retain_hosts(&mut self, is_visible: impl Fn(HostId) -> bool) {
        self.pending.retain(|published| is_visible(published.host));
    }

    /// Adds a snapshot to the next message. Returns whether the message is due.
    pub fn push(&mut self, published: &Arc<PublishedSnapshot>) -> bool {
        let is_single_host = self.has_single_host();
        if is_single_host {
            self.flush_at = Some(Instant::now());
        } else {
            // Only the newest snapshot of a host is sent; backfilled older snapshots do not replace it.
            let is_replaced = |pending: &Arc<PublishedSnapshot>| {
                pending.host == published.host && pending.snapshot.at_ms <= published.snapshot.at_ms
            };
            self.pending.retain(|pending| !is_replaced(pending));
            self.flush_at.get_or_insert_with(|| Instant::now() + COALESCE_DELAY);
        }
        self.pending.push(published.clone());
        is_single_host
    }

    /// Messages of the pending snapshots if they are due, with the time at which the oldest was accepted.
    pub fn take_due(&mut self, id: u32, now: Instant) -> Option<(Vec<String>, Option<Duration>)> {
        self.flush_at.filter(|flush_at| *flush_at <= now)?;
        self.flush_at = None;
        let (pending, mut messages) = (std::mem::take(&mut self.pending), Vec::new());
        for published in &pending {
            let shape = published.snapshot.shape.id();
            if self.sent_shapes.insert(published.host, shape) != Some(shape) {
                messages.push(message::columns(id, published, &self.selection));
            }
        }
        let entries: Vec<Arc<str>> =
            pending.iter().map(|published| published.selection_json(&self.selection)).collect();
        for chunk in message::chunk_by_size(&entries, |entry| entry.len()) {
            messages.push(message::tick(id, chunk.iter().map(|entry| &**entry)));
        }
        Some((messages, pending.iter().map(|published| published.accepted_at).min()))
    }

    /// Recent snapshots of a host for the backfill of a new subscription. Snapshots that are also in the
    /// queue of the client are sent twice; clients identify a tick by its time.
    pub async fn backfill(
        &mut self,
        feed: &LiveFeed,
        host: HostId,
        request: &SubscribeRequest,
        now_ms: i64,
    ) -> RecentSnapshots {
        let from_ms = now_ms - i64::from(request.backfill_s) * 1000;
        let since_ms = request.since.get(&host).map(|since_ms| since_ms.saturating_add(1));
        let from_ms = since_ms.map_or(from_ms, |since_ms| since_ms.max(from_ms));
        let mut recent = feed.recent(host, from_ms, now_ms).await;
        recent_window::keep_newest(&mut recent.snapshots, &self.selection);
        if let Some(last) = recent.snapshots.last() {
            self.sent_shapes.insert(host, last.snapshot.shape.id());
        }
        recent
    }
}
