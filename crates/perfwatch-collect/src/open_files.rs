//! Reading of small kernel files, and a cache of open files of procfs that are read at every tick.

use perfwatch_model::limits::MAX_COLLECTED_FILE_BYTES;
use rustix::buffer::spare_capacity;
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::io::{pread, read, retry_on_intr};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of open files of processes, also within a high limit of descriptors: the kernel keeps a
/// buffer of a page for each.
const MAX_PROCESS_FILES: usize = 1_000;
/// Part of the descriptors of this process that open files of processes may use: a quarter.
const MAX_DESCRIPTOR_SHARE: usize = 4;
/// Maximum number of other open files; the collectors of every tick read about 20.
const MAX_SYSTEM_FILES: usize = 64;
/// Number of listings of the processes after which files that were not read since are closed. A process that
/// runs every few seconds is read again.
const MAX_UNREAD_GENERATIONS: u64 = 8;
/// Space for one read call; nearly all files of procfs and sysfs are shorter.
const READ_BYTES: usize = 4096;

/// Cache of open files that are read at every tick: reading a short file of procfs costs a sixth of opening,
/// reading and closing it.
///
/// An open file of `/proc/PID` refers to the same process even if the pid is reused: reads fail after its end.
/// Other filesystems are not cached: a regular file can be replaced, and an open file of sysfs follows its
/// device when another device takes over the name.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    max_process_files: usize,
    cache: Mutex<FileCache>,
}

#[derive(Debug, Default)]
struct FileCache {
    /// Number of listings of the processes.
    generation: u64,
    /// Files of processes by path.
    processes: HashMap<String, OpenFile>,
    /// Other files by path.
    system: HashMap<String, OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    last_read: u64,
    file: Arc<File>,
}

/// Files that may stay open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileClass {
    /// A short file of a process that is read at every tick.
    Process,
    /// Another file of procfs.
    System,
}

impl FileClass {
    /// Class of a path; `None` if the file does not stay open.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let remaining = path.strip_prefix("/proc/")?;
        let (first, file) = remaining.split_once('/').unwrap_or((remaining, ""));
        if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::System);
        }
        matches!(file, "stat" | "schedstat").then_some(Self::Process)
    }
}

impl FileCache {
    fn class(&mut self, class: FileClass) -> &mut HashMap<String, OpenFile> {
        match class {
            FileClass::Process => &mut self.processes,
            FileClass::System => &mut self.system,
        }
    }
}

/// Maximum number of files that the collectors of a process keep open, by its limit of descriptors.
pub fn max_open_files(limit: usize) -> usize {
    max_process_files(limit) + MAX_SYSTEM_FILES
}

fn max_process_files(limit: usize) -> usize {
    (limit / MAX_DESCRIPTOR_SHARE).min(MAX_PROCESS_FILES)
}

impl Default for OpenFiles {
    fn default() -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self { max_process_files: max_process_files(limit.unwrap_or(usize::MAX)), cache: Mutex::default() }
    }
}

impl OpenFiles {
    fn lock(&self) -> MutexGuard<'_, FileCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a generation. After some generations, closes the files that they did not read.
    pub(crate) fn start_generation(&self) {
        let mut cache = self.lock();
        cache.generation += 1;
        if !cache.generation.is_multiple_of(MAX_UNREAD_GENERATIONS) {
            return;
        }
        let oldest = cache.generation - MAX_UNREAD_GENERATIONS;
        cache.processes.retain(|_, open| open.last_read >= oldest);
        cache.system.retain(|_, open| open.last_read >= oldest);
    }

    fn has_space(&self, class: FileClass) -> bool {
        let max = if class == FileClass::Process { self.max_process_files } else { MAX_SYSTEM_FILES };
        self.lock().class(class).len() < max
    }

    /// Reads a file that is open. Returns false if the file must be opened instead.
    pub(crate) fn read(&self, class: FileClass, path: &str, out: &mut Vec<u8>) -> bool {
        let mut cache = self.lock();
        let generation = cache.generation;
        let Some(open) = cache.class(class).get_mut(path) else { return false };
        open.last_read = generation;
        // Read without the lock: the file of a failing device can block.
        let file = open.file.clone();
        drop(cache);
        let read_at = |out: &mut Vec<u8>| pread(&file, spare_capacity(out), 0);
        let result = match class {
            // Short, and generated by a single call: a read that does not fill the buffer is complete.
            FileClass::Process => {
                out.clear();
                out.reserve(READ_BYTES);
                retry_on_intr(|| read_at(out)).map(|length| length < READ_BYTES).unwrap_or(false)
            }
            FileClass::System => read_to_end(out, |out| {
                let offset = out.len() as u64;
                pread(&file, spare_capacity(out), offset)
            })
            .is_ok(),
        };
        let is_read = result && !out.is_empty();
        if !is_read {
            self.lock().class(class).remove(path);
        }
        is_read
    }

