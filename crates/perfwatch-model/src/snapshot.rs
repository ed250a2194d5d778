//! A snapshot: all samples of a host at one moment.

use crate::{BootId, HostId, MISSING, Shape};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Host of a snapshot as claimed by its sender.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostRef {
    /// Stable identifier of the sender; JSON scripts may omit it, then the hub assigns one.
    pub id: Option<HostId>,
    /// Display name, usually the hostname.
    pub name: String,
}

/// All samples of a host at one moment, with its top processes, facts and collector errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Boot that the counters belong to.
    pub boot: BootId,
    /// Tick number within the boot. `(host, boot, seq)` identifies a snapshot permanently.
    pub seq: u64,
    /// Collection time by the host's own clock, milliseconds since 1970.
    pub at_ms: i64,
    /// Time span that the snapshot covers, milliseconds.
    pub interval_ms: u32,
    /// Schema of the values.
    pub shape: Arc<Shape>,
    /// One scaled integer per column, or [`MISSING`].
    pub values: Vec<i64>,
    /// Top processes by CPU, memory and I/O.
    pub processes: Vec<ProcessRow>,
    /// Host facts; present in the first snapshot of a run and after a change.
    pub facts: Option<Arc<HostFacts>>,
    /// Collectors that failed, completely or in part.
    pub errors: Vec<CollectorError>,
}

impl Snapshot {
    /// Unscaled value of a metric and instance (`""` for none); `None` if absent or missing.
    pub fn value(&self, metric: &str, instance: &str) -> Option<f64> {
        let index = self.shape.column_index(metric, instance)?;
        crate::unscale(*self.values.get(index)?, self.shape.columns()[index].decimals)
    }

    /// Number of values that are not missing.
    pub fn sample_count(&self) -> usize {
        self.values.iter().filter(|&&value| value != MISSING).count()
    }
}

/// One process at one moment. Its texts are shared with earlier snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRow {
    /// Process id (PID) on the host.
    pub pid: u32,
    /// Process id of the parent; `None` without a parent, and if an earlier agent recorded the process.
    pub parent_pid: Option<u32>,
    /// Short name assigned by the kernel (`comm`, proc_pid_comm(5)).
    pub name: Arc<str>,
    /// Owner's name, or the numeric user id if the name is unknown.
    pub user: Arc<str>,
    /// Command line with secrets masked; empty for kernel threads.
    pub command: Arc<str>,
    /// State letter of proc_pid_stat(5): `R`, `S`, `D`, `Z`, `T`, `I`, …
    pub state: char,
    /// CPU usage in tenths of a percent of a core.
    pub cpu_tenths: u32,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Number of threads, the main thread included.
    pub threads: u32,
    /// Number of open file descriptors; `None` without permission.
    pub open_files: Option<u32>,
    /// Bytes per second read from storage; `None` without permission.
    pub read_bytes: Option<u64>,
    /// Bytes per second written to storage; `None` without permission.
    pub write_bytes: Option<u64>,
    /// Start time, milliseconds since 1970; identifies the process together with the pid.
    pub started_ms: i64,
}

/// Failure of a collector, or of a part of it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorError {
    /// Name of the collector.
    pub collector: String,
    /// Human-readable reason of the failure.
    pub message: String,
}

/// Properties of a host that change rarely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// Distribution and version (`PRETTY_NAME` of os-release(5)).
    pub os: String,
    /// Kernel release, as in `uname -r`.
    pub kernel: String,
    /// Machine architecture, for example `x86_64`.
    pub arch: String,
    /// Model name of the processor.
    pub cpu_model: String,
    /// Number of logical processors.
    pub cores: u32,
    /// Total memory in bytes.
    pub memory_bytes: u64,
    /// Boot time of the kernel, milliseconds since 1970.
    pub boot_time_ms: i64,
    /// Version of the agent, or of the hub for agentless hosts.
    pub agent_version: String,
}
