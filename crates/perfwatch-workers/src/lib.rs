//! Worker pool for untrusted computation: parsing and rendering of what users and hosts send.
//!
//! Serving threads must not compute for long, because every other request waits for them. The pool has
//! its own threads with a fixed stack, a queue with a share per principal, and a time limit per job. A
//! thread whose job exceeds its limit is replaced, up to a bound.

mod kind;
mod metrics;
mod pool;
mod state;
#[cfg(test)]
mod tests;

pub use kind::{WorkKind, WorkLimits};
pub use metrics::WorkerMetrics;
pub use pool::{PoolConfig, WorkRequest, WorkerPool};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Reason why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The input exceeds the limit of its kind; the value is the limit in bytes.
    #[error("input exceeds {0} bytes")]
    InputTooLarge(usize),
    /// The principal has as many jobs as its share allows.
    #[error("too many jobs of this kind of work are running for you; retry")]
    ShareExceeded,
    /// The queue of all principals is full, or no worker was free in time.
    #[error("the hub is busy; retry")]
    QueueFull,
    /// The job exceeded its time limit.
    #[error("not finished within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The job panicked, or the pool was closed.
    #[error("processing failed; please report this")]
    Failed,
}

impl WorkError {
    /// Returns whether a later attempt with the same input may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::ShareExceeded | Self::QueueFull)
    }
}

/// Flag that asks a running job to end: its caller is gone or its time is over.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Returns whether the result of the job is not needed any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
