//! Who watches: the last five minutes of every host, and a bounded bus of what was just
//! accepted. Publishing never waits; a reader that is too slow is told `lagged`.

pub mod cache;
pub mod host_registry;
pub mod message;
mod published;
mod recent_window;
pub mod selection;
pub mod viewers;

pub use cache::Cache;
pub use host_registry::HostRegistry;
pub use message::ClientMessage;
pub use published::PublishedSnapshot;

use perfwatch_model::{HostId, Snapshot, limits};
use recent_window::RecentWindow;
use selection::Selections;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use viewers::ViewerCounts;

/// The live room.
pub struct LiveFeed {
    window: RecentWindow,
    broadcast: broadcast::Sender<Arc<PublishedSnapshot>>,
    selections: Selections,
    viewers: ViewerCounts,
}

impl LiveFeed {
    pub fn new() -> Self {
        Self {
            window: RecentWindow::default(),
            broadcast: broadcast::Sender::new(limits::BROADCAST_CAPACITY),
            selections: Selections::default(),
            viewers: ViewerCounts::default(),
        }
    }

    /// Shows an accepted snapshot to everyone who watches.
    pub fn publish(&self, accepted: Arc<PublishedSnapshot>, now_ms: i64) {
        self.window.insert(accepted.clone(), now_ms);
        // No watcher is no error.
        let _ = self.broadcast.send(accepted);
    }

    /// Puts back what was taken in before this hub started; nobody is told again.
    pub fn restore(&self, host: HostId, name: &Arc<str>, row: Arc<Snapshot>, now_ms: i64) {
        self.window.insert(Arc::new(PublishedSnapshot::new(host, name.clone(), row, Duration::ZERO)), now_ms);
    }

    /// The host's snapshots of the last five minutes, oldest first.
    pub fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        self.window.recent(host, now_ms)
    }

    /// Hosts that somebody has a page open on.
    pub fn viewed_hosts(&self) -> Vec<HostId> {
        self.viewers.hosts()
    }

    /// Whether this is one of them.
    pub fn has_viewers(&self, host: HostId) -> bool {
        self.viewers.contains(host)
    }

    /// Number of clients that receive the broadcast.
    pub fn client_count(&self) -> usize {
        self.broadcast.receiver_count()
    }

    /// Receiver of all snapshots published from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<PublishedSnapshot>> {
        self.broadcast.subscribe()
    }

    /// Newest snapshot of every host in the recent window.
    pub fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        self.window.latest_per_host()
    }

    /// Selection shared by all subscriptions for the same series.
    pub fn selections(&self) -> &Selections {
        &self.selections
    }

    /// Pages that are open on one host.
    pub fn viewers(&self) -> &ViewerCounts {
        &self.viewers
    }

    /// Forgets a host.
    pub fn remove(&self, host: HostId) {
        self.window.remove(host);
    }

    /// Forgets what is older than five minutes.
    pub fn prune(&self, now_ms: i64) {
        self.window.prune(now_ms);
        self.selections.prune();
    }
}
