//! Queue of collector runs and its threads. One thread takes nearly all runs; another one starts only if a
//! run does not return, so that a collector that hangs blocks no other.

use perfwatch_collect::{
    CollectError, Collector, CollectorCache, CollectorOptions, Part, PartReading, Source, read_one,
};
use perfwatch_model::Clock;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Stack of a thread, eight times the largest usage measured.
const STACK_BYTES: usize = 256 << 10;

/// Run of a collector.
pub(crate) struct CollectorRun {
    /// Index of the collector in the pool.
    pub(crate) index: usize,
    pub(crate) collector: &'static Collector,
    /// State of the earlier runs of this collector.
    pub(crate) cache: CollectorCache,
}

/// Result of a run, with the cache for the next run.
pub(crate) struct FinishedRun {
    pub(crate) index: usize,
    pub(crate) part: PartReading,
    pub(crate) cache: CollectorCache,
}

/// Inputs that all collectors share.
pub(crate) struct SharedInputs {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) options: Arc<CollectorOptions>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Queue that a pool and its threads share.
pub(crate) struct CollectorQueue {
    inputs: SharedInputs,
    state: Mutex<QueueState>,
    /// Notified when a run was added or the queue was closed.
    added: Condvar,
    /// Notified when a run has finished and no other is waiting.
    finished: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<CollectorRun>,
    finished: Vec<FinishedRun>,
    idle_threads: usize,
    is_closed: bool,
}

impl CollectorQueue {
    pub(crate) fn new(inputs: SharedInputs) -> Arc<Self> {
        let (state, added, finished) = (Mutex::default(), Condvar::new(), Condvar::new());
        Arc::new(Self { inputs, state, added, finished })
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread. It ends when the queue is closed, or when another thread is idle.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(crate) fn start_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let queue = self.clone();
        let thread = std::thread::Builder::new().name("collect".into()).stack_size(STACK_BYTES);
        thread.spawn(move || queue.run_collectors()).map(drop)
    }

    fn run_collectors(&self) {
        while let Some(mut run) = self.next() {
            let part = read_catching_panics(run.collector, &self.inputs, &mut run.cache);
            let mut state = self.lock();
            state.finished.push(FinishedRun { index: run.index, part, cache: run.cache });
            if state.waiting.is_empty() {
                self.finished.notify_one();
            }
        }
    }

    /// Waits for a run; `None` if the thread ends.
    fn next(&self) -> Option<CollectorRun> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(run) = state.waiting.pop_front() {
                return Some(run);
            }
            if state.idle_threads > 0 {
                return None;
            }
            state.idle_threads += 1;
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_threads -= 1;
        }
    }

    /// Adds runs, which start in this order.
    pub(crate) fn add(self: &Arc<Self>, runs: Vec<CollectorRun>) {
        if runs.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.waiting.extend(runs);
        let has_idle_thread = state.idle_threads > 0;
        drop(state);
        if has_idle_thread {
            self.added.notify_one();
        } else {
            // Without a thread, the runs wait for a thread that returns.
            let _ = self.start_thread();
        }
    }

    /// Takes the results of the finished runs.
    pub(crate) fn take_finished(&self) -> Vec<FinishedRun> {
        std::mem::take(&mut self.lock().finished)
    }

    /// Waits until all runs have finished that a thread can finish within `timeout`, and takes the results.
    /// Starts a thread if runs are still waiting after `stall_timeout` and none has finished, because the other threads
    /// may hang.
    pub(crate) fn wait(self: &Arc<Self>, timeout: Duration, stall_timeout: Duration) -> Vec<FinishedRun> {
        let state = self.lock();
        let is_unfinished = |state: &mut QueueState| state.finished.is_empty() || !state.waiting.is_empty();
        let wait = if state.waiting.is_empty() { timeout } else { timeout.min(stall_timeout) };
        let waited = self.finished.wait_timeout_while(state, wait, is_unfinished);
        let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        let finished = std::mem::take(&mut state.finished);
        let is_stalled = result.timed_out() && finished.is_empty() && !state.waiting.is_empty();
        drop(state);
        if is_stalled {
            let _ = self.start_thread();
        }
        finished
    }

    /// Ends the threads; a thread that hangs ends with the process.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.added.notify_all();
    }
}

fn read_catching_panics(
    collector: &'static Collector,
    inputs: &SharedInputs,
    cache: &mut CollectorCache,
) -> PartReading {
    let started_at = inputs.clock.monotonic();
    let read = AssertUnwindSafe(|| read_one(collector, &*inputs.source, &inputs.options, cache));
    let result: Result<Arc<Part>, CollectError> = catch_unwind(read)
        .unwrap_or_else(|_| Err(CollectError::Failed("collector panicked; please report this".into())));
    if result.is_err() {
        // A panic may leave the cache inconsistent.
        *cache = CollectorCache::default();
    }
    PartReading {
        collector: collector.name,
        started_at,
        duration: inputs.clock.monotonic().saturating_sub(started_at),
        result,
    }
}
