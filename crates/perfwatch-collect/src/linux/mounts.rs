//! Mounts from `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and the selection of those that are
//! filesystems with space of their own.

use crate::parse::unescape;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Types of filesystems that store no files of users.
const PSEUDO_FILESYSTEMS: &[&str] = &[
    "autofs",
    "bdev",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.vmware-vmblock",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tracefs",
    "usbfs",
    "zenfs",
];

/// Types of images: read-only and full by design.
const IMAGE_FILESYSTEMS: &[&str] = &["composefs", "cramfs", "erofs", "iso9660", "romfs", "squashfs"];
/// Parts of the names of FUSE programs that mount images.
const IMAGE_PROGRAMS: &[&str] =
    &["squash", "snapfuse", "appimage", "erofsfuse", "fuseiso", "archivemount", "dwarfs"];

/// Minimum size of a shown tmpfs. Smaller filesystems cannot fill up the memory.
const MIN_TMPFS_BYTES: u64 = 64 << 20;
/// Directories of the system's own tmpfs mounts.
const SYSTEM_TMPFS_DIRECTORIES: [&str; 7] =
    ["/dev", "/lib/init/rw", "/proc", "/run", "/sys", "/var/lock", "/var/run"];

/// Filesystem mounted at a path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mount {
    id: u64,
    /// Id of the parent mount.
    parent: u64,
    /// Device number, `MAJOR:MINOR`.
    device: String,
    /// Mount point.
    pub(crate) path: PathBuf,
    fs_type: String,
    super_options: String,
    /// True if the filesystem is read-only. The options of the filesystem decide, not those of the mount: in a
    /// sandboxed service, every mount is read-only.
    pub(crate) read_only: bool,
}

impl Mount {
    /// Mount point as text; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Returns whether a filesystem of this size is shown.
    pub(crate) fn is_shown(&self, size: u64) -> bool {
        self.fs_type != "tmpfs" || size >= MIN_TMPFS_BYTES
    }

    fn option(&self, key: &str) -> Option<&str> {
        self.super_options.split([',', ';']).find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    /// Returns whether the mount is an image that is full by design.
    fn is_image(&self) -> bool {
        let program = self.fs_type.strip_prefix("fuse.").unwrap_or_default().to_ascii_lowercase();
        IMAGE_FILESYSTEMS.contains(&self.fs_type.as_str())
            || IMAGE_PROGRAMS.iter().any(|part| program.contains(part))
            // AppImages of older runtimes.
            || self.fs_type.starts_with("fuse") && self.has_name_prefix(".mount_")
            // A disc; a disk with this filesystem is writable.
            || self.fs_type == "udf" && self.read_only
            // An overlay without a writable layer is an image (composefs), and its layers are shown elsewhere.
            || self.fs_type == "overlay" && self.read_only && self.option("upperdir").is_none()
    }

    fn has_name_prefix(&self, prefix: &str) -> bool {
        self.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    }

    /// Returns whether the mount has no space that is worth monitoring.
    fn is_pseudo(&self) -> bool {
        let is_below = |folder: &str| self.path.starts_with(folder);
        let is_union =
            matches!(self.fs_type.as_str(), "overlay" | "aufs" | "unionfs" | "fuse.fuse-overlayfs");
        let is_nested_union = is_union && self.path != Path::new("/");
        let is_system_tmpfs =
            self.fs_type == "tmpfs" && SYSTEM_TMPFS_DIRECTORIES.iter().any(|folder| is_below(folder));
        // Windows Subsystem for Linux: tools and drivers of the Windows side, each on a separate device.
        let is_wsl_internal = is_below("/mnt/wslg")
            || is_below("/mnt/wsl")
            || self.fs_type == "9p" && (is_below("/usr/lib/wsl") || self.path == Path::new("/init"));
        PSEUDO_FILESYSTEMS.contains(&self.fs_type.as_str())
            || is_nested_union
            || is_system_tmpfs
            || is_wsl_internal
            || self.is_single_file()
    }

    /// Returns whether the mount is that of a file; container runtimes mount these.
    fn is_single_file(&self) -> bool {
        matches!(self.path.to_str(), Some("/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf"))
    }
}

/// Parses mounts; also returns the first invalid line.
pub(crate) fn parse(mountinfo: &[u8]) -> (Vec<Mount>, Option<String>) {
    let (mut mounts, mut invalid) = (Vec::new(), None);
    for line in mountinfo.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match parse_line(line) {
            Some(mount) => mounts.push(mount),
            None => invalid = invalid.or_else(|| Some(String::from_utf8_lossy(line).into_owned())),
        }
    }
    (mounts, invalid)
}

