//! Runs of background tasks: when each ran last, how long it took, when it is due again, and its last error.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Last run of a background task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRun {
    /// End of the run, Unix milliseconds.
    pub ended_ms: i64,
    /// Duration of the run.
    pub took: Duration,
    /// Pause until the next run; `None` if events start it.
    pub interval: Option<Duration>,
    /// Number of runs since the start of the hub.
    pub runs: u64,
    /// Number of failed runs since the start of the hub.
    pub failures: u64,
    /// Error of the last run, if it failed.
    pub error: Option<String>,
}

/// Last runs of all tasks, by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TaskRuns(Arc<Mutex<BTreeMap<&'static str, TaskRun>>>);

impl TaskRuns {
    /// Records a run that ended now.
    pub fn record(
        &self,
        name: &'static str,
        interval: Option<Duration>,
        (ended_ms, took): (i64, Duration),
        error: Option<String>,
    ) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (runs, failures) = tasks.get(name).map_or((0, 0), |run| (run.runs, run.failures));
        let failures = failures + u64::from(error.is_some());
        tasks.insert(name, TaskRun { ended_ms, took, interval, runs: runs + 1, failures, error });
    }

    /// Lists the last run of each task, sorted by name.
    pub fn list(&self) -> Vec<(&'static str, TaskRun)> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().map(|(name, run)| (*name, run.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_run_and_failures_are_listed() {
        let (tasks, took) = (TaskRuns::default(), Duration::from_millis(3));
        let interval = Some(Duration::from_secs(5));
        tasks.record("seal", interval, (1_000, took), Some("disk full".to_owned()));
        tasks.record("seal", interval, (6_000, took), None);
        let (name, run) = tasks.list().remove(0);
        assert_eq!((name, run.runs, run.failures, run.ended_ms), ("seal", 2, 1, 6_000));
        assert_eq!(run.error, None);
    }
}
