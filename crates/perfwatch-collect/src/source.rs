//! Where the text comes from: five verbs over a root that can be moved, so that containers,
//! captures and SSH all feed the same collectors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file larger than this is not one a collector should read (`/proc/net/tcp` of 100,000
/// connections has 15 MB; the collector skips it long before).
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;

/// Size of a mounted filesystem, from statvfs(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsUsage {
    /// Bytes in all.
    pub size: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes free for ordinary users.
    pub available: u64,
    /// Inodes in all; 0 where the filesystem has no fixed number.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
}

/// What collectors may ask of a host. Paths are those of the watched host.
pub trait Source: Send + Sync {
    /// Replaces `out` by the file's bytes.
    ///
    /// # Errors
    /// The I/O error as it is.
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()>;
    /// Names in a folder, in no order.
    ///
    /// # Errors
    /// The I/O error as it is.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// How many names stand in a folder; cheaper than [`Source::list`] where the kernel counts.
    ///
    /// # Errors
    /// The I/O error as it is.
    fn count(&self, path: &str) -> io::Result<u64>;
    /// Size of the filesystem mounted there.
    ///
    /// # Errors
    /// The I/O error as it is; [`io::ErrorKind::TimedOut`] for a mount that hangs.
    fn usage(&self, mount: &str) -> io::Result<FsUsage>;
    /// Bytes of a memory page.
    fn page_size(&self) -> u64;
}

/// This machine, or the machine whose /proc, /sys and / are mounted somewhere else
/// (a container that watches its host).
#[derive(Debug)]
pub struct LocalRoot {
    procfs: PathBuf,
    sysfs: PathBuf,
    rootfs: PathBuf,
    is_relocated: bool,
    open_files: Mutex<OpenFileCache>,
}

/// Files that are read at every tick, kept open: for `/proc/PID/stat` that halves the cost.
/// A kept file is of its process for ever; once that ended, reading fails.
#[derive(Debug, Default)]
struct OpenFileCache {
    /// Counts listings of /proc: what was not read since the one before is closed.
    generation: u64,
    files: HashMap<String, (u64, File)>,
}

/// Half of what a service may usually have open is left to others.
const MAX_OPEN_FILES: usize = 400;

impl OpenFileCache {
    fn start_generation(&mut self) {
        let before = self.generation;
        self.files.retain(|_, (used, _)| *used == before);
        self.generation += 1;
    }

    /// False where the file must be opened as usual.
    fn read(&mut self, path: &str, out: &mut Vec<u8>) -> bool {
        let Some((used, file)) = self.files.get_mut(path) else { return false };
        *used = self.generation;
        out.resize(1024, 0);
        match file.read_at(out, 0) {
            // As much as fits may not be all.
            Ok(length) if length < out.len() && length > 0 => {
                out.truncate(length);
                true
            }
            _ => {
                self.files.remove(path);
                false
            }
        }
    }

    fn insert(&mut self, path: &str, file: File) {
        if self.files.len() < MAX_OPEN_FILES {
            self.files.insert(path.to_owned(), (self.generation, file));
        }
    }
}

fn is_process_stat(path: &str) -> bool {
    let pid = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/stat"));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
}

impl LocalRoot {
    /// The three roots; `/proc`, `/sys` and `/` for the machine itself.
    pub fn new(procfs: &Path, sysfs: &Path, rootfs: &Path) -> Self {
        Self {
            is_relocated: procfs != Path::new("/proc"),
            procfs: procfs.to_owned(),
            sysfs: sysfs.to_owned(),
            rootfs: rootfs.to_owned(),
            open_files: Mutex::default(),
        }
    }

    fn resolve(&self, path: &str) -> PathBuf {
        if let Some(rest) = path.strip_prefix("/proc/") {
            self.procfs.join(rest)
        } else if let Some(rest) = path.strip_prefix("/sys/") {
            self.sysfs.join(rest)
        } else {
            self.rootfs.join(path.trim_start_matches('/'))
        }
    }