    /// Keeps a file open if it is of procfs.
    pub(crate) fn insert(&self, class: FileClass, path: &str, file: File) {
        let is_procfs = |file: &File| fstatfs(file).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC);
        if self.has_space(class) && is_procfs(&file) {
            let mut cache = self.lock();
            let last_read = cache.generation;
            cache.class(class).insert(path.to_owned(), OpenFile { last_read, file: Arc::new(file) });
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let cache = self.lock();
        cache.processes.len() + cache.system.len()
    }
}

/// Opens a file and replaces the content of `out` by that of the file.
pub(crate) fn read_file(path: &Path, out: &mut Vec<u8>) -> io::Result<File> {
    out.clear();
    let file = File::open(path)?;
    read_to_end(out, |out| read(&file, spare_capacity(out)))?;
    Ok(file)
}

/// Replaces the content of `out` by what `read` appends until it appends nothing.
fn read_to_end(
    out: &mut Vec<u8>,
    mut read: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    out.clear();
    loop {
        if out.capacity() - out.len() < READ_BYTES / 2 {
            out.reserve(READ_BYTES);
        }
        if retry_on_intr(|| read(out))? == 0 {
            return Ok(());
        }
        if out.len() as u64 > MAX_COLLECTED_FILE_BYTES {
            return Err(io::Error::other(format!("larger than {} MiB", MAX_COLLECTED_FILE_BYTES >> 20)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LocalRoot, Source as _};

    #[test]
    fn file_classes_are_those_of_every_tick() {
        for (path, class) in [
            ("/proc/12/stat", Some(FileClass::Process)),
            ("/proc/12/schedstat", Some(FileClass::Process)),
            ("/proc/12/cmdline", None),
            ("/proc/12/task/13/stat", None),
            ("/proc/stat", Some(FileClass::System)),
            ("/proc/net/dev", Some(FileClass::System)),
            ("/proc/self/mountinfo", Some(FileClass::System)),
            ("/sys/class/net/eth0/operstate", None),
            ("/etc/passwd", None),
        ] {
            assert_eq!(FileClass::of_path(path), class, "{path}");
        }
    }

    #[test]
    fn files_longer_than_a_read_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        let mut out = b"old".to_vec();
        for length in [0, 1, READ_BYTES / 2, READ_BYTES, READ_BYTES + 1, 100_000] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            read_file(&path, &mut out).unwrap();
            assert_eq!(out, content, "{length}");
        }
        let too_long = usize::try_from(MAX_COLLECTED_FILE_BYTES).unwrap() + 1;
        std::fs::write(&path, vec![b'x'; too_long]).unwrap();
        assert!(read_file(&path, &mut out).unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn open_files_are_closed_with_their_process() {
        let source = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let (mut first, mut second) = (Vec::new(), b"other".to_vec());
        source.read(&path, &mut first).unwrap();
        source.read(&path, &mut second).unwrap();
        let name =
            |text: &[u8]| String::from_utf8_lossy(text).split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(name(&first), name(&second));
        assert_eq!(source.open_files.len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(source.read(&path, &mut second).is_err());
        assert_eq!(source.open_files.len(), 0);
    }

    #[test]
    fn open_files_are_closed_if_they_are_not_read() {
        let source = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
        let mut out = Vec::new();
        for path in ["/proc/1/stat", "/proc/uptime", "/proc/uptime", "/etc/passwd"] {
            source.read(path, &mut out).unwrap();
            assert!(!out.is_empty());
        }
        assert_eq!(source.open_files.len(), 2);
        for _ in 0..2 * MAX_UNREAD_GENERATIONS {
            assert_eq!(source.open_files.len(), 2);
            source.open_files.start_generation();
            source.read("/proc/uptime", &mut out).unwrap();
        }
        assert_eq!(source.open_files.len(), 1);
        // A second read of an open file has the current content, not the end of the first read.
        let uptime = String::from_utf8_lossy(&out).into_owned();
        std::thread::sleep(std::time::Duration::from_millis(30));
        source.read("/proc/uptime", &mut out).unwrap();
        assert_ne!(uptime, String::from_utf8_lossy(&out));
    }
}
