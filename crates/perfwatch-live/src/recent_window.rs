//! Snapshots of the last five minutes of every host, ordered by time, in memory.

use super::published::PublishedSnapshot;
use perfwatch_model::{HostId, limits};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Default)]
pub(crate) struct RecentWindow {
    hosts: RwLock<HashMap<HostId, VecDeque<Arc<PublishedSnapshot>>>>,
}

impl RecentWindow {
    /// Inserts a snapshot by its time. Snapshots of a backfill are inserted if they are recent enough.
    pub(crate) fn insert(&self, published: Arc<PublishedSnapshot>, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let at_ms = published.snapshot.at_ms;
        if at_ms < min_ms {
            return;
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        let window = hosts.entry(published.host).or_default();
        let index = window.partition_point(|existing| existing.snapshot.at_ms <= at_ms);
        // Only the newest snapshot is sent again in the same form; the other encodings are dropped.
        if index < window.len() {
            window.insert(index, Arc::new(published.without_encodings()));
        } else {
            if let Some(newest) = window.back_mut() {
                *newest = Arc::new(newest.without_encodings());
            }
            window.push_back(published);
        }
        while window.len() > limits::MAX_RECENT_SNAPSHOTS
            || window.front().is_some_and(|oldest| oldest.snapshot.at_ms < min_ms)
        {
            window.pop_front();
        }
    }

    /// Snapshots of a host in the window that ends at `now_ms`, oldest first.
    pub(crate) fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let window = hosts.get(&host).into_iter().flatten();
        window.filter(|published| published.snapshot.at_ms >= min_ms).cloned().collect()
    }

    /// Newest snapshot of each host.
    pub(crate) fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.values().filter_map(|window| window.back().cloned()).collect()
    }

    pub(crate) fn remove(&self, host: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Removes snapshots that are older than the window, and hosts without snapshots.
    pub(crate) fn prune(&self, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, window| {
            while window.front().is_some_and(|oldest| oldest.snapshot.at_ms < min_ms) {
                window.pop_front();
            }
            !window.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape, Snapshot};
    use std::time::Duration;

    const NOW: i64 = 1_763_720_000_000;

    fn published(host: HostId, at_ms: i64) -> Arc<PublishedSnapshot> {
        let snapshot = Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms,
            interval_ms: 0,
            shape: Arc::new(Shape::new(vec![])),
            values: vec![],
            processes: vec![],
            facts: None,
            errors: vec![],
        };
        Arc::new(PublishedSnapshot::new(host, "h".into(), Arc::new(snapshot), Duration::ZERO))
    }

    #[test]
    fn backfill_is_sorted_and_old_snapshots_expire() {
        let (window, host) = (RecentWindow::default(), HostId::generate());
        for offset in [-10_000, -2_000, -6_000, -300_001, -4_000] {
            window.insert(published(host, NOW + offset), NOW);
        }
        let times =
            |now: i64| window.recent(host, now).iter().map(|a| a.snapshot.at_ms - NOW).collect::<Vec<_>>();
        assert_eq!(times(NOW), [-10_000, -6_000, -4_000, -2_000]);
        assert_eq!(times(NOW + 295_000), [-4_000, -2_000]);
        window.prune(NOW + 295_000);
        assert_eq!(window.latest_per_host()[0].snapshot.at_ms, NOW - 2_000);
        window.prune(NOW + 400_000);
        assert!(window.hosts.read().unwrap().is_empty());
    }

    #[test]
    fn recent_window_is_bounded() {
        let (window, host) = (RecentWindow::default(), HostId::generate());
        for n in 0..limits::MAX_RECENT_SNAPSHOTS as i64 + 50 {
            window.insert(published(host, NOW + n), NOW);
        }
        assert_eq!(window.recent(host, NOW).len(), limits::MAX_RECENT_SNAPSHOTS);
    }
}
