//! Threads of the pool, and the interface for callers.

use crate::kind::WorkKind;
use crate::metrics::WorkerMetrics;
use crate::state::{Bounds, Job, JobFailure, PoolState};
use crate::{Cancellation, WorkError};
use perfwatch_model::{Clock, limits};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Maximum number of threads that replace stuck threads.
const MAX_REPLACEMENTS: usize = 4;
/// Maximum time that a job waits for a thread.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which time limits are checked.
const DEADLINE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Stack of a worker thread.
const STACK_BYTES: usize = 4 << 20;

/// Size of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// Number of threads, at least 2: half of them are free for other principals.
    pub threads: usize,
}

impl Default for PoolConfig {
    /// As many threads as cores.
    fn default() -> Self {
        Self { threads: std::thread::available_parallelism().map_or(2, usize::from) }
    }
}

/// Job as its caller describes it.
#[derive(Debug, Clone, Copy)]
pub struct WorkRequest<'a> {
    /// Kind of work, which determines the limits.
    pub kind: WorkKind,
    /// Account, server or channel that the job counts for.
    pub principal: &'a str,
    /// Size of the untrusted input in bytes.
    pub input_bytes: usize,
}

struct Shared {
    state: Mutex<PoolState>,
    job_queued: Condvar,
    clock: Arc<dyn Clock>,
    metrics: WorkerMetrics,
}

/// Pool of worker threads. Dropping the pool ends its threads after their current jobs.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

/// Cancels a job when its caller is gone.
struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_load(&self, state: &PoolState) {
        let (queued, running, stuck) = state.load();
        self.metrics.set_load(queued, running, stuck);
    }

    /// Runs jobs until the pool is closed or the thread was replaced.
    fn run_jobs(&self) {
        loop {
            let mut state = self.state();
            let job = loop {
                if state.is_closed {
                    return;
                }
                if let Some(job) = state.start_next(self.clock.monotonic()) {
                    break job;
                }
                state = self.job_queued.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            self.publish_load(&state);
            drop(state);
            let (run, cancellation) = (job.run, job.cancellation);
            let result = catch_unwind(AssertUnwindSafe(|| run(&cancellation)));
            let mut state = self.state();
            let finished = state.finish(job.id, self.clock.monotonic());
            self.publish_load(&state);
            drop(state);
            // The share of the principal is free again.
            self.job_queued.notify_all();
            let Some(finished) = finished else { continue };
            self.metrics.record_run(finished.kind, finished.duration);
            if let (Err(_), Some(fail)) = (result, finished.fail) {
                self.metrics.record_error(finished.kind, WorkError::Failed);
                fail(WorkError::Failed);
            }
            if finished.is_surplus {
                return;
            }
        }
    }

    fn start_thread(self: &Arc<Self>) {
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("worker".into()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || shared.run_jobs()) {
            tracing::error!(error = %error, "failed to start a worker thread");
            self.state().thread_failed();
        }
    }

    /// Reports exceeded time limits to callers, and replaces stuck threads.
    fn check_deadlines(self: &Arc<Self>) {
        let mut state = self.state();
        let failures = state.expire(self.clock.monotonic());
        let replacements = state.take_replacements();
        self.publish_load(&state);
        drop(state);
        for JobFailure { kind, error, fail } in failures {
            if matches!(error, WorkError::TimedOut(_)) {
                tracing::warn!(kind = kind.name(), "a job exceeded its time limit");
            }
            self.metrics.record_error(kind, error);
            fail(error);
        }
        for _ in 0..replacements {
            self.start_thread();
        }
    }
}

/// Checks time limits until the pool is dropped.
fn supervise(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        if shared.state().is_closed {
            return;
        }
        shared.check_deadlines();
        drop(shared);
        std::thread::sleep(DEADLINE_CHECK_INTERVAL);
    }
}