    /// In a container, `/proc/net` and `/proc/self` of the host's procfs are still the
    /// container's own; those of process 1 are the host's.
    fn through_init(&self, path: &str) -> Option<PathBuf> {
        if !self.is_relocated {
            return None;
        }
        let rest = path.strip_prefix("/proc/")?;
        let rest = rest.strip_prefix("self/").or_else(|| rest.starts_with("net/").then_some(rest))?;
        Some(self.procfs.join("1").join(rest))
    }
}

fn read_file(path: &Path, out: &mut Vec<u8>) -> io::Result<File> {
    out.clear();
    let file = File::open(path)?;
    // One byte more than allowed, so that a cut-off file is told from one that fits.
    (&file).take(MAX_FILE_BYTES + 1).read_to_end(out)?;
    if out.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(file)
}

impl Source for LocalRoot {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        if is_process_stat(path) {
            let mut kept = self.open_files.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.read(path, out) {
                return Ok(());
            }
            let file = read_file(&self.resolve(path), out)?;
            kept.insert(path, file);
            return Ok(());
        }
        if let Some(of_init) = self.through_init(path)
            && read_file(&of_init, out).is_ok()
        {
            return Ok(());
        }
        let result = read_file(&self.resolve(path), out).map(drop);
        if result.is_err() && path == "/proc/sys/kernel/arch" {
            // Only kernels from 6.1 on have the file; this build knows what it runs on.
            out.clear();
            out.extend_from_slice(std::env::consts::ARCH.as_bytes());
            return Ok(());
        }
        result
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        if path == "/proc" {
            self.open_files.lock().unwrap_or_else(PoisonError::into_inner).start_generation();
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.resolve(path))? {
            // Names that are no UTF-8 can't be metric instances; /proc and /sys have none.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        let path = self.resolve(path);
        // Since Linux 6.2 the size of /proc/PID/fd is the number of open descriptors.
        let size = std::fs::metadata(&path)?.len();
        if size > 0 {
            return Ok(size);
        }
        std::fs::read_dir(path)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
    }

    fn usage(&self, mount: &str) -> io::Result<FsUsage> {
        let stat = rustix::fs::statvfs(self.resolve(mount))?;
        let unit = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
        Ok(FsUsage {
            size: stat.f_blocks.saturating_mul(unit),
            free: stat.f_bfree.saturating_mul(unit),
            available: stat.f_bavail.saturating_mul(unit),
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
        })
    }

    fn page_size(&self) -> u64 {
        rustix::param::page_size() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relocated_root_reads_host_namespaces() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/net/dev", "container"), ("proc/1/net/dev", "host"), ("proc/stat", "cpu")]
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let source = LocalRoot::new(&root.path().join("proc"), &root.path().join("sys"), root.path());
        let mut out = b"old".to_vec();
        source.read("/proc/net/dev", &mut out).unwrap();
        assert_eq!(out, b"host");
        source.read("/proc/stat", &mut out).unwrap();
        assert_eq!(out, b"cpu");
        // Where process 1 can't be seen, the own namespace is better than nothing.
        std::fs::remove_dir_all(root.path().join("proc/1")).unwrap();
        source.read("/proc/net/dev", &mut out).unwrap();
        assert_eq!(out, b"container");
        assert_eq!(source.read("/proc/nothing", &mut out).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            source.usage("/").unwrap().size,
            LocalRoot::new(Path::new("/proc"), Path::new("/sys"), root.path()).usage("/").unwrap().size
        );
    }

    #[test]
    fn cached_files_are_closed_with_their_process() {
        let source = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let (mut first, mut again) = (Vec::new(), b"other".to_vec());
        source.read(&path, &mut first).unwrap();
        source.read(&path, &mut again).unwrap();
        let name =
            |text: &[u8]| String::from_utf8_lossy(text).split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(name(&first), name(&again));
        assert_eq!(source.open_files.lock().unwrap().files.len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(source.read(&path, &mut again).is_err());
        assert!(source.open_files.lock().unwrap().files.is_empty());
        // What nobody reads any more is closed.
        source.read("/proc/1/stat", &mut again).unwrap();
        source.list("/proc").unwrap();
        source.list("/proc").unwrap();
        assert!(source.open_files.lock().unwrap().files.is_empty());
    }
}
