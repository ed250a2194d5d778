//! Snapshots of the last five minutes of every host, ordered by time, in memory.

use super::published::PublishedSnapshot;
use super::selection::Selection;
use perfwatch_model::{Column, HostId, ProcessRow, Snapshot, limit_table, limits};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Default)]
pub(crate) struct RecentWindow {
    hosts: RwLock<HashMap<HostId, HostWindow>>,
}

/// Snapshots of a host, ordered by time.
#[derive(Default)]
struct HostWindow {
    /// Snapshots with their approximate sizes in memory.
    snapshots: VecDeque<(Arc<PublishedSnapshot>, usize)>,
    bytes: usize,
}

impl HostWindow {
    /// Inserts a snapshot by its time.
    fn insert(&mut self, published: Arc<PublishedSnapshot>) {
        let at_ms = published.snapshot.at_ms;
        let index = self.snapshots.partition_point(|(existing, _)| existing.snapshot.at_ms <= at_ms);
        let previous = index.checked_sub(1).and_then(|index| self.snapshots.get(index));
        let shares_shape = previous
            .is_some_and(|(previous, _)| Arc::ptr_eq(&previous.snapshot.shape, &published.snapshot.shape));
        let bytes = snapshot_bytes(&published.snapshot, shares_shape);
        self.bytes += bytes;
        // Only the newest snapshot is sent again in the same form; the other encodings are dropped.
        if index < self.snapshots.len() {
            self.snapshots.insert(index, (Arc::new(published.without_encodings()), bytes));
        } else {
            if let Some((newest, _)) = self.snapshots.back_mut() {
                *newest = Arc::new(newest.without_encodings());
            }
            self.snapshots.push_back((published, bytes));
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.snapshots.pop_front() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn remove_before(&mut self, min_ms: i64) {
        while self.snapshots.front().is_some_and(|(oldest, _)| oldest.snapshot.at_ms < min_ms) {
            self.pop_front();
        }
    }
}

/// Approximate size of a snapshot in memory, with its shape unless the snapshot before it shares the shape.
fn snapshot_bytes(snapshot: &Snapshot, shares_shape: bool) -> usize {
    let texts: usize = snapshot.errors.iter().map(|error| error.message.len() + 64).sum();
    // Texts that only this snapshot and the interner have; others are shared with earlier snapshots.
    let text_bytes = |text: &Arc<str>| if Arc::strong_count(text) <= 2 { text.len() + 64 } else { 0 };
    let process = |row: &ProcessRow| {
        size_of::<ProcessRow>() + [&row.name, &row.user, &row.command].map(text_bytes).iter().sum::<usize>()
    };
    let processes: usize = snapshot.processes.iter().map(process).sum();
    let columns = if shares_shape { 0 } else { snapshot.shape.columns().len() };
    size_of_val(&snapshot.values[..]) + processes + texts + columns * (size_of::<Column>() + 32)
}

impl RecentWindow {
    /// Inserts a snapshot by its time. Snapshots of a backfill are inserted if they are recent enough.
    pub(crate) fn insert(&self, published: Arc<PublishedSnapshot>, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        if published.snapshot.at_ms < min_ms {
            return;
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(published.host).or_default();
        host.insert(published);
        host.remove_before(min_ms);
        while host.snapshots.len() > limits::MAX_RECENT_SNAPSHOTS {
            host.pop_front();
        }
        // The newest snapshot stays, whatever its size.
        while host.bytes > limits::MAX_RECENT_BYTES && host.snapshots.len() > 1 {
            limit_table::RECENT_BYTES.refuse();
            host.pop_front();
        }
    }

    /// Snapshots of a host in the window that ends at `now_ms`, oldest first.
    pub(crate) fn recent(&self, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let window = hosts.get(&host).map(|host| &host.snapshots);
        let snapshots = window.into_iter().flatten().map(|(published, _)| published);
        snapshots.filter(|published| published.snapshot.at_ms >= min_ms).cloned().collect()
    }

    /// Newest snapshot of each host.
    pub(crate) fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.values().filter_map(|host| Some(host.snapshots.back()?.0.clone())).collect()
    }

    pub(crate) fn remove(&self, host: HostId) {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Removes snapshots that are older than the window, and hosts without snapshots.
    pub(crate) fn prune(&self, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| {
            host.remove_before(min_ms);
            !host.snapshots.is_empty()
        });
    }
}

/// Keeps the newest snapshots whose encoding has about [`limits::MAX_BACKFILL_BYTES`]; at least one.
pub(crate) fn keep_newest(recent: &mut Vec<Arc<PublishedSnapshot>>, selection: &Selection) {
    let (mut bytes, mut shape) = (0, None);
    let fits = |published: &&Arc<PublishedSnapshot>| {
        let selected = selection.project(&published.snapshot.shape);
        // A value takes about six characters. A change of the shape repeats the columns.
        let processes = if selection.processes { published.snapshot.processes.len() * 200 } else { 0 };
        bytes += selected.indices.len() * 6 + 16;
        if shape.replace(published.snapshot.shape.id()) != Some(published.snapshot.shape.id()) {
            bytes += selected.columns.len() + processes;
        }
        bytes <= limits::MAX_BACKFILL_BYTES
    };
    let count = recent.iter().rev().take_while(fits).count().max(1).min(recent.len());
    if count < recent.len() {
        limit_table::BACKFILL.refuse();
        recent.drain(..recent.len() - count);
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

    /// Finding C1: the recent window was bounded in number only.
    #[test]
    fn recent_window_of_a_host_is_bounded_in_bytes() {
        let (window, host, other) = (RecentWindow::default(), HostId::generate(), HostId::generate());
        window.insert(published(other, NOW), NOW);
        let refusals = limit_table::RECENT_BYTES.refusals();
        for n in 0..100 {
            let mut snapshot = Arc::unwrap_or_clone(published(host, NOW + n).snapshot.clone());
            snapshot.values = vec![0; limits::MAX_RECENT_BYTES / 8 / 20];
            let published = PublishedSnapshot::new(host, "h".into(), Arc::new(snapshot), Duration::ZERO);
            window.insert(Arc::new(published), NOW);
        }
        let recent = window.recent(host, NOW);
        assert!((18..=20).contains(&recent.len()), "{}", recent.len());
        assert_eq!(recent.last().unwrap().snapshot.at_ms, NOW + 99, "the newest snapshots stay");
        assert_eq!(window.recent(other, NOW).len(), 1);
        assert!(limit_table::RECENT_BYTES.refusals() >= refusals + 80);
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
