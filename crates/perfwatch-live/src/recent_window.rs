//! The last five minutes of every host, by time, in memory.

use super::PublishedSnapshot;
use perfwatch_model::{HostId, limits};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Default)]
pub struct RecentWindow {
    hosts: RwLock<HashMap<HostId, VecDeque<Arc<PublishedSnapshot>>>>,
}

impl RecentWindow {
    /// Puts a snapshot in its place; back-filled ones too, as long as they are recent.
    pub fn insert(&self, accepted: Arc<PublishedSnapshot>, now_ms: i64) {
        let oldest = now_ms - limits::RECENT_WINDOW_MS;
        if accepted.snapshot.at_ms < oldest {
            return;
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(accepted.host).or_default();
        let at = host.partition_point(|other| other.snapshot.at_ms <= accepted.snapshot.at_ms);
        // Only the newest is sent again as it is: what the others were encoded as may go.
        if at < host.len() {
            host.insert(at, Arc::new(accepted.without_encodings()));
        } else {
            if let Some(newest) = host.back_mut() {
                *newest = Arc::new(newest.without_encodings());
            }
            host.push_back(accepted);
        }
        while host.len() > limits::MAX_RECENT_SNAPSHOTS
            || host.front().is_some_and(|first| first.snapshot.at_ms < oldest)
        {
            host.pop_front();
        }
    }

    pub fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        let oldest = now_ms - limits::RECENT_WINDOW_MS;
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let of_host = hosts.get(&host).into_iter().flatten();
        of_host.filter(|accepted| accepted.snapshot.at_ms >= oldest).cloned().collect()
    }

    /// The newest of each host.
    pub fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.values().filter_map(|host| host.back().cloned()).collect()
    }

    pub fn remove(&self, host: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    pub fn prune(&self, now_ms: i64) {
        let oldest = now_ms - limits::RECENT_WINDOW_MS;
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| {
            while host.front().is_some_and(|first| first.snapshot.at_ms < oldest) {
                host.pop_front();
            }
            !host.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape, Snapshot};
    use std::time::Duration;

    const NOW: i64 = 1_763_720_000_000;

    fn at(host: HostId, at_ms: i64) -> Arc<PublishedSnapshot> {
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
            window.insert(at(host, NOW + offset), NOW);
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
            window.insert(at(host, NOW + n), NOW);
        }
        assert_eq!(window.recent(host, NOW).len(), limits::MAX_RECENT_SNAPSHOTS);
    }
}
