//! A source whose mounts may hang: statvfs runs on a thread of its own with a deadline, and a
//! mount that did not answer is left alone until it does.

use perfwatch_collect::{FsUsage, LocalRoot, Source};
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// How long a healthy mount may take; a network one answers in milliseconds.
const STATVFS_TIMEOUT: Duration = Duration::from_secs(1);

/// [`LocalRoot`] behind the deadline.
pub struct TimeoutSource {
    root: Arc<dyn Source>,
    unresponsive_mounts: Arc<Mutex<HashSet<String>>>,
    deadline: Duration,
}

impl TimeoutSource {
    /// Guards this root.
    pub fn new(root: LocalRoot) -> Self {
        Self { root: Arc::new(root), unresponsive_mounts: Arc::default(), deadline: STATVFS_TIMEOUT }
    }
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
        let lock = |set: &Mutex<HashSet<String>>, change: &dyn Fn(&mut HashSet<String>) -> bool| {
            change(&mut set.lock().unwrap_or_else(PoisonError::into_inner))
        };
        // Noted as stuck before it is asked, so that at most one thread hangs on a mount.
        if !lock(&self.unresponsive_mounts, &|stuck| stuck.insert(mount.to_owned())) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (send, answer) = mpsc::sync_channel(1);
        let (root, stuck, path) = (self.root.clone(), self.unresponsive_mounts.clone(), mount.to_owned());
        let ask = move || {
            let usage = root.usage(&path);
            lock(&stuck, &|stuck| stuck.remove(&path));
            // The asker may have given up.
            let _ = send.send(usage);
        };
        if let Err(error) = std::thread::Builder::new().name("statvfs".into()).stack_size(64 << 10).spawn(ask)
        {
            lock(&self.unresponsive_mounts, &|stuck| stuck.remove(mount));
            return Err(error);
        }
        answer.recv_timeout(self.deadline).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn page_size(&self) -> u64 {
        self.root.page_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    struct Hangs(Barrier);

    impl Source for Hangs {
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
        let root = Arc::new(Hangs(Barrier::new(2)));
        let guarded = TimeoutSource {
            root: root.clone(),
            unresponsive_mounts: Arc::default(),
            deadline: Duration::from_millis(30),
        };
        for _ in 0..5 {
            assert_eq!(guarded.usage("/nfs").unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(guarded.usage("/").unwrap().size, 1);
        }
        assert_eq!(guarded.unresponsive_mounts.lock().unwrap().len(), 1);
        // One wait frees the one thread that hangs; more threads would hang on here.
        root.0.wait();
        while !guarded.unresponsive_mounts.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
    }
}
