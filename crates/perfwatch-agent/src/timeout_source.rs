//! Runs statvfs with a timeout. Calls run concurrently on a few threads, so that all unresponsive mounts
//! together cost one timeout, and a mount that did not respond is skipped until its thread returns.

use perfwatch_collect::{FsUsage, LocalRoot, Source};
use perfwatch_model::{Clock, SystemClock};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// Time for all statvfs calls of a reading. A healthy network mount responds in milliseconds.
const STATVFS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without any result after which further threads start, because all running ones may hang.
const STALL_TIMEOUT: Duration = Duration::from_millis(20);
/// Number of threads that start at once after a time without a result. The first thread is alone: it is enough
/// for mounts that respond.
const MAX_NEW_THREADS: usize = 8;
/// Maximum number of threads, hanging ones of earlier readings included.
const MAX_THREADS: usize = 512;
/// Stack of a thread that calls statvfs.
const STACK_BYTES: usize = 64 << 10;

/// [`LocalRoot`] whose statvfs calls have a timeout.
pub struct TimeoutSource {
    root: Arc<dyn Source>,
    calls: Arc<Calls>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
}

/// Calls in progress.
#[derive(Default)]
struct Calls {
    /// Mounts that are being queried, those that hang included.
    mounts: Mutex<HashSet<PathBuf>>,
    threads: AtomicUsize,
}

