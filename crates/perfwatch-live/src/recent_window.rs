//! Snapshots of the last five minutes of every host, ordered by time, in memory: the newest of each host as it is,
//! the others as encoded rows, which the head of the history shares.

use super::published::PublishedSnapshot;
use super::recent_rows::RecentRows;
use super::selection::Selection;
use perfwatch_model::{Column, HostId, ProcessRow, Shape, Snapshot, limit_table, limits};
use perfwatch_store::SharePrincipal;
use perfwatch_tsdb::{EncodedRow, RowEncoder, decode_rows};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Rows for which a window grows at once: doubling would leave half of the space of every host unused.
const ADDED_CAPACITY: usize = 32;

#[derive(Default)]
pub(crate) struct RecentWindow {
    inner: RwLock<Windows>,
}

/// Windows of all hosts, with the sizes that limits apply to.
#[derive(Default)]
struct Windows {
    hosts: HashMap<HostId, HostWindow>,
    bytes: usize,
    /// New hosts by the account or token that created them.
    new_hosts: HashMap<Arc<str>, NewHosts>,
}

/// New hosts of an account or token.
#[derive(Default)]
struct NewHosts {
    /// Hosts in the order in which they give snapshots.
    order: VecDeque<HostId>,
    bytes: usize,
}

/// Snapshots of a host.
#[derive(Default)]
struct HostWindow {
    /// Rows, ordered by time.
    rows: VecDeque<RecentRow>,
    /// Snapshot of the last row, with its encodings.
    newest: Option<Arc<PublishedSnapshot>>,
    /// Encoder of snapshots that are not in the head of the history.
    encoder: RowEncoder,
    /// Size in memory.
    bytes: usize,
    /// Size of all rows as snapshots.
    decoded_bytes: usize,
    /// Account or token that created the host, while the host is new.
    sender: Option<Arc<str>>,
}

/// Row with its approximate sizes.
struct RecentRow {
    row: EncodedRow,
    /// Size in memory.
    bytes: u32,
    /// Size as a snapshot.
    decoded_bytes: u32,
}

impl RecentRow {
    fn new(row: EncodedRow, snapshot: &Snapshot, previous: Option<&EncodedRow>) -> Self {
        let shares_shape = previous.is_some_and(|previous| Arc::ptr_eq(previous.shape(), &snapshot.shape));
        let shape_bytes = if shares_shape { 0 } else { shape_bytes(&snapshot.shape) };
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            bytes: size(row.bytes() + shape_bytes),
            decoded_bytes: size(snapshot_bytes(snapshot) + shape_bytes),
            row,
        }
    }
}

impl HostWindow {
    /// Inserts a snapshot by its time.
    fn insert(&mut self, published: Arc<PublishedSnapshot>) {
        let snapshot = &published.snapshot;
        let index = self.rows.partition_point(|existing| existing.row.at_ms() <= snapshot.at_ms);
        let previous = index.checked_sub(1).and_then(|index| self.rows.get(index));
        let row = published.row.clone().unwrap_or_else(|| self.encoder.encode(snapshot));
        let row = RecentRow::new(row, snapshot, previous.map(|previous| &previous.row));
        self.bytes += row.bytes as usize;
        self.decoded_bytes += row.decoded_bytes as usize;
        if index == self.rows.len() {
            self.newest = Some(published);
        }
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact(ADDED_CAPACITY);
        }
        self.rows.insert(index, row);
    }

    fn pop_front(&mut self) {
        if let Some(oldest) = self.rows.pop_front() {
            self.bytes = self.bytes.saturating_sub(oldest.bytes as usize);
            self.decoded_bytes = self.decoded_bytes.saturating_sub(oldest.decoded_bytes as usize);
        }
    }

    fn remove_before(&mut self, min_ms: i64) {
        while self.rows.front().is_some_and(|oldest| oldest.row.at_ms() < min_ms) {
            self.pop_front();
        }
    }

    /// Rows from `min_ms` on.
    fn rows_since(&self, host: HostId, min_ms: i64) -> Option<RecentRows> {
        let first = self.rows.partition_point(|row| row.row.at_ms() < min_ms);
        let rows = self.rows.range(first..);
        Some(RecentRows {
            host,
            decoded_bytes: rows.clone().map(|row| row.decoded_bytes as usize).sum(),
            rows: rows.map(|row| row.row.clone()).collect(),
            newest: self.newest.clone()?,
        })
    }
}

