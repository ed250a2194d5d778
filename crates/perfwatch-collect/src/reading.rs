//! A reading: the raw numbers of one moment, before anything is subtracted.

use crate::CollectError;
use perfwatch_model::{BootId, HostFacts, MetricDef};
use std::sync::Arc;
use std::time::Duration;

/// What the kernel said, not yet a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw {
    /// Taken as it is.
    Gauge(f64),
    /// Only ever grows, but for resets.
    Counter(u64),
    /// Two counters; the sample is the growth of the first over that of the second.
    Ratio {
        /// For example busy time.
        numerator: u64,
        /// For example all time.
        denominator: u64,
    },
}

/// One raw number of one metric and instance.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSample {
    /// The line of the collector's table.
    pub metric: &'static MetricDef,
    /// Which one, or `""`.
    pub instance: Arc<str>,
    /// The number.
    pub raw: Raw,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawProcess {
    /// Process id.
    pub pid: u32,
    /// Kernel's short name.
    pub name: Arc<str>,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// User + system time in clock ticks (1/100 s).
    pub cpu_ticks: u64,
    /// Threads.
    pub threads: u32,
    /// Start in clock ticks since boot; with the pid it names the process.
    pub start_ticks: u64,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Start, milliseconds since 1970.
    pub started_ms: i64,
    /// Owner and command line, read for processes that may be shown.
    pub detail: Option<Arc<ProcessDetail>>,
    /// Open file descriptors, where they may be counted.
    pub handles: Option<u32>,
    /// Bytes read from and written to storage so far, where they may be seen.
    pub io: Option<(u64, u64)>,
}

/// What doesn't change while a process runs the same program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessDetail {
    /// Owner.
    pub user: Arc<str>,
    /// Command line, secrets masked.
    pub command: Arc<str>,
}

/// What one collector read at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Raw numbers.
    pub samples: Vec<RawSample>,
    /// All processes, by pid; only from the collector of that name.
    pub processes: Vec<RawProcess>,
    /// Only from the collector of that name.
    pub facts: Option<HostFacts>,
    /// What could not be read though the rest could.
    pub errors: Vec<String>,
}

/// One collector's part of a reading.
#[derive(Debug, Clone)]
pub struct PartReading {
    /// Which collector.
    pub collector: &'static str,
    /// When it began, on the reader's monotonic clock.
    pub started_at: Duration,
    /// How long it took.
    pub duration: Duration,
    /// What it read; the same `Arc` as before where it was not due.
    pub result: Result<Arc<Part>, CollectError>,
}

/// All collectors at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which run of the kernel; counters of two runs are never compared.
    pub boot: BootId,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// The reader's monotonic clock.
    pub monotonic: Duration,
    /// In the registry's order.
    pub parts: Vec<PartReading>,
}
