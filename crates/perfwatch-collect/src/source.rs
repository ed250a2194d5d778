//! File access behind a relocatable root, so that the same collectors read the local host, the
//! host of a container, and captures.

use crate::open_files::{FileClass, OpenFiles, read_file};
use crate::process_listing::{ProcessListing, ThreadCounts};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Size of a mounted filesystem, from statvfs(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsUsage {
    /// Total size in bytes.
    pub size: u64,
    /// Free bytes, reserved blocks included.
    pub free: u64,
    /// Free bytes available to unprivileged users.
    pub available: u64,
    /// Total inodes; 0 if the filesystem has no fixed number.
    pub inodes: u64,
    /// Number of free inodes.
    pub inodes_free: u64,
}

/// Directory of the processes.
pub(crate) const PROCESSES: &str = "/proc";

/// Read access of collectors to a host. Paths are absolute paths on the monitored host.
pub trait Source: Send + Sync {
    /// Replaces the content of `out` by that of the file.
    ///
    /// # Errors
    /// Returns the I/O error unchanged.
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()>;
    /// Lists the names in a directory, in any order.
    ///
    /// # Errors
    /// Returns the I/O error unchanged.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Lists the pids of the processes, in any order.
    ///
    /// # Errors
    /// Returns the I/O error unchanged.
    fn process_ids(&self) -> io::Result<Vec<u32>> {
        Ok(self.list(PROCESSES)?.iter().filter_map(|name| name.parse().ok()).collect())
    }
    /// Counts the names in a directory; cheaper than [`Source::list`] if the kernel counts.
    ///
    /// # Errors
    /// Returns the I/O error unchanged.
    fn count(&self, path: &str) -> io::Result<u64>;
    /// Reads the target of a symbolic link, relative or absolute as the kernel wrote it.
    ///
    /// # Errors
    /// Returns the I/O error unchanged; an entry that is not a link is an error too.
    fn link(&self, path: &str) -> io::Result<String>;
    /// Returns the size of the filesystem mounted at a path. Mount points need not be UTF-8.
    ///
    /// # Errors
    /// Returns the I/O error unchanged, and [`io::ErrorKind::TimedOut`] for an unresponsive mount.
    fn usage(&self, mount: &Path) -> io::Result<FsUsage>;
    /// Returns the sizes of several filesystems, in the given order. A source on which a mount can hang
    /// queries them concurrently, so that all unresponsive mounts together cost one timeout.
    fn usages(&self, mounts: &[PathBuf]) -> Vec<io::Result<FsUsage>> {
        mounts.iter().map(|mount| self.usage(mount)).collect()
    }
    /// Size of a memory page in bytes.
    fn page_size(&self) -> u64;
}

/// Source that reads this machine, or a machine whose `/proc`, `/sys` and `/` are mounted at other
/// paths (a container that monitors its host).
#[derive(Debug)]
pub struct LocalRoot {
    procfs: PathBuf,
    sysfs: PathBuf,
    rootfs: PathBuf,
    is_relocated: bool,
    /// Whether the newest pid in `loadavg` is that of the processes.
    has_current_loadavg: bool,
    pub(crate) open_files: OpenFiles,
    listing: Mutex<ProcessListing>,
}

impl LocalRoot {
    /// Creates a source with the given roots; `/proc`, `/sys` and `/` for the machine itself.
    pub fn new(procfs: &Path, sysfs: &Path, rootfs: &Path) -> Self {
        Self {
            is_relocated: procfs != Path::new("/proc"),
            has_current_loadavg: has_current_loadavg(procfs),
            procfs: procfs.to_owned(),
            sysfs: sysfs.to_owned(),
            rootfs: rootfs.to_owned(),
            open_files: OpenFiles::default(),
            listing: Mutex::default(),
        }
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        for (prefix, root) in [("/proc", &self.procfs), ("/sys", &self.sysfs), ("/", &self.rootfs)] {
            if let Ok(remaining) = path.strip_prefix(prefix) {
                // Joining an empty path would add a slash.
                let is_root = remaining.as_os_str().is_empty();
                return if is_root { root.clone() } else { root.join(remaining) };
            }
        }
        self.rootfs.join(path)
    }

    /// Path of a file. Symbolic links of another root lead within that root.
    fn resolve_file(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let is_of_root = !path.starts_with("/proc") && !path.starts_with("/sys");
        if is_of_root && self.rootfs != Path::new("/") {
            resolve_in_root(&self.rootfs, path)
        } else {
            self.resolve(path)
        }
    }

    /// Counts of threads; `None` if they are not those of the listed processes at this time.
    fn thread_counts(&self) -> Option<ThreadCounts> {
        if self.is_relocated || !self.has_current_loadavg {
            return None;
        }
        let mut buffer = Vec::new();
        self.read("/proc/loadavg", &mut buffer).ok()?;
        ThreadCounts::parse(&buffer)
    }

    /// Path of the same file in `/proc/1`. In a container, `/proc/net` and `/proc/self` of the
    /// host's procfs still refer to the container; those of process 1 refer to the host.
    fn through_init(&self, path: &str) -> Option<PathBuf> {
        if !self.is_relocated {
            return None;
        }
        let remaining = path.strip_prefix("/proc/")?;
        let remaining =
            remaining.strip_prefix("self/").or_else(|| remaining.starts_with("net/").then_some(remaining))?;
        Some(self.procfs.join("1").join(remaining))
    }
}

/// Maximum number of symbolic links in a path, as in the kernel (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Resolves a path as a process does whose root directory is `root` (chroot(2)).
fn resolve_in_root(root: &Path, path: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut remaining = parts(path);
    let (mut resolved, mut links) = (PathBuf::new(), 0);
    while let Some(part) = remaining.pop() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(_)) => {
                let target = std::fs::read_link(root.join(&resolved).join(&part));
                match target.ok().filter(|_| links < MAX_SYMLINKS) {
                    Some(target) => {
                        links += 1;
                        if target.is_absolute() {
                            resolved = PathBuf::new();
                        }
                        remaining.extend(parts(&target));
                    }
                    None => resolved.push(part),
                }
            }
            Some(Component::ParentDir) => {
                resolved.pop();
            }
            _ => {}
        }
    }
    root.join(resolved)
}