/// Approximate size of a snapshot in memory without its shape.
fn snapshot_bytes(snapshot: &Snapshot) -> usize {
    let texts: usize = snapshot.errors.iter().map(|error| error.message.len() + 64).sum();
    // Texts that only this snapshot and the interner have; others are shared with earlier snapshots.
    let text_bytes = |text: &Arc<str>| if Arc::strong_count(text) <= 2 { text.len() + 64 } else { 0 };
    let process = |row: &ProcessRow| {
        size_of::<ProcessRow>() + [&row.name, &row.user, &row.command].map(text_bytes).iter().sum::<usize>()
    };
    let processes: usize = snapshot.processes.iter().map(process).sum();
    size_of_val(&snapshot.values[..]) + processes + texts
}

/// Approximate size of a shape in memory.
fn shape_bytes(shape: &Shape) -> usize {
    shape.columns().len() * (size_of::<Column>() + 32)
}

impl Windows {
    /// Updates the sizes after a change of a host. `before` is its size before.
    fn resized(&mut self, sender: Option<&Arc<str>>, before: usize, after: usize) {
        self.bytes = self.bytes.saturating_sub(before) + after;
        if let Some(new_hosts) = sender.and_then(|sender| self.new_hosts.get_mut(sender)) {
            new_hosts.bytes = new_hosts.bytes.saturating_sub(before) + after;
        }
    }

    /// Changes the window of a host, and updates the sizes.
    fn change(&mut self, host: HostId, change: impl FnOnce(&mut HostWindow)) {
        let Some(window) = self.hosts.get_mut(&host) else { return };
        let before = window.bytes;
        change(window);
        let (after, sender) = (window.bytes, window.sender.clone());
        if window.rows.is_empty() {
            self.hosts.remove(&host);
        }
        self.resized(sender.as_ref(), before, after);
    }

    /// Assigns a host to the share of a principal.
    fn assign(&mut self, host: HostId, principal: SharePrincipal) {
        let sender = match principal {
            SharePrincipal::Sender(sender) => Some(sender),
            SharePrincipal::Host(_) => None,
        };
        let window = self.hosts.entry(host).or_default();
        if window.sender == sender {
            return;
        }
        let (bytes, previous) = (window.bytes, std::mem::replace(&mut window.sender, sender.clone()));
        if let Some(new_hosts) = previous.and_then(|previous| self.new_hosts.get_mut(&previous)) {
            new_hosts.bytes = new_hosts.bytes.saturating_sub(bytes);
        }
        if let Some(sender) = sender {
            let new_hosts = self.new_hosts.entry(sender).or_default();
            new_hosts.bytes += bytes;
            new_hosts.order.push_back(host);
        }
    }

    /// Drops snapshots of the new hosts of a sender until they are within their share. The hosts take turns,
    /// also with their newest snapshot, except the given host.
    fn bound_new_hosts(&mut self, sender: &Arc<str>, except: HostId) {
        while let Some(new_hosts) = self.new_hosts.get_mut(sender)
            && new_hosts.bytes > limits::MAX_NEW_HOSTS_RECENT_BYTES
            && let Some(host) = new_hosts.order.pop_front()
        {
            // Hosts without snapshots, or with another sender since, leave the order.
            let is_member = |window: &HostWindow| window.sender.as_ref() == Some(sender);
            let Some(count) =
                self.hosts.get(&host).filter(|window| is_member(window)).map(|window| window.rows.len())
            else {
                continue;
            };
            if host == except && count == 1 {
                let is_last = new_hosts.order.iter().all(|other| *other == except);
                new_hosts.order.push_back(host);
                if is_last {
                    return;
                }
                continue;
            }
            if count > 1 {
                new_hosts.order.push_back(host);
            }
            limit_table::NEW_HOSTS_RECENT_BYTES.refuse();
            self.change(host, HostWindow::pop_front);
        }
    }

    /// Drops snapshots of a host above an equal share, if all hosts together take too much.
    fn bound_total(&mut self, host: HostId) {
        let share = limits::MAX_RECENT_TOTAL_BYTES / self.hosts.len().max(1);
        while self.bytes > limits::MAX_RECENT_TOTAL_BYTES
            && self.hosts.get(&host).is_some_and(|window| window.bytes > share && window.rows.len() > 1)
        {
            limit_table::RECENT_TOTAL_BYTES.refuse();
            self.change(host, HostWindow::pop_front);
        }
    }
}

