//! Caches that make repeated collector runs cheaper.

use crate::linux::disk_topology::DiskTopology;
use crate::reading::RawProcess;
use std::collections::HashMap;

/// State that a collector retains between runs. It affects cost only: with an empty cache, a
/// collector produces the same samples. What changes rarely is read again after
/// [`MAX_CACHED_RUNS`] runs at the latest.
#[derive(Default)]
pub struct CollectorCache {
    pub(crate) processes: ProcessCache,
    /// Interfaces of the network totals.
    pub(crate) interfaces: NamedCache<Vec<bool>>,
    pub(crate) disks: NamedCache<DiskTopology>,
}

/// Number of runs after which cached properties of interfaces, disks and the boot time are read again;
/// a minute at the default interval.
pub(crate) const MAX_CACHED_RUNS: u32 = 30;

/// Properties of a list of names, valid while the list stays the same.
#[derive(Default)]
pub(crate) struct NamedCache<T> {
    names: Vec<String>,
    runs: u32,
    value: Option<T>,
}

impl<T> NamedCache<T> {
    /// Returns the cached properties, or those that `read` returns if the names changed or the cached ones
    /// are old.
    pub(crate) fn get(&mut self, names: &[&str], read: impl FnOnce() -> T) -> &T {
        self.runs += 1;
        if self.runs > MAX_CACHED_RUNS || !self.names.iter().eq(names.iter()) {
            self.value = None;
        }
        if self.value.is_none() {
            self.runs = 0;
            self.names = names.iter().map(|&name| name.to_owned()).collect();
        }
        self.value.get_or_insert_with(read)
    }
}

/// Processes of the previous run, user names and boot time.
#[derive(Default)]
pub(crate) struct ProcessCache {
    /// Processes of the previous run, sorted by pid.
    pub(crate) processes: Vec<CachedProcess>,
    pub(crate) users: UserNames,
    /// Number of runs.
    pub(crate) runs: u32,
    /// Boot time, milliseconds since 1970.
    pub(crate) boot_ms: Option<i64>,
}

/// User names by user id.
#[derive(Default)]
pub(crate) struct UserNames {
    pub(crate) names: HashMap<u32, String>,
    /// True if the names were read in this run.
    pub(crate) is_fresh: bool,
}

/// Process as of the previous run.
pub(crate) struct CachedProcess {
    pub(crate) process: RawProcess,
    /// Scheduler counters of a process with a single thread, read before the process.
    pub(crate) scheduling: Option<Scheduling>,
}

/// Scheduler counters of a thread, from `/proc/PID/schedstat`. They change whenever the thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheduling {
    pub(crate) run_ns: u64,
    pub(crate) wait_ns: u64,
    /// Number of times that the thread was put on a CPU.
    pub(crate) slices: u64,
}
