//! Queue and running jobs of the pool, without threads: which job runs next, and which are over time.

use crate::kind::WorkKind;
use crate::{Cancellation, WorkError};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Bounds of the queue and the threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Number of threads that are not stuck.
    pub(crate) threads: usize,
    /// Maximum number of threads that replace stuck threads.
    pub(crate) max_replacements: usize,
    pub(crate) max_queued: usize,
    pub(crate) max_queued_per_principal: usize,
    /// Maximum number of jobs of a principal that run at the same time.
    pub(crate) max_running_per_principal: usize,
    pub(crate) max_queue_time: Duration,
}

/// Job that waits for a thread.
pub(crate) struct Job {
    pub(crate) kind: WorkKind,
    pub(crate) cancellation: Cancellation,
    pub(crate) queued_at: Duration,
    pub(crate) run: Box<dyn FnOnce(&Cancellation) + Send>,
    pub(crate) fail: Box<dyn FnOnce(WorkError) + Send>,
}

/// Job on a thread.
struct RunningJob {
    principal: String,
    kind: WorkKind,
    cancellation: Cancellation,
    started_at: Duration,
    /// Reports the timeout to the caller; `None` after it.
    fail: Option<Box<dyn FnOnce(WorkError) + Send>>,
}

/// Job that a thread has to run.
pub(crate) struct StartedJob {
    pub(crate) id: u64,
    pub(crate) cancellation: Cancellation,
    pub(crate) run: Box<dyn FnOnce(&Cancellation) + Send>,
}

/// Failure that has to be reported to a caller.
pub(crate) struct JobFailure {
    pub(crate) kind: WorkKind,
    pub(crate) error: WorkError,
    pub(crate) fail: Box<dyn FnOnce(WorkError) + Send>,
}

/// Result of a job that ended.
pub(crate) struct FinishedJob {
    pub(crate) kind: WorkKind,
    pub(crate) duration: Duration,
    pub(crate) fail: Option<Box<dyn FnOnce(WorkError) + Send>>,
    /// The thread was replaced and has to end.
    pub(crate) is_surplus: bool,
}

/// Queue and running jobs.
pub(crate) struct PoolState {
    bounds: Bounds,
    queues: HashMap<String, VecDeque<Job>>,
    /// Principals with queued jobs; the first is served next.
    order: VecDeque<String>,
    queued: usize,
    running: HashMap<u64, RunningJob>,
    /// Threads that exist, stuck threads included.
    threads: usize,
    next_id: u64,
    pub(crate) is_closed: bool,
}

impl PoolState {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queues: HashMap::new(),
            order: VecDeque::new(),
            queued: 0,
            running: HashMap::new(),
            threads: bounds.threads,
            next_id: 0,
            is_closed: false,
        }
    }

    /// Numbers of queued, running and stuck jobs.
    pub(crate) fn load(&self) -> (usize, usize, usize) {
        (self.queued, self.running.len(), self.stuck())
    }

    fn stuck(&self) -> usize {
        self.running.values().filter(|job| job.fail.is_none()).count()
    }

    /// Adds a job to the queue of its principal.
    pub(crate) fn enqueue(&mut self, principal: &str, job: Job) -> Result<(), WorkError> {
        self.remove_cancelled(principal);
        let of_principal = self.queues.get(principal).map_or(0, VecDeque::len);
        if of_principal >= self.bounds.max_queued_per_principal {
            return Err(WorkError::ShareExceeded);
        }
        if self.is_closed || self.queued >= self.bounds.max_queued {
            return Err(WorkError::QueueFull);
        }
        if of_principal == 0 {
            self.order.push_back(principal.to_owned());
        }
        self.queues.entry(principal.to_owned()).or_default().push_back(job);
        self.queued += 1;
        Ok(())
    }

    /// Frees the places of jobs whose callers are gone.
    fn remove_cancelled(&mut self, principal: &str) {
        let Some(queue) = self.queues.get_mut(principal) else { return };
        let before = queue.len();
        queue.retain(|job| !job.cancellation.is_cancelled());
        self.queued -= before - queue.len();
        if queue.is_empty() {
            self.queues.remove(principal);
            self.order.retain(|name| name != principal);
        }
    }

    fn running_of(&self, principal: &str) -> usize {
        self.running.values().filter(|job| job.principal == principal).count()
    }

    /// Starts the next job. Principals take turns, and each runs at most its share.
    pub(crate) fn start_next(&mut self, now: Duration) -> Option<StartedJob> {
        let share = self.bounds.max_running_per_principal;
        loop {
            let at = self.order.iter().position(|principal| self.running_of(principal) < share)?;
            let principal = self.order.remove(at)?;
            let queue = self.queues.get_mut(&principal)?;
            let job = queue.pop_front()?;
            self.queued -= 1;
            if queue.is_empty() {
                self.queues.remove(&principal);
            } else {
                self.order.push_back(principal.clone());
            }
            if job.cancellation.is_cancelled() {
                continue;
            }
            let Job { kind, cancellation, run, fail, .. } = job;
            let id = self.next_id;
            self.next_id += 1;
            let fail = Some(fail);
            let running =
                RunningJob { principal, kind, cancellation: cancellation.clone(), started_at: now, fail };
            self.running.insert(id, running);
            return Some(StartedJob { id, cancellation, run });
        }
    }

    /// Removes a job that ended.
    pub(crate) fn finish(&mut self, id: u64, now: Duration) -> Option<FinishedJob> {
        let RunningJob { kind, started_at, fail, .. } = self.running.remove(&id)?;
        let is_surplus = self.threads > self.bounds.threads + self.stuck();
        if is_surplus {
            self.threads -= 1;
        }
        Some(FinishedJob { kind, duration: now.saturating_sub(started_at), fail, is_surplus })
    }

    /// Jobs whose time is over: queued for too long, or running for longer than their limit.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<JobFailure> {
        let mut failures = Vec::new();
        for job in self.running.values_mut() {
            let timeout = job.kind.limits().timeout;
            if now.saturating_sub(job.started_at) < timeout {
                continue;
            }
            if let Some(fail) = job.fail.take() {
                job.cancellation.cancel();
                failures.push(JobFailure { kind: job.kind, error: WorkError::TimedOut(timeout), fail });
            }
        }
        let max_queue_time = self.bounds.max_queue_time;
        let is_late = |job: &Job| now.saturating_sub(job.queued_at) >= max_queue_time;
        for queue in self.queues.values_mut() {
            while queue.front().is_some_and(is_late) {
                let Some(Job { kind, fail, .. }) = queue.pop_front() else { break };
                self.queued -= 1;
                failures.push(JobFailure { kind, error: WorkError::QueueFull, fail });
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.order.retain(|principal| self.queues.contains_key(principal));
        failures
    }

    /// Number of threads to start in place of stuck threads; they count as started.
    pub(crate) fn take_replacements(&mut self) -> usize {
        let wanted = self.bounds.threads + self.stuck().min(self.bounds.max_replacements);
        let missing = wanted.saturating_sub(self.threads);
        self.threads += missing;
        missing
    }

    /// Records that a thread could not be started.
    pub(crate) fn thread_failed(&mut self) {
        self.threads -= 1;
    }
}
