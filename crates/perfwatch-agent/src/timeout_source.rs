//! Runs statvfs with a timeout: each call gets a thread, and a mount that did not respond is
//! skipped until its thread returns.

use perfwatch_collect::{FsUsage, LocalRoot, Source};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// Timeout of a statvfs call. A healthy network mount responds in milliseconds.
const STATVFS_TIMEOUT: Duration = Duration::from_secs(1);
/// Stack of the thread that calls statvfs.
const STACK_BYTES: usize = 64 << 10;

/// [`LocalRoot`] whose statvfs calls have a timeout.
pub struct TimeoutSource {
    root: Arc<dyn Source>,
    unresponsive_mounts: Arc<Mutex<HashSet<String>>>,
    timeout: Duration,
}

impl TimeoutSource {
    /// Wraps a root with the default timeout of 1 s.
    pub fn new(root: LocalRoot) -> Self {
        Self { root: Arc::new(root), unresponsive_mounts: Arc::default(), timeout: STATVFS_TIMEOUT }
    }
}

fn lock(mounts: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    mounts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for TimeoutSource {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        self.root.read(path, out)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.root.list(path)
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        self.root.count(path)
    }

    fn usage(&self, mount: &str) -> io::Result<FsUsage> {
        // Marked as unresponsive before the call, so that at most one thread hangs on a mount.
        if !lock(&self.unresponsive_mounts).insert(mount.to_owned()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (root, mounts, path) = (self.root.clone(), self.unresponsive_mounts.clone(), mount.to_owned());
        let call = move || {
            let usage = root.usage(&path);
            lock(&mounts).remove(&path);
            // The receiver is gone after a timeout.
            let _ = sender.send(usage);
        };
        let thread = std::thread::Builder::new().name("statvfs".into()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(call) {
            lock(&self.unresponsive_mounts).remove(mount);
            return Err(error);
        }
        receiver.recv_timeout(self.timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn page_size(&self) -> u64 {
        self.root.page_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    struct HangingSource(Barrier);

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
        fn usage(&self, mount: &str) -> io::Result<FsUsage> {
            if mount == "/nfs" {
                self.0.wait();
            }
            Ok(FsUsage { size: 1, ..FsUsage::default() })
        }
        fn page_size(&self) -> u64 {
            4096
        }
    }

    #[test]
    fn unresponsive_mount_costs_one_thread_and_recovers() {
        let root = Arc::new(HangingSource(Barrier::new(2)));
        let source = TimeoutSource {
            root: root.clone(),
            unresponsive_mounts: Arc::default(),
            timeout: Duration::from_millis(30),
        };
        for _ in 0..5 {
            assert_eq!(source.usage("/nfs").unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(source.usage("/").unwrap().size, 1);
        }
        assert_eq!(source.unresponsive_mounts.lock().unwrap().len(), 1);
        // The barrier releases the hanging thread; further threads would keep hanging.
        root.0.wait();
        while !source.unresponsive_mounts.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
    }
}