/// Returns whether the kernel itself writes `loadavg`, and with the newest pid of the namespace of `procfs`. In containers
/// of LXC, LXCFS may write it every few seconds. The newest pid is that of the namespace of the reader, whose `self` is
/// another process in the procfs of another namespace.
fn has_current_loadavg(procfs: &Path) -> bool {
    let is_of_kernel = rustix::fs::statfs(procfs.join("loadavg"))
        .is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC);
    let own_pid = std::process::id().to_string();
    is_of_kernel && std::fs::read_link(procfs.join("self")).is_ok_and(|target| target == Path::new(&own_pid))
}

impl Source for LocalRoot {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let class = FileClass::of_path(path);
        if let Some(class) = class
            && self.open_files.read(class, path, out)
        {
            return Ok(());
        }
        let keep_open = |file| {
            if let Some(class) = class {
                self.open_files.insert(class, path, file);
            }
        };
        if let Some(init_path) = self.through_init(path)
            && let Ok(file) = read_file(&init_path, out)
        {
            keep_open(file);
            return Ok(());
        }
        let result = read_file(&self.resolve_file(path), out).map(keep_open);
        if result.is_err() && path == "/proc/sys/kernel/arch" {
            // Kernels before 6.1 do not have the file; the build knows its architecture.
            out.clear();
            out.extend_from_slice(std::env::consts::ARCH.as_bytes());
            return Ok(());
        }
        result
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.resolve_file(path))? {
            // Names that are not UTF-8 cannot be instances; /proc and /sys have none.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn process_ids(&self) -> io::Result<Vec<u32>> {
        self.open_files.start_generation();
        let counts = self.thread_counts();
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.pids(&self.procfs, counts).map(<[u32]>::to_vec)
    }

    fn count(&self, path: &str) -> io::Result<u64> {
        let path = self.resolve(Path::new(path));
        // Since Linux 6.2 the size of /proc/PID/fd is the number of open descriptors.
        let size = std::fs::metadata(&path)?.len();
        if size > 0 {
            return Ok(size);
        }
        std::fs::read_dir(path)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
    }

    fn link(&self, path: &str) -> io::Result<String> {
        let target = std::fs::read_link(self.resolve(Path::new(path)))?;
        target.into_os_string().into_string().map_err(|_| io::Error::other("link target is not UTF-8"))
    }

    fn usage(&self, mount: &Path) -> io::Result<FsUsage> {
        let path = self.resolve(mount);
        // Container runtimes mount single files of a disk.
        if !std::fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let stat = rustix::fs::statvfs(&path)?;
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
    fn loadavg_of_another_file_system_has_no_thread_counts() {
        let counts =
            |procfs: &Path| LocalRoot::new(procfs, "/sys".as_ref(), "/".as_ref()).has_current_loadavg;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("loadavg"), "0.20 0.18 0.12 1/80 11206\n").unwrap();
        assert!(counts("/proc".as_ref()) && !counts(folder.path()));
    }

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
        // Without access to process 1, the container's own namespace is read.
        std::fs::remove_dir_all(root.path().join("proc/1")).unwrap();
        source.read("/proc/net/dev", &mut out).unwrap();
        assert_eq!(out, b"container");
        assert_eq!(source.read("/proc/nothing", &mut out).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            source.usage(Path::new("/")).unwrap().size,
            LocalRoot::new(Path::new("/proc"), Path::new("/sys"), root.path())
                .usage(Path::new("/"))
                .unwrap()
                .size
        );
    }

    #[test]
    fn symbolic_links_lead_within_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/static")).unwrap();
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        std::fs::write(root.path().join("usr/lib/os-release"), "host").unwrap();
        for (link, target) in [
            ("etc/absolute", "/usr/lib/os-release"),
            ("etc/relative", "../usr/lib/os-release"),
            ("etc/above", "../../../usr/lib/os-release"),
            ("etc/static/chain", "/etc/absolute"),
            ("etc/endless", "/etc/endless"),
        ] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        let source = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), root.path());
        let mut out = Vec::new();
        for path in ["/etc/absolute", "/etc/relative", "/etc/above", "/etc/static/chain"] {
            source.read(path, &mut out).unwrap();
            assert_eq!(out, b"host", "{path}");
        }
        assert!(source.read("/etc/endless", &mut out).is_err());
    }
}
