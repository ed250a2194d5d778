//! Newest values of a host, extracted from its snapshot.

use perfwatch_model::{ProcessRow, SeriesSelector, Shape, ShapeId, Snapshot, unscale};
use perfwatch_rules::builtin_rules::REAL_MOUNTS;
use perfwatch_rules::condition::instance_matches;
use std::collections::HashMap;
use std::sync::Arc;

/// Filesystems of a host whose filling is forecast: those with the highest usage.
pub(crate) const MAX_FORECAST_MOUNTS: usize = 3;
/// Processes of a host that compete for the lists of the fleet.
const MAX_HOST_PROCESSES: usize = 5;

/// Metrics without instances, in the order of [`ShapeIndex::metrics`].
const METRICS: [&str; 13] = [
    "cpu.usage",
    "memory.used_percent",
    "memory.used",
    "memory.total",
    "network.total.rx_bytes",
    "network.total.tx_bytes",
    "disk.total.read_bytes",
    "disk.total.write_bytes",
    "load.1m",
    "pressure.cpu.some",
    "pressure.memory.some",
    "pressure.io.some",
    "system.uptime",
];

/// Metrics of filesystems: used percent, used bytes and size.
const MOUNT_METRICS: [&str; 3] = ["filesystem.used_percent", "filesystem.used", "filesystem.size"];

/// Selectors of the series that the values of a host consist of.
pub(crate) fn selectors() -> Vec<SeriesSelector> {
    METRICS.iter().chain(&MOUNT_METRICS).map(|metric| SeriesSelector::parse(metric)).collect()
}

/// Position and decimals of a column; `None` if the shape does not have it.
type ColumnPlace = Option<(usize, u8)>;

/// Columns of a shape that the overview reads. Hosts with equal shapes share one index.
pub(crate) struct ShapeIndex {
    metrics: [ColumnPlace; METRICS.len()],
    /// Used percent, used bytes and size of each mount.
    mounts: Vec<(Arc<str>, [ColumnPlace; 3])>,
}

impl ShapeIndex {
    fn new(shape: &Shape) -> Self {
        let mut index = Self { metrics: [None; METRICS.len()], mounts: Vec::new() };
        let mut mounts: HashMap<Arc<str>, usize> = HashMap::new();
        for (position, column) in shape.columns().iter().enumerate() {
            let metric: &str = &column.metric;
            if let Some(wanted) = METRICS.iter().position(|name| *name == metric) {
                index.metrics[wanted] = Some((position, column.decimals));
                continue;
            }
            let Some(part) = MOUNT_METRICS.iter().position(|name| *name == metric) else { continue };
            let mount: Arc<str> = (*column.instance).into();
            if !instance_matches(Some(REAL_MOUNTS), &mount) {
                continue;
            }
            let slot = *mounts.entry(mount.clone()).or_insert_with(|| {
                index.mounts.push((mount, [None; 3]));
                index.mounts.len() - 1
            });
            index.mounts[slot].1[part] = Some((position, column.decimals));
        }
        index
    }
}

/// Indices of the shapes in use.
#[derive(Default)]
pub(crate) struct ShapeIndices(HashMap<ShapeId, Arc<ShapeIndex>>);

impl ShapeIndices {
    pub(crate) fn get(&mut self, shape: &Shape) -> Arc<ShapeIndex> {
        self.0.entry(shape.id()).or_insert_with(|| Arc::new(ShapeIndex::new(shape))).clone()
    }

    /// Removes the indices of shapes that no host uses.
    pub(crate) fn retain(&mut self, is_used: impl Fn(&ShapeId) -> bool) {
        self.0.retain(|id, _| is_used(id));
    }
}

/// Used share of a filesystem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountUsage {
    pub(crate) mount: Arc<str>,
    pub(crate) percent: f64,
}

