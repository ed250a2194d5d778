//! Mounted filesystems from `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and statvfs(3).
//! The source reports an unresponsive mount as timed out; the collector skips it.

use crate::collector::{is_excluded, to_f64, truncate_instance};
use crate::parse::{parse_error, text, unescape};
use crate::reading::Raw;
use crate::source::FsUsage;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};
use std::collections::HashMap;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("filesystem.size", Bytes, 0, "Filesystem size.").with_dimension("mount").rollup_last(),
    MetricDef::gauge("filesystem.used", Bytes, 0, "Used space.").with_dimension("mount"),
    MetricDef::gauge("filesystem.available", Bytes, 0, "Space available to unprivileged users.")
        .with_dimension("mount"),
    MetricDef::gauge("filesystem.used_percent", Percent, 2, "Used space in percent, as reported by df(1).")
        .with_dimension("mount"),
    MetricDef::gauge(
        "filesystem.inodes_used_percent",
        Percent,
        2,
        "Used inodes in percent; absent without a fixed inode count.",
    )
    .with_dimension("mount"),
    MetricDef::gauge("filesystem.read_only", Flag, 0, "1 if mounted read-only.")
        .with_dimension("mount")
        .rollup_last(),
    MetricDef::gauge("filesystem.unresponsive", Flag, 0, "1 while the mount does not respond to statvfs.")
        .with_dimension("mount"),
];

/// Runs at most every 10 s: sizes change slowly, and statvfs may access disks and networks.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "filesystem", metrics: METRICS, cadence: Cadence::AtMostEvery(10), read };

/// Types of filesystems that store no files or are full by design.
const PSEUDO_FILESYSTEMS: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
];

#[derive(Debug, PartialEq)]
struct Mount {
    device: String,
    path: String,
    fs_type: String,
    read_only: bool,
}

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/self/mountinfo";
    let (mounts, invalid) = parse(&text(cx.source, PATH)?);
    if let Some(line) = invalid {
        cx.out.record_error(parse_error(PATH, &line).to_string());
    }
    for mount in select_mounts(mounts, &cx.options.exclude_mounts) {
        let name = truncate_instance(&mount.path);
        match cx.source.usage(std::path::Path::new(&mount.path)) {
            Ok(usage) if usage.size > 0 => push_samples(cx, &name, &mount, usage),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                cx.out.push_instance("filesystem.unresponsive", &name, Raw::Gauge(1.0));
                cx.out.record_error(format!("{}: mount is unresponsive; skipped", mount.path));
            }
            // Mounted in another namespace, or no permission.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
                ) => {}
            Err(error) => cx.out.record_error(format!("{}: {error}", mount.path)),
        }
    }
    Ok(())
}

fn push_samples(cx: &mut CollectContext<'_>, name: &std::sync::Arc<str>, mount: &Mount, usage: FsUsage) {
    let used = usage.size.saturating_sub(usage.free);
    let usable = used.saturating_add(usage.available);
    let mut gauge = |metric, value| cx.out.push_instance(metric, name, Raw::Gauge(value));
    gauge("filesystem.size", to_f64(usage.size));
    gauge("filesystem.used", to_f64(used));
    gauge("filesystem.available", to_f64(usage.available));
    if usable > 0 {
        gauge("filesystem.used_percent", to_f64(used) / to_f64(usable) * 100.0);
    }
    if usage.inodes > 0 {
        let used = usage.inodes.saturating_sub(usage.inodes_free);
        gauge("filesystem.inodes_used_percent", to_f64(used) / to_f64(usage.inodes) * 100.0);
    }
    gauge("filesystem.read_only", f64::from(u8::from(mount.read_only)));
    gauge("filesystem.unresponsive", 0.0);
}

/// Parses mounts; also returns the first invalid line.
fn parse(mountinfo: &str) -> (Vec<Mount>, Option<String>) {
    let (mut mounts, mut invalid) = (Vec::new(), None);
    for line in mountinfo.lines().filter(|line| !line.trim().is_empty()) {
        match parse_line(line) {
            Some(mount) => mounts.push(mount),
            None => invalid = invalid.or_else(|| Some(line.to_owned())),
        }
    }
    (mounts, invalid)
}

/// Parses `36 35 98:0 /root /path options optional… - type source super-options`.
fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let (device, path) = (*left.get(2)?, *left.get(4)?);
    left.get(5)?;
    let mut right = right.split(' ');
    let (fs_type, super_options) = (right.next()?, right.nth(1).unwrap_or_default());
    Some(Mount {
        device: device.to_owned(),
        path: unescape(path),
        fs_type: fs_type.to_owned(),
        // Options of the filesystem, not of the mount: in a sandboxed service, every mount is
        // read-only.
        read_only: super_options.split(',').any(|option| option == "ro"),
    })
}

/// Selects real filesystems, each device once at its shortest mount point. A later mount hides an
/// earlier mount at the same path.
fn select_mounts(mounts: Vec<Mount>, exclude: &[String]) -> Vec<Mount> {
    let mut by_path: HashMap<String, Mount> = HashMap::new();
    for mount in mounts {
        by_path.insert(mount.path.clone(), mount);
    }
    let mut by_device: HashMap<String, Mount> = HashMap::new();
    for mount in by_path.into_values() {
        let is_nested_overlay = mount.fs_type == "overlay" && mount.path != "/";
        // Container runtimes bind-mount these files.
        let is_single_file =
            matches!(mount.path.as_str(), "/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf");
        if PSEUDO_FILESYSTEMS.contains(&mount.fs_type.as_str())
            || is_nested_overlay
            || is_single_file
            || is_excluded(exclude, &mount.path)
        {
            continue;
        }
        let rank = |m: &Mount| (m.path.len(), m.path.clone());
        match by_device.get(&mount.device) {
            Some(existing) if rank(existing) <= rank(&mount) => {}
            _ => {
                by_device.insert(mount.device.clone(), mount);
            }
        }
    }
    let mut mounts: Vec<Mount> = by_device.into_values().collect();
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, format_part};
    use crate::{Capture, CollectorOptions};

    #[test]
    fn mounts_are_deduplicated_and_unresponsive_ones_reported() {
        let text = "=== /proc/self/mountinfo\n22 1 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda rw\n\
             30 27 254:0 /data /srv/data rw - ext4 /dev/vda rw\n31 27 8:1 / /mnt/my\\040disk rw - xfs /dev/sda1 ro\n\
             32 27 0:50 / /nfs rw - nfs4 server:/x rw\n33 27 0:51 / /var/lib/docker/overlay2/x rw - overlay overlay rw\ngarbage\n\
             === / usage\n1000 400 300 100 25\n=== /mnt/my\\040disk usage\n100 0 0 0 0\n=== /nfs error usage\nI/O error\n";
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(text.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        assert_eq!(
            format_part(&part),
            "filesystem.size{/} 1000\nfilesystem.used{/} 600\nfilesystem.available{/} 300\nfilesystem.used_percent{/} 66.66666666666666\n\
             filesystem.inodes_used_percent{/} 75\nfilesystem.read_only{/} 0\nfilesystem.unresponsive{/} 0\n\
             filesystem.size{/mnt/my disk} 100\nfilesystem.used{/mnt/my disk} 100\nfilesystem.available{/mnt/my disk} 0\n\
             filesystem.used_percent{/mnt/my disk} 100\nfilesystem.read_only{/mnt/my disk} 1\nfilesystem.unresponsive{/mnt/my disk} 0\n"
        );
        assert_eq!(part.errors, ["/proc/self/mountinfo: unexpected value \"garbage\"", "/nfs: I/O error"]);
    }
}