impl RecentWindow {
    fn read(&self) -> RwLockReadGuard<'_, Windows> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Windows> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts a snapshot by its time, in the share of a principal. Snapshots of a backfill are inserted if
    /// they are recent enough.
    pub(crate) fn insert(&self, published: Arc<PublishedSnapshot>, principal: SharePrincipal, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        if published.snapshot.at_ms < min_ms {
            return;
        }
        let host = published.host;
        let mut windows = self.write();
        windows.assign(host, principal.clone());
        windows.change(host, |window| {
            window.insert(published);
            window.remove_before(min_ms);
            while window.rows.len() > limits::MAX_RECENT_SNAPSHOTS {
                window.pop_front();
            }
            // The newest snapshot stays, whatever its size.
            while window.decoded_bytes > limits::MAX_RECENT_BYTES && window.rows.len() > 1 {
                limit_table::RECENT_BYTES.refuse();
                window.pop_front();
            }
        });
        if let SharePrincipal::Sender(sender) = principal {
            windows.bound_new_hosts(&sender, host);
        }
        windows.bound_total(host);
    }

    /// Rows of a host from `from_ms` on in the window that ends at `now_ms`, oldest first; `None` without a row.
    pub(crate) fn rows(&self, host: HostId, from_ms: i64, now_ms: i64) -> Option<RecentRows> {
        let min_ms = from_ms.max(now_ms - limits::RECENT_WINDOW_MS);
        self.read().hosts.get(&host)?.rows_since(host, min_ms).filter(|rows| !rows.rows.is_empty())
    }

    /// Newest snapshot of a host at or before `at_ms` in the window that ends at `now_ms`.
    pub(crate) fn snapshot_at(&self, host: HostId, at_ms: i64, now_ms: i64) -> Option<Arc<Snapshot>> {
        let row = {
            let windows = self.read();
            let window = windows.hosts.get(&host)?;
            let end = window.rows.partition_point(|row| row.row.at_ms() <= at_ms);
            let row = &window.rows.get(end.checked_sub(1)?)?.row;
            if row.at_ms() < now_ms - limits::RECENT_WINDOW_MS {
                return None;
            }
            if end == window.rows.len() {
                return window.newest.as_ref().map(|newest| newest.snapshot.clone());
            }
            row.clone()
        };
        decode_rows([&row]).pop()
    }

    /// Newest snapshot of each host.
    pub(crate) fn latest_per_host(&self) -> Vec<Arc<PublishedSnapshot>> {
        self.read().hosts.values().filter_map(|host| host.newest.clone()).collect()
    }

    pub(crate) fn remove(&self, host: HostId) {
        self.write().change(host, |window| {
            window.rows.clear();
            window.bytes = 0;
        });
    }

