//! Share of a host in what all hosts use: new shapes, unsealed rows, and the disk budget.
//!
//! A host above its share is refused alone and sends again later; the rows of other hosts are not affected.

use perfwatch_model::limit_table::{self, Limit};
use perfwatch_model::{Column, HostId, ProcessRow, Shape, ShapeId, Snapshot, limits};
use perfwatch_store::{DiskUsage, SharePrincipal};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Number of shapes of a host that do not count as new when it sends them again.
const MAX_RECENT_SHAPES: usize = 64;
/// Time after which a host sends again that is above a share of the storage.
pub(super) const STORAGE_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Time after which a host sends again that took its share of what is left: the next measurement.
const SPACE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Disk usage, in percent of [`DiskUsage::target_bytes`], above which data is deleted.
pub(super) const EVICT_ABOVE_PERCENT: u64 = 88;
/// Seconds of an hour and of a day.
const HOUR_S: f64 = 3_600.0;
const DAY_S: f64 = 86_400.0;

/// Refusal of the rows of a host.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the host exceeds the limit `{}`; sending again later", limit.name)]
pub struct ShareExceeded {
    /// Limit that the host exceeds.
    pub limit: &'static Limit,
    /// Time after which the host may send again; `None` if it must send smaller batches.
    pub retry_after: Option<Duration>,
}

impl ShareExceeded {
    /// Counts and returns a refusal.
    pub(super) fn new(limit: &'static Limit, retry_after: Duration) -> Self {
        limit.refuse();
        Self { limit, retry_after: Some(retry_after) }
    }

    /// Counts and returns the refusal of a batch that is never accepted.
    pub(super) fn batch_too_large(limit: &'static Limit) -> Self {
        limit.refuse();
        Self { limit, retry_after: None }
    }
}

/// Space of the disk budget that rows may take until the disk usage is measured again. A principal takes at most
/// half of what is left, so that hosts that flood the store leave space to the others.
#[derive(Debug, Default)]
pub(super) struct SpaceShare {
    /// Space for rows and its free part when it was measured last; zero before.
    target_bytes: u64,
    free_bytes: u64,
    /// Size of the rows since then.
    taken_bytes: u64,
    taken: HashMap<SharePrincipal, u64>,
    /// Accounts and tokens by the new hosts that they created.
    new_hosts: HashMap<HostId, Arc<str>>,
    /// Size of the unsealed rows of these hosts when it was measured last.
    unsealed: HashMap<Arc<str>, u64>,
}

impl SpaceShare {
    /// Starts again with a new measurement of the disk usage and of the unsealed rows of each host.
    pub(super) fn measure(
        &mut self,
        usage: DiskUsage,
        unsealed_bytes: impl Iterator<Item = (HostId, u64)>,
        new_hosts: HashMap<HostId, Arc<str>>,
    ) {
        let free_bytes = usage.target_bytes.saturating_sub(usage.used_bytes);
        let mut unsealed: HashMap<Arc<str>, u64> = HashMap::new();
        for (host, bytes) in unsealed_bytes {
            if let Some(sender) = new_hosts.get(&host) {
                *unsealed.entry(sender.clone()).or_default() += bytes;
            }
        }
        *self = Self { target_bytes: usage.target_bytes, free_bytes, new_hosts, unsealed, ..Self::default() };
    }

    /// Takes the space of rows. `max_unsealed_bytes` is the share of the space for unsealed rows.
    ///
    /// # Errors
    /// Returns the refusal of rows that take more than half of what is left, or more than the share of unsealed
    /// rows for the new hosts of a sender. The first row is always accepted, and small batches.
    pub(super) fn charge(
        &mut self,
        host: HostId,
        bytes: u64,
        rows: usize,
        max_unsealed_bytes: u64,
    ) -> Result<(), ShareExceeded> {
        let left = self.free_bytes.saturating_sub(self.taken_bytes);
        let sender = self.new_hosts.get(&host);
        let unsealed = sender.and_then(|sender| self.unsealed.get(sender)).copied().unwrap_or_default();
        let principal = sender.cloned().map_or(SharePrincipal::Host(host), SharePrincipal::Sender);
        let taken = self.taken.entry(principal).or_default();
        if unsealed > 0 && unsealed + *taken + bytes > max_unsealed_bytes {
            return Err(ShareExceeded::new(&limit_table::HEAD_SHARE, SPACE_RETRY_DELAY));
        }
        let is_small = *taken == 0 && (rows == 1 || bytes <= limits::MIN_SPACE_SHARE_BYTES);
        if self.target_bytes > 0 && *taken + bytes > left / 100 * limits::MAX_SPACE_SHARE_PERCENT && !is_small
        {
            // The space that is left after old data was deleted.
            let usual = self.target_bytes / 100 * (100 - EVICT_ABOVE_PERCENT);
            return Err(if bytes > usual / 100 * limits::MAX_SPACE_SHARE_PERCENT {
                ShareExceeded::batch_too_large(&limit_table::SPACE_SHARE)
            } else {
                ShareExceeded::new(&limit_table::SPACE_SHARE, SPACE_RETRY_DELAY)
            });
        }
        *taken += bytes;
        self.taken_bytes += bytes;
        Ok(())
    }
}

