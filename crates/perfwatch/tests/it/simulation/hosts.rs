//! Fake hosts with an agent: they take snapshots with made-up values, spool them, and send them in order.

use perfwatch_live::sender_clock::SenderClock;
use perfwatch_model::{BootId, Column, HostFacts, HostId, HostRef, MISSING, Shape, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use uuid::Uuid;

/// Number of snapshots that a host sends together, at most.
const MAX_BATCH_ROWS: usize = 200;
/// Number of snapshots that a host spools; it stops taking snapshots then.
const MAX_SPOOLED_ROWS: usize = 1_000;

/// Level of a value: well below the clear threshold, or above the threshold of its rule.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    is_high: bool,
}

impl Load {
    /// Changes the level now and then, and returns a value in tenths of a percent.
    fn next_value(&mut self, is_idle: bool, rng: &mut fastrand::Rng) -> i64 {
        if rng.u32(..40) == 0 {
            self.is_high = !self.is_high;
        }
        self.is_high &= !is_idle;
        match (self.is_high, rng.u32(..30)) {
            (_, 0) => MISSING,
            // Between the thresholds.
            (_, 1) if !is_idle => 930,
            (true, _) => rng.i64(960..=1_000),
            (false, _) => rng.i64(0..700),
        }
    }
}

/// Host with its agent.
pub(super) struct FakeHost {
    pub(super) id: HostId,
    name: String,
    boot: BootId,
    boot_count: u64,
    seq: u64,
    pub(super) interval_ms: i64,
    /// Clock of the host minus clock of the hub.
    clock_offset_ms: i64,
    /// Time of the next snapshot, clock of the hub.
    next_ms: i64,
    pub(super) is_running: bool,
    /// False while the hub cannot be reached.
    pub(super) is_connected: bool,
    /// True while the second file system is mounted.
    pub(super) has_second_mount: bool,
    /// True while all values are low.
    pub(super) is_idle: bool,
    cpu: Load,
    memory: Load,
    mounts: [Load; 2],
    shapes: [Arc<Shape>; 2],
    /// Snapshots without an acknowledgment, oldest first.
    pub(super) spool: VecDeque<Snapshot>,
}

/// Columns of a host with one or two file systems. Values have one decimal.
fn shape(mounts: &[&'static str]) -> Arc<Shape> {
    let column = |metric: &'static str, dimension: &'static str, instance: &'static str| Column {
        metric: metric.into(),
        dimension: dimension.into(),
        instance: instance.into(),
        decimals: 1,
    };
    let mut columns = vec![column("cpu.usage", "", ""), column("memory.used_percent", "", "")];
    columns.extend(mounts.iter().map(|mount| column("filesystem.used_percent", "mount", mount)));
    Arc::new(Shape::new(columns))
}

impl FakeHost {
    pub(super) fn new(number: u64, now_ms: i64, rng: &mut fastrand::Rng) -> Self {
        let mut host = Self {
            id: HostId(Uuid::from_u64_pair(7, number + 1)),
            name: format!("host-{number}"),
            boot: BootId::default(),
            boot_count: 0,
            seq: 0,
            interval_ms: [5_000, 10_000, 20_000, 60_000][rng.usize(..4)],
            clock_offset_ms: 0,
            next_ms: now_ms,
            is_running: true,
            is_connected: true,
            has_second_mount: rng.bool(),
            is_idle: false,
            cpu: Load::default(),
            memory: Load::default(),
            mounts: [Load::default(); 2],
            shapes: [shape(&["/"]), shape(&["/", "/srv"])],
            spool: VecDeque::new(),
        };
        host.reboot(now_ms);
        host
    }

    pub(super) fn reference(&self) -> HostRef {
        HostRef { id: Some(self.id), name: self.name.clone() }
    }

    /// Starts again: a new boot, whose sequence numbers start at zero. The spool survives.
    pub(super) fn reboot(&mut self, now_ms: i64) {
        self.boot_count += 1;
        self.boot = BootId(Uuid::from_u64_pair(self.id.0.as_u64_pair().1, self.boot_count));
        self.seq = 0;
        self.start(now_ms);
    }

    /// Takes snapshots from now on.
    pub(super) fn start(&mut self, now_ms: i64) {
        self.is_running = true;
        self.next_ms = now_ms + self.interval_ms;
    }

    /// Sets the clock of the host.
    pub(super) fn step_clock(&mut self, rng: &mut fastrand::Rng) {
        // Offsets differ by more than the jitter up to which the hub keeps its correction.
        self.clock_offset_ms =
            [0, rng.i64(-2_880..2_880) * 10_000, rng.i64(-30..30) * 10_000][rng.usize(..3)];
    }

    /// Takes the snapshots that are due.
    pub(super) fn collect(&mut self, now_ms: i64, rng: &mut fastrand::Rng) {
        while self.is_running && self.next_ms <= now_ms {
            if self.spool.len() >= MAX_SPOOLED_ROWS {
                self.next_ms = now_ms;
                return;
            }
            let snapshot = self.next_snapshot(rng);
            self.spool.push_back(snapshot);
            self.next_ms += self.interval_ms;
        }
    }

    fn next_snapshot(&mut self, rng: &mut fastrand::Rng) -> Snapshot {
        let is_idle = self.is_idle;
        let mut values = vec![self.cpu.next_value(is_idle, rng), self.memory.next_value(is_idle, rng)];
        let mounts = &mut self.mounts[..1 + usize::from(self.has_second_mount)];
        values.extend(mounts.iter_mut().map(|mount| mount.next_value(is_idle, rng)));
        self.seq += 1;
        Snapshot {
            boot: self.boot,
            seq: self.seq - 1,
            at_ms: self.next_ms + self.clock_offset_ms,
            interval_ms: u32::try_from(self.interval_ms).unwrap(),
            shape: self.shapes[usize::from(self.has_second_mount)].clone(),
            values,
            processes: Vec::new(),
            facts: (self.seq == 1).then(|| Arc::new(HostFacts::default())),
            errors: Vec::new(),
        }
    }

    /// Oldest snapshots of the spool.
    pub(super) fn next_batch(&self) -> Vec<Snapshot> {
        self.spool.iter().take(MAX_BATCH_ROWS).cloned().collect()
    }

    /// Offset of the clock, as the agent states it with each request.
    pub(super) fn stated_skew_ms(&self) -> i64 {
        self.clock_offset_ms
    }

    /// Snapshots as the hub stores them: with the times of its clock.
    pub(super) fn corrected(&self, mut batch: Vec<Snapshot>, now_ms: i64) -> Vec<Arc<Snapshot>> {
        let mut times: Vec<&mut i64> = batch.iter_mut().map(|snapshot| &mut snapshot.at_ms).collect();
        SenderClock::default().correct(&mut times, Some(self.clock_offset_ms), now_ms);
        batch.into_iter().map(Arc::new).collect()
    }
}