    /// Removes snapshots that are older than the window, and hosts without snapshots.
    pub(crate) fn prune(&self, now_ms: i64) {
        let min_ms = now_ms - limits::RECENT_WINDOW_MS;
        let mut windows = self.write();
        let hosts: Vec<HostId> = windows.hosts.keys().copied().collect();
        for host in hosts {
            windows.change(host, |window| window.remove_before(min_ms));
        }
        let Windows { hosts, new_hosts, .. } = &mut *windows;
        new_hosts.retain(|sender, new| {
            new.order.retain(|host| hosts.get(host).is_some_and(|host| host.sender.as_ref() == Some(sender)));
            !new.order.is_empty()
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
pub(crate) mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape, Snapshot};
    use std::time::Duration;

    const NOW: i64 = 1_763_720_000_000;

    /// Snapshot without values.
    pub(crate) fn published(host: HostId, at_ms: i64) -> Arc<PublishedSnapshot> {
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

    /// Snapshot whose values take this size.
    fn sized(host: HostId, at_ms: i64, bytes: usize) -> Arc<PublishedSnapshot> {
        let mut snapshot = Arc::unwrap_or_clone(published(host, at_ms).snapshot.clone());
        // Values that take eight bytes and a bit when they are encoded.
        let value = |n: usize| (1_i64 << 50) * if (n as i64 + at_ms) % 2 == 0 { 1 } else { -1 };
        snapshot.values = (0..bytes / 8).map(value).collect();
        Arc::new(PublishedSnapshot::new(host, "h".into(), Arc::new(snapshot), Duration::ZERO))
    }

    fn recent(window: &RecentWindow, host: HostId, now_ms: i64) -> Vec<Arc<PublishedSnapshot>> {
        window.rows(host, 0, now_ms).map(RecentRows::decode).unwrap_or_default()
    }

    fn insert(window: &RecentWindow, published: Arc<PublishedSnapshot>) {
        let host = published.host;
        window.insert(published, SharePrincipal::Host(host), NOW);
    }

    #[test]
    fn backfill_is_sorted_and_old_snapshots_expire() {
        let (window, host) = (RecentWindow::default(), HostId::generate());
        for offset in [-10_000, -2_000, -6_000, -300_001, -4_000] {
            insert(&window, published(host, NOW + offset));
        }
        let times =
            |now: i64| recent(&window, host, now).iter().map(|a| a.snapshot.at_ms - NOW).collect::<Vec<_>>();
        assert_eq!(times(NOW), [-10_000, -6_000, -4_000, -2_000]);
        assert_eq!(times(NOW + 295_000), [-4_000, -2_000]);
        let time_at = |offset: i64, now_ms: i64| {
            window.snapshot_at(host, NOW + offset, now_ms).map(|snapshot| snapshot.at_ms - NOW)
        };
        assert_eq!((time_at(0, NOW), time_at(-2_001, NOW)), (Some(-2_000), Some(-4_000)));
        assert_eq!((time_at(-10_001, NOW), time_at(-6_000, NOW + 295_000)), (None, None));
        window.prune(NOW + 295_000);
        assert_eq!(window.latest_per_host()[0].snapshot.at_ms, NOW - 2_000);
        window.prune(NOW + 400_000);
        let windows = window.read();
        assert!(windows.hosts.is_empty() && windows.bytes == 0);
    }

    /// Finding C1: the recent window was bounded in number only.
    #[test]
    fn recent_window_of_a_host_is_bounded_in_bytes() {
        let (window, host, other) = (RecentWindow::default(), HostId::generate(), HostId::generate());
        insert(&window, published(other, NOW));
        let refusals = limit_table::RECENT_BYTES.refusals();
        for n in 0..100 {
            insert(&window, sized(host, NOW + n, limits::MAX_RECENT_BYTES / 20));
        }
        let rows = window.rows(host, 0, NOW).unwrap();
        assert!((18..=20).contains(&rows.rows.len()), "{}", rows.rows.len());
        assert_eq!(rows.newest.snapshot.at_ms, NOW + 99, "the newest snapshots stay");
        assert_eq!(recent(&window, other, NOW).len(), 1);
        assert!(limit_table::RECENT_BYTES.refusals() >= refusals + 80);
    }

    /// Sibling of finding C1: each invented host had a separate window.
    #[test]
    fn new_hosts_of_a_sender_share_one_bound() {
        let (window, other) = (RecentWindow::default(), HostId::generate());
        insert(&window, sized(other, NOW, 1 << 20));
        let sender = || SharePrincipal::Sender("token 1".into());
        let hosts: Vec<HostId> = (0..100).map(|_| HostId::generate()).collect();
        for round in 0..4 {
            for host in &hosts {
                window.insert(sized(*host, NOW + round, 1 << 20), sender(), NOW);
                assert_eq!(window.rows(*host, 0, NOW).unwrap().newest.snapshot.at_ms, NOW + round);
            }
        }
        let new_bytes = |window: &RecentWindow| window.read().new_hosts.values().map(|new| new.bytes).sum();
        let bytes: usize = new_bytes(&window);
        assert!((100 << 20..=limits::MAX_NEW_HOSTS_RECENT_BYTES).contains(&bytes), "{bytes}");
        let count = |host: &HostId| window.rows(*host, 0, NOW).map_or(0, |rows| rows.rows.len());
        let counts: Vec<usize> = hosts.iter().map(count).collect();
        assert!(counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
        assert_eq!(count(&other), 1);
        // A snapshot above the bound is the only one; the host counts for itself once it is not new.
        window.insert(sized(hosts[0], NOW + 9, limits::MAX_NEW_HOSTS_RECENT_BYTES + 8), sender(), NOW);
        assert_eq!(window.latest_per_host().len(), 2);
        window.insert(sized(hosts[0], NOW + 10, 8), SharePrincipal::Host(hosts[0]), NOW);
        assert_eq!(new_bytes(&window), 0usize);
        hosts.iter().for_each(|host| window.remove(*host));
        let windows = window.read();
        assert!(windows.bytes >= 1 << 20 && windows.bytes == windows.hosts[&other].bytes);
        drop(windows);
        window.prune(NOW);
        assert!(window.read().new_hosts.is_empty());
    }

    #[test]
    fn recent_window_is_bounded() {
        let (window, host) = (RecentWindow::default(), HostId::generate());
        for n in 0..limits::MAX_RECENT_SNAPSHOTS as i64 + 50 {
            insert(&window, published(host, NOW + n));
        }
        assert_eq!(recent(&window, host, NOW).len(), limits::MAX_RECENT_SNAPSHOTS);
    }
}