/// Amount that refills at a constant rate.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    capacity: f64,
    per_second: f64,
    /// What the host took and did not get back yet.
    taken: f64,
    updated: Duration,
}

impl Allowance {
    fn new(capacity: f64, per_second: f64) -> Self {
        Self { capacity, per_second, taken: 0.0, updated: Duration::ZERO }
    }

    /// Time until `amount` is available; `None` if it is now. A request for more than the capacity, of a
    /// batch that was spooled for long, is granted when the allowance is full.
    fn wait(&mut self, amount: f64, now: Duration) -> Option<Duration> {
        let elapsed = now.saturating_sub(self.updated).as_secs_f64();
        self.taken = (self.taken - elapsed * self.per_second).max(0.0);
        self.updated = now;
        let missing = amount.min(self.capacity) - (self.capacity - self.taken);
        (missing > 0.0).then(|| Duration::from_secs_f64((missing / self.per_second).max(1.0)))
    }
}

/// Shapes that a host sent, and how many more it may send.
#[derive(Debug)]
pub(super) struct ShapeShare {
    recent: VecDeque<ShapeId>,
    newest: Option<Arc<Shape>>,
    shapes: Allowance,
    bytes: Allowance,
    columns: Allowance,
}

/// Shapes of a batch that are new for the host.
#[derive(Debug, Default)]
pub(super) struct NewShapes {
    ids: Vec<ShapeId>,
    newest: Option<Arc<Shape>>,
    bytes: f64,
    columns: f64,
}

impl NewShapes {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
impl ShapeShare {
    /// Share of a host in a store with this disk budget.
    pub(super) fn new(budget_bytes: u64) -> Self {
        let burst = (budget_bytes / limits::MAX_SHAPE_BURST_DIVISOR)
            .clamp(2 * limits::MAX_SHAPE_BYTES as u64, limits::MAX_NEW_SHAPE_BYTES_BURST);
        let per_hour =
            (budget_bytes / limits::MAX_SHAPE_HOUR_DIVISOR).max(limits::MIN_NEW_SHAPE_BYTES_PER_HOUR) as f64;
        let shapes = limits::MAX_NEW_SHAPES_PER_HOUR as f64;
        let columns = limits::MAX_NEW_COLUMNS_PER_DAY as f64;
        Self {
            recent: VecDeque::new(),
            newest: None,
            shapes: Allowance::new(shapes, shapes / HOUR_S),
            bytes: Allowance::new(burst as f64, per_hour / HOUR_S),
            columns: Allowance::new(columns, columns / DAY_S),
        }
    }

    /// Shapes of the rows that the host did not send lately.
    pub(super) fn new_shapes<'a>(&self, rows: impl Iterator<Item = &'a Arc<Snapshot>>) -> NewShapes {
        let mut new = NewShapes::default();
        let mut known: HashSet<(&str, &str)> = HashSet::new();
        for row in rows {
            let shape = &row.shape;
            if self.recent.contains(&shape.id()) || new.ids.contains(&shape.id()) {
                continue;
            }
            if new.ids.is_empty() {
                known.extend(self.newest.iter().flat_map(|shape| shape.columns()).map(key));
            }
            new.ids.push(shape.id());
            new.bytes += shape_bytes(shape) as f64;
            new.columns += shape.columns().iter().filter(|column| known.insert(key(column))).count() as f64;
            new.newest = Some(shape.clone());
        }
        new
    }

    /// Returns whether the host sent so many new shapes that those in its blocks should be counted.
    pub(super) fn should_count_stored(&self) -> bool {
        self.shapes.taken > self.shapes.capacity / 8.0
    }

