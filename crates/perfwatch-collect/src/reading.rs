//! Raw counters of a moment, before rates are derived.

use crate::CollectError;
use perfwatch_model::{BootId, HostFacts, MetricDef};
use std::sync::Arc;
use std::time::Duration;

/// Raw kernel value from which a sample is derived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw {
    /// Current value, used unchanged.
    Gauge(f64),
    /// Monotonic counter; decreases only at a reset.
    Counter(u64),
    /// Two counters; the sample is the increase of the first divided by that of the second.
    Ratio {
        /// Divided counter, for example busy time.
        numerator: u64,
        /// Dividing counter, for example total time.
        denominator: u64,
        /// Increase per second of the dividing counter at most, `u64::MAX` if unknown. A larger increase
        /// is a jump of the counter, not a measurement.
        max_rate: u64,
    },
}

/// Raw value of a metric and instance.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSample {
    /// Metric definition in the collector's table.
    pub metric: &'static MetricDef,
    /// Instance of the metric, or `""`.
    pub instance: Arc<str>,
    /// Value, counter or pair of counters.
    pub raw: Raw,
}

/// Process as read from `/proc/PID`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawProcess {
    /// Process id (PID) on the host.
    pub pid: u32,
    /// Process id of the parent; `None` for the first process and for the parent of kernel threads.
    pub parent_pid: Option<u32>,
    /// Short name assigned by the kernel.
    pub name: Arc<str>,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// User and system time in clock ticks (1/100 s).
    pub cpu_ticks: u64,
    /// Number of threads, the main thread included.
    pub threads: u32,
    /// Start time in clock ticks since boot; identifies the process together with the pid.
    pub start_ticks: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Start time, milliseconds since 1970.
    pub started_ms: i64,
    /// Owner and command line; read only for candidates of the top processes.
    pub detail: Option<Arc<ProcessDetail>>,
    /// Number of open file descriptors; `None` without permission.
    pub open_files: Option<u32>,
    /// Bytes read from and written to storage since the start; `None` without permission.
    pub io: Option<(u64, u64)>,
}

/// Properties that do not change while a process runs the same program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessDetail {
    /// User name or numeric id of the owner.
    pub user: Arc<str>,
    /// Command line with secrets masked.
    pub command: Arc<str>,
}

/// Result of a collector run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Raw values in the order of the table.
    pub samples: Vec<RawSample>,
    /// All processes, sorted by pid; set by the `processes` collector only.
    pub processes: Vec<RawProcess>,
    /// Host facts; set by the `facts` collector only.
    pub facts: Option<HostFacts>,
    /// Failures that did not affect the other samples.
    pub errors: Vec<String>,
}

/// Run of a collector as part of a reading.
#[derive(Debug, Clone)]
pub struct PartReading {
    /// Name of the collector.
    pub collector: &'static str,
    /// Start of the run on the reader's monotonic clock.
    pub started_at: Duration,
    /// Duration of the run.
    pub duration: Duration,
    /// Samples, or the failure; the same `Arc` as in the previous reading if no run was due.
    pub result: Result<Arc<Part>, CollectError>,
}

/// Raw values of all collectors at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Boot that the counters belong to; counters of different boots are never compared.
    pub boot: BootId,
    /// Wall time, milliseconds since 1970.
    pub wall_ms: i64,
    /// Time on the reader's monotonic clock.
    pub monotonic: Duration,
    /// Collector runs, in the order of the registry.
    pub parts: Vec<PartReading>,
}
