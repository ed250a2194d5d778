//! Pids of all processes. The kernel needs as long to list the directory as to read a hundred processes, so that
//! only new pids are checked while there are few.

use crate::open_files::read_file;
use rustix::fs::RawDir;
use std::fs::File;
use std::io;
use std::path::Path;

/// Number of new pids since the last listing after which all processes are listed again.
const MAX_NEW_PIDS: u32 = 128;
/// Number of runs after which all processes are listed again.
const MAX_LISTING_RUNS: u32 = 30;
/// Number of the newest pids that are checked after a listing, because their processes may not have been visible yet.
const MAX_HIDDEN_PIDS: u32 = 16;
/// Space for the entries of a directory that one getdents(2) returns.
const DIRECTORY_BYTES: usize = 16 << 10;

/// State of the kernel that changes with the processes, from `/proc/loadavg` (proc_loadavg(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadCounts {
    /// Number of threads of all processes.
    threads: u64,
    /// Newest pid, of a process or of a thread. The kernel assigns pids in ascending order.
    newest: u32,
}

impl ThreadCounts {
    /// Parses `0.20 0.18 0.12 1/80 11206`; `None` for the zeros of a sandbox.
    pub(crate) fn parse(loadavg: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(loadavg).ok()?.split_ascii_whitespace().skip(3);
        let threads = words.next()?.split_once('/')?.1.parse().ok()?;
        let newest = words.next()?.parse().ok()?;
        (threads > 0 && newest > 0).then_some(Self { threads, newest })
    }
}

/// Processes of the last listing, with those that were added since.
#[derive(Debug, Default)]
pub(crate) struct ProcessListing {
    pids: Vec<u32>,
    /// Counts at the last run, read before its processes.
    counts: Option<ThreadCounts>,
    /// Newest pid at the last listing.
    listed_newest: u32,
    /// Newest pid at the run before the last. Pids are assigned before their process becomes visible, so that
    /// those of a run are checked again in the next run.
    checked_newest: u32,
    /// Number of runs since the listing.
    runs: u32,
}

impl ProcessListing {
    /// Returns the pids of all processes in `procfs`; some of them may have ended. `counts` are those of the pid
    /// namespace of `procfs`, read before the call, or `None` if they are unknown.
    pub(crate) fn pids(&mut self, procfs: &Path, counts: Option<ThreadCounts>) -> io::Result<&[u32]> {
        self.runs += 1;
        match (self.counts, counts) {
            (Some(previous), Some(current)) if self.is_current(previous, current) => {
                if previous != current {
                    self.add_new(procfs, current.newest);
                    self.checked_newest = previous.newest;
                }
            }
            _ => {
                self.pids = list_pids(procfs)?;
                self.runs = 0;
                self.listed_newest = counts.map_or(0, |counts| counts.newest);
                self.checked_newest = self.listed_newest.saturating_sub(MAX_HIDDEN_PIDS);
            }
        }
        self.counts = counts;
        Ok(&self.pids)
    }

    /// Returns whether the new pids can be checked one by one.
    fn is_current(&self, previous: ThreadCounts, current: ThreadCounts) -> bool {
        let new_pids = current.newest.checked_sub(self.listed_newest);
        self.runs < MAX_LISTING_RUNS
            && current.newest >= previous.newest
            && new_pids.is_some_and(|new_pids| new_pids <= MAX_NEW_PIDS)
    }

    fn add_new(&mut self, procfs: &Path, newest: u32) {
        for pid in self.checked_newest + 1..=newest {
            if !self.pids.contains(&pid) && is_process(procfs, pid) {
                self.pids.push(pid);
            }
        }
    }
}

/// Returns whether a pid is of a process. The directories of other threads exist, but are not listed.
fn is_process(procfs: &Path, pid: u32) -> bool {
    let mut status = Vec::new();
    let is_read = read_file(&procfs.join(format!("{pid}/status")), &mut status).is_ok();
    let text = String::from_utf8_lossy(&status);
    let group = text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse::<u32>().ok());
    is_read && group == Some(pid)
}