/// Parses `36 35 98:0 /root /path options optional… - type source super-options`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let separator = line.windows(3).position(|window| window == b" - ")?;
    let left: Vec<&[u8]> = line[..separator].split(|&byte| byte == b' ').collect();
    let right = String::from_utf8_lossy(&line[separator + 3..]);
    let text = |index: usize| std::str::from_utf8(left.get(index)?).ok();
    let path = |index: usize| Some(PathBuf::from(OsString::from_vec(unescape(left.get(index)?))));
    left.get(5)?;
    let mut right = right.split(' ');
    // Type, source, options.
    let (fs_type, super_options) = (right.next()?, right.nth(1).unwrap_or_default());
    Some(Mount {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?.to_owned(),
        path: path(4)?,
        fs_type: fs_type.to_owned(),
        super_options: super_options.to_owned(),
        read_only: super_options.split(',').any(|option| option == "ro"),
    })
}

/// Selects the filesystems that are visible, included by the configuration, and have space of their own, each
/// once at its shortest mount point.
pub(crate) fn select(mounts: Vec<Mount>, is_included: impl Fn(&Mount) -> bool) -> Vec<Mount> {
    let visible = visible(&mounts);
    let mut by_filesystem: HashMap<String, Mount> = HashMap::new();
    for (mount, visible) in mounts.into_iter().zip(visible) {
        if !visible || mount.is_pseudo() || mount.is_image() || !is_included(&mount) {
            continue;
        }
        let key = filesystem_key(&mount);
        let rank = |m: &Mount| (m.path.as_os_str().len(), m.path.clone());
        match by_filesystem.get(&key) {
            Some(existing) if rank(existing) <= rank(&mount) => {}
            _ => {
                by_filesystem.insert(key, mount);
            }
        }
    }
    let mut mounts: Vec<Mount> = by_filesystem.into_values().collect();
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    mounts
}

/// Key of a filesystem. The device number identifies it, except on Windows Subsystem for Linux: each mount of
/// a directory of a Windows drive has its own.
fn filesystem_key(mount: &Mount) -> String {
    let drive = mount.option("path").filter(|_| mount.fs_type == "9p").and_then(|path| path.get(..2));
    match drive.filter(|drive| drive.ends_with(':')) {
        Some(drive) => format!("9p {}", drive.to_ascii_uppercase()),
        None => mount.device.clone(),
    }
}