/// Newest values of a host. Missing values are `None`, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HostValues {
    pub(crate) at_ms: i64,
    pub(crate) cpu: Option<f64>,
    pub(crate) memory: Option<f64>,
    pub(crate) memory_used: Option<f64>,
    pub(crate) memory_total: Option<f64>,
    pub(crate) rx: Option<f64>,
    pub(crate) tx: Option<f64>,
    pub(crate) disk_read: Option<f64>,
    pub(crate) disk_write: Option<f64>,
    pub(crate) load: Option<f64>,
    /// Highest of the pressures of CPU, memory and I/O in percent.
    pub(crate) pressure: Option<f64>,
    pub(crate) uptime_s: Option<f64>,
    /// Filesystems with the highest usage, fullest first.
    pub(crate) mounts: Vec<MountUsage>,
    pub(crate) storage_used: f64,
    pub(crate) storage_size: f64,
    /// Largest processes by CPU, memory and disk; each list is short.
    pub(crate) processes: [Vec<ProcessRow>; 3],
}

/// Bytes per second that a process reads and writes.
pub(crate) fn process_io(process: &ProcessRow) -> u64 {
    process.read_bytes.unwrap_or(0).saturating_add(process.write_bytes.unwrap_or(0))
}

fn largest(processes: &[ProcessRow], value: impl Fn(&ProcessRow) -> u64) -> Vec<ProcessRow> {
    let mut sorted: Vec<&ProcessRow> = processes.iter().filter(|process| value(process) > 0).collect();
    sorted.sort_by_key(|process| std::cmp::Reverse(value(process)));
    sorted.into_iter().take(MAX_HOST_PROCESSES).cloned().collect()
}

/// Largest processes of a snapshot by CPU, memory and disk.
pub(crate) fn largest_processes(processes: &[ProcessRow]) -> [Vec<ProcessRow>; 3] {
    [
        largest(processes, |process| u64::from(process.cpu_tenths)),
        largest(processes, |process| process.memory_bytes),
        largest(processes, process_io),
    ]
}

impl HostValues {
    /// Extracts the values of a snapshot.
    pub(crate) fn new(snapshot: &Snapshot, index: &ShapeIndex) -> Self {
        let at = |place: ColumnPlace| {
            let (position, decimals) = place?;
            unscale(*snapshot.values.get(position)?, decimals)
        };
        let [cpu, memory, memory_used, memory_total, rx, tx, disk_read, disk_write, load, ..] =
            index.metrics.map(at);
        let pressures = index.metrics[9..12].iter().filter_map(|place| at(*place));
        let mut mounts: Vec<MountUsage> = Vec::new();
        let (mut storage_used, mut storage_size) = (0.0, 0.0);
        for (mount, [percent, used, size]) in &index.mounts {
            storage_used += at(*used).unwrap_or(0.0);
            storage_size += at(*size).unwrap_or(0.0);
            mounts.extend(at(*percent).map(|percent| MountUsage { mount: mount.clone(), percent }));
        }
        mounts.sort_by(|a, b| b.percent.total_cmp(&a.percent));
        mounts.truncate(MAX_FORECAST_MOUNTS);
        Self {
            at_ms: snapshot.at_ms,
            cpu,
            memory,
            memory_used,
            memory_total,
            rx,
            tx,
            disk_read,
            disk_write,
            load,
            pressure: pressures.max_by(f64::total_cmp),
            uptime_s: at(index.metrics[12]),
            mounts,
            storage_used,
            storage_size,
            processes: largest_processes(&snapshot.processes),
        }
    }
}

/// CPU usage and received bytes of a snapshot, for the recent course of a host.
pub(crate) fn recent_values(snapshot: &Snapshot, index: &ShapeIndex) -> (Option<f64>, Option<f64>) {
    let at = |place: ColumnPlace| {
        let (position, decimals) = place?;
        unscale(*snapshot.values.get(position)?, decimals)
    };
    (at(index.metrics[0]), at(index.metrics[4]))
}
