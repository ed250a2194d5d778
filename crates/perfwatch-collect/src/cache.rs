//! Caches that make repeated collector runs cheaper.

use crate::reading::ProcessDetail;
use std::collections::HashMap;
use std::sync::Arc;

/// State that a collector retains between runs. It affects cost only: with an empty cache, a
/// collector produces the same samples.
#[derive(Default)]
pub struct CollectorCache {
    pub(crate) processes: ProcessCache,
}

/// Processes of the previous run, user names and boot time.
#[derive(Default)]
pub(crate) struct ProcessCache {
    /// Processes of the previous run by pid.
    pub(crate) processes: HashMap<u32, CachedProcess>,
    /// User names by user id.
    pub(crate) users: HashMap<u32, String>,
    /// Boot time, milliseconds since 1970.
    pub(crate) boot_ms: Option<i64>,
}

/// Process as of the previous run.
pub(crate) struct CachedProcess {
    pub(crate) start_ticks: u64,
    pub(crate) cpu_ticks: u64,
    pub(crate) name: Arc<str>,
    pub(crate) detail: Option<Arc<ProcessDetail>>,
    /// Bytes read from and written to storage.
    pub(crate) io: Option<(u64, u64)>,
}
