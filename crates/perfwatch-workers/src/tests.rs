//! Tests of shares, time limits and replacement of stuck threads. Jobs are held by channels, and time is
//! set by the tests.

use crate::{PoolConfig, WorkError, WorkKind, WorkRequest, WorkerPool};
use perfwatch_model::ManualClock;
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn pool() -> (Arc<WorkerPool>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::starting_at(0));
    (Arc::new(WorkerPool::new(clock.clone(), PoolConfig { threads: 2 })), clock)
}

fn request(principal: &str) -> WorkRequest<'_> {
    WorkRequest { kind: WorkKind::Import, principal, input_bytes: 1 }
}

/// Job that runs until the test drops the sender, and reports its start.
struct HeldJob {
    release_tx: mpsc::Sender<()>,
    result: std::thread::JoinHandle<Result<(), WorkError>>,
}

fn start_blocked_job(pool: &Arc<WorkerPool>, principal: &'static str) -> HeldJob {
    let ((started_tx, started_rx), (release_tx, release_rx)) = (mpsc::channel(), mpsc::channel::<()>());
    let pool = pool.clone();
    let work = move |_: &crate::Cancellation| {
        started_tx.send(()).unwrap();
        // Ends with the sender.
        let _ = release_rx.recv();
    };
    let result = std::thread::spawn(move || pool.run_blocking(request(principal), work));
    started_rx.recv().unwrap();
    HeldJob { release_tx, result }
}

#[test]
fn jobs_run_with_an_own_stack_and_return_their_result() {
    let (pool, _) = pool();
    let result = pool.run_blocking(request("a"), |_| std::thread::current().name().map(str::to_owned));
    assert_eq!(result, Ok(Some("worker".to_owned())));
    let panicked: Result<(), _> = pool.run_blocking(request("a"), |_| panic!("test"));
    assert_eq!(panicked, Err(WorkError::Failed));
    assert_eq!(pool.run_blocking(request("a"), |_| 7), Ok(7));
    let too_large = WorkRequest { input_bytes: (256 << 10) + 1, ..request("a") };
    assert_eq!(pool.run_blocking(too_large, |_| ()), Err(WorkError::InputTooLarge(256 << 10)));
}

/// One principal occupies at most half of the threads and its share of the queue.
#[test]
fn principal_with_a_hanging_job_does_not_block_others() {
    let (pool, _) = pool();
    let hanging = start_blocked_job(&pool, "hostile");
    // Further jobs of the principal are queued up to its share, then refused.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            std::thread::spawn(move || pool.run_blocking(request("hostile"), |_| ()))
        })
        .collect();
    while pool.shared_load().0 < 8 {
        std::thread::yield_now();
    }
    assert_eq!(pool.run_blocking(request("hostile"), |_| ()), Err(WorkError::ShareExceeded));
    assert_eq!(pool.run_blocking(request("honest"), |_| 1), Ok(1));
    drop(hanging.release_tx);
    assert_eq!(hanging.result.join().unwrap(), Ok(()));
    assert!(waiting.into_iter().all(|job| job.join().unwrap() == Ok(())));
}

/// Stuck threads are replaced up to a bound, and end when their job ends.
#[test]
fn stuck_jobs_time_out_and_are_replaced() {
    let (pool, clock) = pool();
    let jobs = [start_blocked_job(&pool, "a"), start_blocked_job(&pool, "b")];
    clock.advance(WorkKind::Import.limits().timeout);
    pool.check_deadlines();
    let mut releases = Vec::new();
    for HeldJob { release_tx, result } in jobs {
        // The caller has its error while the job is still running.
        assert_eq!(result.join().unwrap(), Err(WorkError::TimedOut(Duration::from_secs(5))));
        releases.push(release_tx);
    }
    assert_eq!(pool.shared_load(), (0, 2, 2));
    assert_eq!(pool.run_blocking(request("c"), |_| 1), Ok(1));
    drop(releases);
    while pool.shared_load().2 > 0 {
        std::thread::yield_now();
    }
    assert_eq!(pool.run_blocking(request("a"), |_| 2), Ok(2));
}

#[test]
fn replacements_of_stuck_threads_are_bounded() {
    let (pool, clock) = pool();
    let mut jobs = Vec::new();
    for principal in ["a", "b", "c", "d", "e", "f"] {
        jobs.push(start_blocked_job(&pool, principal));
        clock.advance(WorkKind::Import.limits().timeout);
        pool.check_deadlines();
    }
    assert_eq!(pool.shared_load(), (0, 6, 6));
    let waiting = {
        let pool = pool.clone();
        std::thread::spawn(move || pool.run_blocking(request("g"), |_| ()))
    };
    while pool.shared_load().0 < 1 {
        std::thread::yield_now();
    }
    clock.advance(Duration::from_secs(20));
    pool.check_deadlines();
    assert_eq!(waiting.join().unwrap(), Err(WorkError::QueueFull));
}

#[tokio::test]
async fn dropped_callers_cancel_their_jobs() {
    let (pool, _) = pool();
    let (cancelled_tx, cancelled_rx) = mpsc::channel();
    let (started_tx, mut started_rx) = tokio::sync::mpsc::channel(1);
    let work = move |cancellation: &crate::Cancellation| {
        started_tx.blocking_send(()).unwrap();
        while !cancellation.is_cancelled() {
            std::thread::yield_now();
        }
        cancelled_tx.send(()).unwrap();
    };
    tokio::select! {
        _ = pool.run(request("a"), work) => panic!("the job ends only when it is cancelled"),
        _ = started_rx.recv() => {}
    }
    cancelled_rx.recv().unwrap();
}