/// Returns for each mount whether its mount point leads to it. A mount at the same path or at a path above
/// covers an earlier mount: statvfs would return the numbers of the other filesystem.
fn visible(mounts: &[Mount]) -> Vec<bool> {
    let by_id: HashMap<u64, usize> =
        mounts.iter().enumerate().map(|(index, mount)| (mount.id, index)).collect();
    // Last mount at each path of a parent; lines are in the order of mounting.
    let by_place: HashMap<(u64, &Path), usize> =
        mounts.iter().enumerate().map(|(index, mount)| ((mount.parent, &*mount.path), index)).collect();
    let is_covered = |index: usize| {
        let mount = &mounts[index];
        let parent = by_id.get(&mount.parent).copied();
        let by_sibling = mount.path.ancestors().any(|path| {
            // The root mount may be its own parent.
            let sibling = by_place.get(&(mount.parent, path));
            let sibling = sibling.filter(|&&other| other != index && Some(other) != parent);
            sibling.is_some_and(|&other| path != mount.path || other > index)
        });
        let by_child = by_place.get(&(mount.id, &*mount.path)).is_some_and(|&child| child != index);
        by_sibling || by_child
    };
    let covered: Vec<bool> = (0..mounts.len()).map(is_covered).collect();
    let is_visible = |start: usize| {
        let (mut index, mut seen) = (start, HashSet::from([start]));
        // Mounts below a covered mount are not visible either.
        while !covered[index] {
            let parent_of = |index: usize| by_id.get(&mounts[index].parent).copied();
            let mut below = parent_of(index).filter(|&below| seen.insert(below));
            // What covers its parent is in the parent's place, however many are stacked there.
            while let Some(covered) = below.filter(|&below| mounts[below].path == mounts[index].path) {
                below = parent_of(covered).filter(|&below| seen.insert(below));
            }
            match below {
                Some(below) => index = below,
                None => return true,
            }
        }
        false
    };
    (0..mounts.len()).map(is_visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(mountinfo: &str) -> String {
        let lines = mountinfo.replace("; ", "\n");
        let (mounts, invalid) = parse(lines.as_bytes());
        assert_eq!(invalid, None, "{mountinfo}");
        let mounts = select(mounts, |mount| !mount.path.starts_with("/excluded"));
        mounts.iter().map(Mount::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn filesystems_with_space_of_their_own_are_selected() {
        for (kind, mountinfo, expected) in [
            ("device once", "27 1 8:1 / / rw - ext4 a rw; 28 27 8:1 /x /srv rw - ext4 a rw", "/"),
            ("overlay of a container", "27 1 0:9 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b", "/"),
            (
                "image",
                "27 1 0:9 / / ro - overlay composefs ro,lowerdir+=/a; 28 27 8:4 / /var rw - xfs a rw",
                "/var",
            ),
            (
                "image without overlay",
                "27 1 0:9 / / ro - erofs composefs ro; 28 27 8:4 / /x rw - fuse.App.AppImage a ro",
                "",
            ),
            ("mounted program", "27 1 0:9 / /tmp/.mount_appXy ro - fuse app ro", ""),
            (
                "memory",
                "27 1 0:9 / /tmp rw - tmpfs a rw; 28 1 0:8 / /run/user/1 rw - tmpfs a rw; 29 1 0:7 / /dev/shm rw - tmpfs a rw",
                "/tmp",
            ),
            (
                "Windows Subsystem for Linux",
                "27 1 8:16 / / rw - ext4 a rw; 28 27 0:52 / /mnt/c rw - 9p C:\\134 rw,aname=drvfs;path=C:\\; \
                 29 27 0:53 / /usr/lib/wsl/lib ro - 9p lib ro,aname=lib; 30 27 0:54 /init /init ro - 9p tools ro; \
                 31 27 0:55 / /mnt/wslg/x rw - ext4 a rw; 32 27 0:56 /d /data rw - 9p C:\\134 rw,aname=drvfs;path=c:\\d",
                "/ /data",
            ),
            (
                "excluded",
                "27 1 8:1 / /excluded/a rw - ext4 a rw; 28 1 8:1 / /other/longer rw - ext4 a rw",
                "/other/longer",
            ),
            ("file of a container", "27 1 8:1 /x /etc/hosts rw - ext4 a rw", ""),
        ] {
            assert_eq!(selected(mountinfo), expected, "{kind}");
        }
    }

    #[test]
    fn covered_mounts_are_left_out() {
        let root = "27 1 8:1 / / rw - ext4 a rw; ";
        for (kind, mounts, expected) in [
            (
                "by a mount above",
                "30 27 8:2 / /mnt/usb rw - ext4 a rw; 31 27 8:3 / /mnt rw - ext4 b rw",
                "/ /mnt",
            ),
            (
                "not if mounted later",
                "31 27 8:3 / /mnt rw - ext4 b rw; 32 31 8:2 / /mnt/usb rw - ext4 a rw",
                "/ /mnt /mnt/usb",
            ),
            ("at the same path", "30 27 8:2 / /mnt rw - ext4 a rw; 31 30 8:3 / /mnt rw - xfs b rw", "/ /mnt"),
            (
                "with what is mounted on it",
                "30 27 8:2 / /mnt rw - ext4 a rw; 32 30 8:4 / /mnt/x rw - ext4 c rw; 31 27 8:3 / /mnt rw - ext4 b rw",
                "/ /mnt",
            ),
            (
                "not on top of an automount",
                "30 27 0:40 / /mnt rw - autofs a rw; 31 30 0:41 / /mnt rw - nfs4 b rw; 32 31 8:4 / /mnt/x rw - ext4 c rw",
                "/ /mnt /mnt/x",
            ),
            (
                "unless the names only begin alike",
                "30 27 8:2 / /mnt2 rw - ext4 a rw; 31 27 8:3 / /mnt rw - ext4 b rw",
                "/ /mnt /mnt2",
            ),
            (
                "three at the same path",
                "30 27 0:40 / /efi rw - autofs a rw; 31 30 8:5 / /efi rw - vfat x rw; 32 31 8:6 / /efi rw - vfat y rw; \
                 33 32 8:7 / /efi/x rw - ext4 z rw",
                "/ /efi /efi/x",
            ),
            ("without end", "30 31 8:2 / /a rw - ext4 a rw; 31 30 8:3 / /b rw - ext4 b rw", "/ /a /b"),
        ] {
            assert_eq!(selected(&format!("{root}{mounts}")), expected, "{kind}");
        }
    }

    #[test]
    fn root_mount_may_be_its_own_parent() {
        let mounts = "1 1 0:2 / / rw - rootfs rootfs rw; 20 1 8:1 / /boot rw - vfat a rw; 21 1 9:1 / /mnt rw - xfs b rw";
        assert_eq!(selected(mounts), "/boot /mnt");
    }

    #[test]
    fn paths_may_contain_any_bytes() {
        let (mounts, _) = parse(b"30 27 8:1 / /mnt/caf\xe9\\040x rw - vfat /dev/sdb1 rw\n");
        assert_eq!(mounts[0].path.as_os_str().as_encoded_bytes(), b"/mnt/caf\xe9 x");
        assert_eq!(mounts[0].name(), "/mnt/caf\u{fffd} x");
    }
}
