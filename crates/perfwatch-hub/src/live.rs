//! Who watches: the last five minutes of every host, and a bounded bus of what was just
//! accepted. Publishing never waits; a reader that is too slow is told `lagged`.

mod message;
mod published;
mod recent_window;
mod selection;
mod viewers;
pub(crate) mod ws;

pub(crate) use message::ClientMessage;
pub(crate) use published::PublishedSnapshot;

use perfwatch_model::{HostId, Snapshot, limits};
use recent_window::RecentWindow;
use selection::Selections;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use viewers::ViewerCounts;

/// The live room.
pub(crate) struct LiveFeed {
    window: RecentWindow,
    broadcast: broadcast::Sender<Arc<PublishedSnapshot>>,
    selections: Selections,
    viewers: ViewerCounts,
}

impl LiveFeed {
    pub(crate) fn new() -> Self {
        Self {
            window: RecentWindow::default(),
            broadcast: broadcast::Sender::new(limits::BROADCAST_CAPACITY),
            selections: Selections::default(),
            viewers: ViewerCounts::default(),
        }
    }

    /// Shows an accepted snapshot to everyone who watches.
    pub(crate) fn publish(&self, accepted: Arc<PublishedSnapshot>, now_ms: i64) {
        self.window.insert(accepted.clone(), now_ms);
        // No watcher is no error.
        let _ = self.broadcast.send(accepted);
    }

    /// Puts back what was taken in before this hub started; nobody is told again.
    pub(crate) fn restore(&self, host: HostId, name: &Arc<str>, row: Arc<Snapshot>, now_ms: i64) {
        self.window.insert(Arc::new(PublishedSnapshot::new(host, name.clone(), row, Duration::ZERO)), now_ms);
    }

    /// The host's snapshots of the last five minutes, oldest first.
    pub(crate) fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        self.window.recent(host, now_ms)
    }

    /// Hosts that somebody has a page open on.
    pub(crate) fn viewed_hosts(&self) -> Vec<HostId> {
        self.viewers.hosts()
    }

    /// Whether this is one of them.
    pub(crate) fn has_viewers(&self, host: HostId) -> bool {
        self.viewers.contains(host)
    }

    /// Forgets a host.
    pub(crate) fn remove(&self, host: HostId) {
        self.window.remove(host);
    }

    /// Forgets what is older than five minutes.
    pub(crate) fn prune(&self, now_ms: i64) {
        self.window.prune(now_ms);
        self.selections.prune();
    }
}