impl WorkerPool {
    /// Starts the threads. Their number grows only to replace stuck threads.
    pub fn new(clock: Arc<dyn Clock>, config: PoolConfig) -> Self {
        let threads = config.threads.max(2);
        let bounds = Bounds {
            threads,
            max_replacements: MAX_REPLACEMENTS,
            max_queued: limits::MAX_WAITING_JOBS,
            max_queued_per_principal: limits::MAX_WAITING_JOBS_PER_PRINCIPAL,
            max_running_per_principal: threads / 2,
            max_queue_time: QUEUE_TIMEOUT,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(PoolState::new(bounds)),
            job_queued: Condvar::new(),
            clock,
            metrics: WorkerMetrics::default(),
        });
        for _ in 0..threads {
            shared.start_thread();
        }
        let weak = Arc::downgrade(&shared);
        let supervisor = std::thread::Builder::new().name("worker-limits".into());
        if let Err(error) = supervisor.spawn(move || supervise(&weak)) {
            tracing::error!(error = %error, "failed to start the thread that checks time limits");
        }
        Self { shared }
    }

    /// Metrics of the pool.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics
    }

    /// Queues a job; its result arrives in the channel.
    fn submit<T: Send + 'static>(
        &self,
        request: WorkRequest<'_>,
        work: impl FnOnce(&Cancellation) -> T + Send + 'static,
    ) -> Result<(oneshot::Receiver<Result<T, WorkError>>, CancelOnDrop), WorkError> {
        let WorkRequest { kind, principal, input_bytes } = request;
        let max_input_bytes = kind.limits().max_input_bytes;
        if input_bytes > max_input_bytes {
            return Err(WorkError::InputTooLarge(max_input_bytes));
        }
        let (result_tx, result_rx) = oneshot::channel();
        // Either the job or its time limit sends the only result.
        let reply = Arc::new(Mutex::new(Some(result_tx)));
        let send = move |reply: &Mutex<Option<oneshot::Sender<_>>>, result: Result<T, WorkError>| {
            if let Some(result_tx) = reply.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // A caller that is gone needs no result.
                let _ = result_tx.send(result);
            }
        };
        let cancellation = Cancellation::default();
        let failed_reply = reply.clone();
        let job = Job {
            kind,
            cancellation: cancellation.clone(),
            queued_at: self.shared.clock.monotonic(),
            run: Box::new(move |cancellation| send(&reply, Ok(work(cancellation)))),
            fail: Box::new(move |error| send(&failed_reply, Err(error))),
        };
        let mut state = self.shared.state();
        state.enqueue(principal, job)?;
        self.shared.publish_load(&state);
        drop(state);
        self.shared.job_queued.notify_one();
        Ok((result_rx, CancelOnDrop(cancellation)))
    }

    fn count_refusal(&self, kind: WorkKind, error: WorkError) -> WorkError {
        self.shared.metrics.record_error(kind, error);
        error
    }

    /// Runs a job and waits for its result. If the caller is dropped, the job is cancelled.
    ///
    /// # Errors
    /// Returns a [`WorkError`] if the input is too large, the share of the principal or the queue is full,
    /// or the job panicked or exceeded its time limit.
    pub async fn run<T: Send + 'static>(
        &self,
        request: WorkRequest<'_>,
        work: impl FnOnce(&Cancellation) -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let submitted = self.submit(request, work);
        let (result, _guard) = submitted.map_err(|error| self.count_refusal(request.kind, error))?;
        result.await.unwrap_or(Err(WorkError::Failed))
    }

    /// Runs a job from a thread that may block; not from a thread of the pool or of an async runtime.
    ///
    /// # Errors
    /// Returns a [`WorkError`] like [`Self::run`].
    pub fn run_blocking<T: Send + 'static>(
        &self,
        request: WorkRequest<'_>,
        work: impl FnOnce(&Cancellation) -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let submitted = self.submit(request, work);
        let (result, _guard) = submitted.map_err(|error| self.count_refusal(request.kind, error))?;
        result.blocking_recv().unwrap_or(Err(WorkError::Failed))
    }

    /// Numbers of queued, running and stuck jobs.
    #[cfg(test)]
    pub(crate) fn shared_load(&self) -> (usize, usize, usize) {
        self.shared.state().load()
    }

    /// Checks time limits now instead of at the next interval.
    #[cfg(test)]
    pub(crate) fn check_deadlines(&self) {
        self.shared.check_deadlines();
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.state().is_closed = true;
        self.shared.job_queued.notify_all();
    }
}
