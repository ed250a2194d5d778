//! Who watches: the last five minutes of every host, and a bounded bus of what was just
//! accepted. Publishing never waits; a reader that is too slow is told `lagged`.

mod accepted;
mod message;
mod selection;
mod watching;
mod window;
pub(crate) mod ws;

pub(crate) use accepted::Accepted;
pub(crate) use message::ClientMessage;

use perfwatch_model::{HostId, Snapshot, limits};
use selection::Selections;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use watching::Watching;
use window::Window;

/// The live room.
pub(crate) struct Live {
    window: Window,
    bus: broadcast::Sender<Arc<Accepted>>,
    selections: Selections,
    watching: Watching,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            window: Window::default(),
            bus: broadcast::Sender::new(limits::LIVE_QUEUE),
            selections: Selections::default(),
            watching: Watching::default(),
        }
    }

    /// Shows an accepted snapshot to everyone who watches.
    pub(crate) fn publish(&self, accepted: Arc<Accepted>, now_ms: i64) {
        self.window.insert(accepted.clone(), now_ms);
        // No watcher is no error.
        let _ = self.bus.send(accepted);
    }

    /// Puts back what was taken in before this hub started; nobody is told again.
    pub(crate) fn restore(&self, host: HostId, name: &Arc<str>, row: Arc<Snapshot>, now_ms: i64) {
        self.window.insert(Arc::new(Accepted::new(host, name.clone(), row, Duration::ZERO)), now_ms);
    }

    /// The host's snapshots of the last five minutes, oldest first.
    pub(crate) fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<Accepted>> {
        self.window.recent(host, now_ms)
    }

    /// Hosts that somebody has a page open on.
    pub(crate) fn watched(&self) -> Vec<HostId> {
        self.watching.all()
    }

    /// Whether this is one of them.
    pub(crate) fn is_watched(&self, host: HostId) -> bool {
        self.watching.is(host)
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