impl Calls {
    fn mounts(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TimeoutSource {
    /// Wraps a root with the default timeout of 1 s.
    pub fn new(root: LocalRoot) -> Self {
        Self {
            root: Arc::new(root),
            calls: Arc::default(),
            clock: Arc::new(SystemClock::new()),
            timeout: STATVFS_TIMEOUT,
        }
    }

    /// Starts threads that pop mounts from the queue; returns false if none could be started.
    fn start_threads(&self, max: usize, queue: &Arc<CallQueue>, results: &mpsc::Sender<CallResult>) -> bool {
        let remaining = queue.mounts.len().saturating_sub(queue.next.load(Ordering::Relaxed));
        let mut is_started = false;
        for _ in 0..remaining.min(max) {
            if self.calls.threads.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
                self.calls.threads.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            let (root, calls) = (self.root.clone(), self.calls.clone());
            let (queue, results, clock) = (queue.clone(), results.clone(), self.clock.clone());
            let run = move || {
                while let Some((index, mount)) = queue.pop(clock.monotonic()) {
                    let usage = root.usage(mount);
                    calls.mounts().remove(mount);
                    // The receiver is gone after the timeout.
                    let _ = results.send((index, usage));
                }
                calls.threads.fetch_sub(1, Ordering::Relaxed);
            };
            let thread = std::thread::Builder::new().name("statvfs".into()).stack_size(STACK_BYTES);
            match thread.spawn(run) {
                Ok(_) => is_started = true,
                Err(_) => {
                    self.calls.threads.fetch_sub(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        is_started
    }
}

/// Mounts of a reading; each is popped once.
struct CallQueue {
    /// Mounts with their index in the results.
    mounts: Vec<(usize, PathBuf)>,
    next: AtomicUsize,
    /// Monotonic time after which nobody reads the results.
    deadline: Duration,
}

/// Index of a mount and its result.
type CallResult = (usize, io::Result<FsUsage>);

impl CallQueue {
    fn pop(&self, now: Duration) -> Option<(usize, &Path)> {
        if now >= self.deadline {
            return None;
        }
        let (index, mount) = self.mounts.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        Some((*index, mount))
    }
}

impl Source for TimeoutSource {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        self.root.read(path, out)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.root.list(path)
    }

    fn process_ids(&self) -> io::Result<Vec<u32>> {
        self.root.process_ids()
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        self.root.count(path)
    }

    fn link(&self, path: &str) -> io::Result<String> {
        self.root.link(path)
    }

    fn usage(&self, mount: &Path) -> io::Result<FsUsage> {
        self.usages(&[mount.to_owned()]).pop().unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn usages(&self, mounts: &[PathBuf]) -> Vec<io::Result<FsUsage>> {
        let mut usages: Vec<io::Result<FsUsage>> =
            mounts.iter().map(|_| Err(io::ErrorKind::TimedOut.into())).collect();
        // Marked before the call, so that at most one thread hangs on a mount.
        let mut in_progress = self.calls.mounts();
        let is_new = |(index, mount): (usize, &PathBuf)| {
            in_progress.insert(mount.clone()).then(|| (index, mount.clone()))
        };
        let new: Vec<(usize, PathBuf)> = mounts.iter().enumerate().filter_map(is_new).collect();
        drop(in_progress);
        let deadline = self.clock.monotonic() + self.timeout;
        let mut missing = new.len();
        let queue = Arc::new(CallQueue { mounts: new, next: AtomicUsize::new(0), deadline });
        let (sender, results) = mpsc::channel();
        let mut can_start = self.start_threads(1, &queue, &sender);
        while missing > 0 {
            let remaining = deadline.saturating_sub(self.clock.monotonic());
            if remaining.is_zero() {
                break;
            }
            let wait = if can_start { remaining.min(STALL_TIMEOUT) } else { remaining };
            match results.recv_timeout(wait) {
                Ok((index, usage)) => {
                    usages[index] = usage;
                    missing -= 1;
                }
                Err(_) => can_start = self.start_threads(MAX_NEW_THREADS, &queue, &sender),
            }
        }
        // Mounts that no thread popped are not hanging.
        let popped = queue.next.fetch_add(queue.mounts.len(), Ordering::Relaxed).min(queue.mounts.len());
        let mut in_progress = self.calls.mounts();
        for (_, mount) in &queue.mounts[popped..] {
            in_progress.remove(mount);
        }
        usages
    }

    fn page_size(&self) -> u64 {
        self.root.page_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Condvar;

    /// Source on which every mount below `/nfs` hangs until it is released.
    #[derive(Default)]
    struct HangingSource {
        released: Mutex<bool>,
        wake: Condvar,
    }

    impl Source for HangingSource {
        fn read(&self, _: &str, _: &mut Vec<u8>) -> io::Result<()> {
            Ok(())
        }
        fn list(&self, _: &str) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
        fn count(&self, _: &str) -> io::Result<u64> {
            Ok(0)
        }
        fn link(&self, _: &str) -> io::Result<String> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn usage(&self, mount: &Path) -> io::Result<FsUsage> {
            if mount.starts_with("/nfs") {
                let guard = self.released.lock().unwrap();
                drop(self.wake.wait_while(guard, |released| !*released).unwrap());
            }
            Ok(FsUsage { size: 1, ..FsUsage::default() })
        }
        fn page_size(&self) -> u64 {
            4096
        }
    }

    #[test]
    fn unresponsive_mounts_cost_one_thread_each_and_recover() {
        let root = Arc::new(HangingSource::default());
        let source = TimeoutSource {
            root: root.clone(),
            calls: Arc::default(),
            clock: Arc::new(SystemClock::new()),
            timeout: Duration::from_millis(400),
        };
        // More hanging mounts than threads that start at once.
        let mut mounts: Vec<PathBuf> = (0..20).map(|n| PathBuf::from(format!("/nfs/{n}"))).collect();
        mounts.extend((0..20).map(|n| PathBuf::from(format!("/local/{n}"))));
        let deadline = source.clock.monotonic() + Duration::from_secs(30);
        for _ in 0..3 {
            let usages = source.usages(&mounts);
            for (mount, usage) in mounts.iter().zip(&usages) {
                let timed_out = usage.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
                assert_eq!(timed_out, mount.starts_with("/nfs"), "{mount:?} {usage:?}");
            }
            assert_eq!(source.calls.mounts().len(), 20);
            // The threads that do not hang end soon, however long the scheduler lets them wait.
            while source.calls.threads.load(Ordering::Relaxed) > 20 {
                assert!(source.clock.monotonic() < deadline, "more threads than hanging mounts");
                std::thread::yield_now();
            }
        }
        assert_eq!(source.usage(Path::new("/nfs/0")).unwrap_err().kind(), io::ErrorKind::TimedOut);
        *root.released.lock().unwrap() = true;
        root.wake.notify_all();
        while source.calls.threads.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert!(source.usages(&mounts).iter().all(Result::is_ok));
        assert!(source.calls.mounts().is_empty());
    }
}