/// Lists the numeric names in a directory.
fn list_pids(path: &Path) -> io::Result<Vec<u32>> {
    let directory = File::open(path)?;
    let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut pids = Vec::new();
    while let Some(entry) = entries.next() {
        pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directory in the form of procfs, whose processes are listed as in the kernel.
    struct FakeProcfs(tempfile::TempDir);

    impl FakeProcfs {
        fn add(&self, pid: u32, group: u32) {
            let folder = self.0.path().join(pid.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("status"), format!("Name:\tp\nTgid:\t{group}\nPid:\t{pid}\n"))
                .unwrap();
        }

        fn pids(&self, listing: &mut ProcessListing, threads: u64, newest: u32) -> Vec<u32> {
            let counts = Some(ThreadCounts { threads, newest });
            let mut pids = listing.pids(self.0.path(), counts).unwrap().to_vec();
            pids.sort_unstable();
            pids
        }
    }

    #[test]
    fn counts_are_parsed() {
        let counts = ThreadCounts { threads: 417, newest: 999 };
        assert_eq!(ThreadCounts::parse(b"0.52 1.00 12.3 3/417 999\n"), Some(counts));
        for text in ["", "0.5 1 1", "0.5 1 1 3 999", "0.5 1 1 3/4", "0.5 1 1 a/b c", "0.00 0.00 0.00 0/0 0"] {
            assert_eq!(ThreadCounts::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn new_processes_are_added_and_threads_are_not() {
        let procfs = FakeProcfs(tempfile::tempdir().unwrap());
        procfs.add(7, 7);
        std::fs::create_dir(procfs.0.path().join("net")).unwrap();
        let mut listing = ProcessListing::default();
        assert_eq!(procfs.pids(&mut listing, 1, 7), [7]);
        // A process, a thread, and a pid that is not visible yet.
        procfs.add(8, 8);
        procfs.add(9, 8);
        assert_eq!(procfs.pids(&mut listing, 3, 10), [7, 8]);
        procfs.add(10, 10);
        assert_eq!(procfs.pids(&mut listing, 4, 10), [7, 8, 10]);
        // Nothing is checked while the counts are the same; a process of a lower pid shows it.
        procfs.add(6, 6);
        assert_eq!(procfs.pids(&mut listing, 4, 10), [7, 8, 10]);
        // Many new pids, or pids that start again from low numbers.
        std::fs::remove_dir_all(procfs.0.path().join("9")).unwrap();
        assert_eq!(procfs.pids(&mut listing, 4, 10 + MAX_NEW_PIDS), [6, 7, 8, 10]);
        procfs.add(5, 5);
        assert_eq!(procfs.pids(&mut listing, 5, 5), [5, 6, 7, 8, 10]);
    }

    #[test]
    fn processes_are_listed_again_after_some_runs_or_without_counts() {
        let procfs = FakeProcfs(tempfile::tempdir().unwrap());
        procfs.add(7, 7);
        let mut listing = ProcessListing::default();
        assert_eq!(procfs.pids(&mut listing, 1, 7), [7]);
        procfs.add(3, 3);
        for _ in 1..MAX_LISTING_RUNS {
            assert_eq!(procfs.pids(&mut listing, 1, 7), [7]);
        }
        assert_eq!(procfs.pids(&mut listing, 1, 7), [3, 7]);
        procfs.add(4, 4);
        assert_eq!(listing.pids(procfs.0.path(), None).unwrap().len(), 3);
    }

    #[test]
    fn started_process_of_this_machine_is_found() {
        let (procfs, mut listing) = (Path::new("/proc"), ProcessListing::default());
        let counts = || ThreadCounts::parse(&std::fs::read("/proc/loadavg").unwrap());
        listing.pids(procfs, counts()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(listing.pids(procfs, counts()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
