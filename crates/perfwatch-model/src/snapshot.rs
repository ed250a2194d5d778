//! What one host was at one moment.

use crate::{BootId, HostId, MISSING, Shape};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Who a snapshot is from, as the sender says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostRef {
    /// The sender's lasting identity; scripts that post JSON may leave it to the hub.
    pub id: Option<HostId>,
    /// What people call it.
    pub name: String,
}

/// All numbers of one host at one moment, and the processes that mattered most.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Which run of the kernel.
    pub boot: BootId,
    /// Counts the ticks of that run. `(host, boot, seq)` names a snapshot for ever.
    pub seq: u64,
    /// When it was taken, milliseconds since 1970 by the host's own clock.
    pub at_ms: i64,
    /// The time it stands for, milliseconds.
    pub interval_ms: u32,
    /// What the values are.
    pub shape: Arc<Shape>,
    /// One scaled integer a column, or [`MISSING`].
    pub values: Vec<i64>,
    /// The largest processes by CPU, memory and I/O.
    pub processes: Vec<ProcessRow>,
    /// What changes rarely; only in the first snapshot of a run and when it changed.
    pub facts: Option<Arc<HostFacts>>,
    /// Collectors that could not read their part.
    pub errors: Vec<CollectorError>,
}

impl Snapshot {
    /// The scaled value of a metric without instances, or of one instance.
    pub fn value(&self, metric: &str, instance: &str) -> Option<f64> {
        let index = self.shape.column_index(metric, instance)?;
        crate::unscale(*self.values.get(index)?, self.shape.columns()[index].decimals)
    }

    /// How many samples are really there.
    pub fn sample_count(&self) -> usize {
        self.values.iter().filter(|&&value| value != MISSING).count()
    }
}

/// One process at one moment. Its texts are shared with those of the moments before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRow {
    /// Process id.
    pub pid: u32,
    /// The kernel's short name (`comm`, proc_pid_comm(5)).
    pub name: Arc<str>,
    /// Owner, by name where the host can tell it, else the number.
    pub user: Arc<str>,
    /// Command line with secrets masked; empty for kernel threads.
    pub command: Arc<str>,
    /// `R`, `S`, `D`, `Z`, `T`, `I`…, as in proc_pid_stat(5).
    pub state: char,
    /// Tenths of a percent of one core.
    pub cpu_tenths: u32,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u32,
    /// Open file descriptors, where the agent may see them.
    pub open_files: Option<u32>,
    /// Bytes a second read from storage, where the agent may see them.
    pub read_bytes: Option<u64>,
    /// Bytes a second written to storage, where the agent may see them.
    pub write_bytes: Option<u64>,
    /// When it started, milliseconds since 1970; with the pid, this names it.
    pub started_ms: i64,
}

/// A collector that could not read its part at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorError {
    /// Which one.
    pub collector: String,
    /// Why, for a person.
    pub message: String,
}

/// What changes rarely about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// Distribution and version (`PRETTY_NAME` of os-release(5)).
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
    /// Processor's own name.
    pub cpu_model: String,
    /// Logical processors.
    pub cores: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// When the kernel started, milliseconds since 1970.
    pub boot_time_ms: i64,
    /// Version of the agent that looked.
    pub agent_version: String,
}