    /// Takes the new shapes from the allowances of the host, all or none.
    pub(super) fn charge(&mut self, new: NewShapes, now: Duration) -> Result<(), ShareExceeded> {
        let amounts = [
            (&mut self.shapes, new.ids.len() as f64, &limit_table::NEW_SHAPES),
            (&mut self.bytes, new.bytes, &limit_table::NEW_SHAPE_BYTES),
            (&mut self.columns, new.columns, &limit_table::NEW_COLUMNS),
        ];
        let mut granted = Vec::with_capacity(amounts.len());
        for (allowance, amount, limit) in amounts {
            if let Some(wait) = allowance.wait(amount, now) {
                return Err(ShareExceeded::new(limit, wait));
            }
            granted.push((allowance, amount));
        }
        granted.into_iter().for_each(|(allowance, amount)| allowance.taken += amount);
        self.recent.extend(new.ids);
        while self.recent.len() > MAX_RECENT_SHAPES {
            self.recent.pop_front();
        }
        self.newest = new.newest.or(self.newest.take());
        Ok(())
    }
}

fn key(column: &Column) -> (&str, &str) {
    (&column.metric, &column.instance)
}

/// Approximate encoded size of a shape.
fn shape_bytes(shape: &Shape) -> usize {
    let column = |column: &Column| column.metric.len() + column.dimension.len() + column.instance.len() + 10;
    shape.columns().iter().map(column).sum()
}

/// Approximate size of a row in the head.
pub(super) fn row_bytes(row: &Snapshot) -> u64 {
    let texts: usize = row.errors.iter().map(|error| error.message.len()).sum();
    let process = |row: &ProcessRow| 60 + row.name.len() + row.user.len() + row.command.len();
    let processes: usize = row.processes.iter().map(process).sum();
    (row.values.len() * 3 + processes + texts + 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::BootId;

    /// Share of the space for unsealed rows that is never used up.
    const MAX_UNSEALED: u64 = u64::MAX;

    fn row(first: usize, columns: usize) -> Arc<Snapshot> {
        let column = |n: usize| Column {
            metric: "disk.used".into(),
            dimension: "device".into(),
            instance: format!("d{n}").into(),
            decimals: 0,
        };
        let shape = Arc::new(Shape::new((first..first + columns).map(column).collect()));
        Arc::new(Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms: 0,
            interval_ms: 0,
            values: vec![0; columns],
            shape,
            processes: vec![],
            facts: None,
            errors: vec![],
        })
    }

    /// Takes a row; returns the limit that it exceeds and the wait in seconds.
    fn charge_row(share: &mut ShapeShare, row: &Arc<Snapshot>, at_s: u64) -> Result<(), (&'static str, u64)> {
        let new = share.new_shapes(std::iter::once(row));
        let result = share.charge(new, Duration::from_secs(at_s));
        result.map_err(|exceeded| (exceeded.limit.name, exceeded.retry_after.unwrap().as_secs()))
    }

    /// Finding C1: new shapes were not limited.
    #[test]
    fn new_shapes_of_a_host_are_bounded_and_known_shapes_are_not() {
        let mut share = ShapeShare::new(10 << 30);
        let first = row(0, 2);
        charge_row(&mut share, &first, 0).unwrap();
        for n in 1..limits::MAX_NEW_SHAPES_PER_HOUR {
            charge_row(&mut share, &row(n, 2), 0).unwrap();
        }
        assert_eq!(charge_row(&mut share, &row(1 << 20, 2), 0).unwrap_err().0, "new_shapes");
        // A shape that was sent lately is not new.
        let last = row(limits::MAX_NEW_SHAPES_PER_HOUR - 1, 2);
        assert!(charge_row(&mut share, &last, 0).is_ok());
        let wait = charge_row(&mut share, &row(1 << 20, 2), 0).unwrap_err().1;
        assert!(charge_row(&mut share, &row(1 << 20, 2), wait + 1).is_ok(), "{wait}");
    }

    /// Finding C1: new columns were not limited.
    #[test]
    fn new_columns_of_a_host_are_bounded_per_day() {
        let mut share = ShapeShare::new(100 << 30);
        let mut accepted = 0;
        while charge_row(&mut share, &row(accepted * 8_000, 8_000), 0).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, limits::MAX_NEW_COLUMNS_PER_DAY / 8_000);
        assert_eq!(charge_row(&mut share, &row(1 << 30, 8_000), 0).unwrap_err().0, "new_columns");
        assert!(charge_row(&mut share, &row(1 << 30, 8_000), 86_400).is_ok());
    }

    /// Finding C1: the reported attack, 63 shapes of 8,000 columns on a budget of 64 MB.
    #[test]
    fn new_shape_bytes_of_a_host_follow_the_disk_budget() {
        let mut share = ShapeShare::new(64 << 20);
        let mut bytes = 0;
        for n in 0..63 {
            let row = row(n * 8_000, 8_000);
            if charge_row(&mut share, &row, 3).is_ok() {
                bytes += shape_bytes(&row.shape);
            }
        }
        assert!(bytes < 4 << 20, "{bytes}");
    }

    /// Finding C1: rows between two measurements of the disk usage leave space to other hosts.
    #[test]
    fn rows_of_a_host_take_half_of_the_space_that_is_left() {
        let hosts: Vec<HostId> = (1..=4).map(|n| HostId::from_bytes(&[n; 16]).unwrap()).collect();
        let mut space = SpaceShare::default();
        assert!(space.charge(hosts[0], 1 << 40, 500, MAX_UNSEALED).is_ok(), "not measured yet");
        let usage = DiskUsage { target_bytes: 1_000 << 20, used_bytes: 880 << 20, ..DiskUsage::default() };
        space.measure(usage, std::iter::empty(), HashMap::new());
        for host in &hosts {
            let mut accepted = 0;
            while space.charge(*host, 4 << 20, 100, MAX_UNSEALED).is_ok() {
                accepted += 1;
            }
            assert!(accepted >= 1, "{space:?}");
        }
        let left = space.free_bytes - space.taken_bytes;
        assert!(left > space.free_bytes / 20, "{left}");
        let refused = space.charge(hosts[0], 4 << 20, 100, MAX_UNSEALED).unwrap_err();
        assert!(refused.retry_after.is_some());
        // A batch that never fits must be smaller; a single row is accepted.
        assert!(space.charge(hosts[0], 100 << 20, 100, MAX_UNSEALED).unwrap_err().retry_after.is_none());
        let honest = HostId::from_bytes(&[9; 16]).unwrap();
        assert!(
            space.charge(honest, 200_000, 100, MAX_UNSEALED).is_ok()
                && space.charge(honest, 200_000, 100, MAX_UNSEALED).is_ok()
        );
        let full = DiskUsage { used_bytes: usage.target_bytes, ..usage };
        space.measure(full, std::iter::empty(), HashMap::new());
        assert!(
            space.charge(hosts[0], 100 << 20, 1, MAX_UNSEALED).is_ok()
                && space.charge(hosts[0], 1, 1, MAX_UNSEALED).is_err()
        );
    }

    /// Sibling of finding C1: invented hosts took the space of many.
    #[test]
    fn rows_of_new_hosts_of_a_sender_take_the_space_of_one_host() {
        let hosts: Vec<HostId> = (1..=100).map(|n| HostId::from_bytes(&[n; 16]).unwrap()).collect();
        let (new, other) = hosts.split_at(99);
        let new_hosts: HashMap<HostId, Arc<str>> = new.iter().map(|host| (*host, "token 1".into())).collect();
        let mut space = SpaceShare::default();
        let usage = DiskUsage { target_bytes: 1_000 << 20, used_bytes: 880 << 20, ..DiskUsage::default() };
        let unsealed = new.iter().map(|host| (*host, 1 << 20));
        space.measure(usage, unsealed, new_hosts.clone());
        let accepted =
            new.iter().filter(|host| space.charge(**host, 1 << 20, 9, MAX_UNSEALED).is_ok()).count();
        assert!((30..=60).contains(&accepted), "{accepted}");
        assert!(space.charge(other[0], 4 << 20, 100, MAX_UNSEALED).is_ok());
        // The space for unsealed rows.
        space.measure(usage, new.iter().map(|host| (*host, 1 << 20)), new_hosts);
        let refused = space.charge(new[0], 1 << 20, 9, 99 << 20).unwrap_err();
        assert_eq!(refused.limit.name, "head_share");
        assert!(space.charge(other[0], 4 << 20, 100, 99 << 20).is_ok());
    }

    #[test]
    fn honest_hosts_stay_within_their_share() {
        // The largest host of the specification: one interface of 2,000 changes every five seconds.
        let mut share = ShapeShare::new(10 << 30);
        let mut at_s = 0;
        for n in 0..700 {
            let columns = row(n, 8_192);
            charge_row(&mut share, &columns, at_s).unwrap_or_else(|error| panic!("{n}: {error:?}"));
            at_s += 5;
        }
    }
}
