//! Mounted filesystems from `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and statvfs(3).
//! The source reports an unresponsive mount as timed out; the collector skips it.

use crate::collector::{is_excluded, to_f64};
use crate::linux::mounts::{self, Mount};
use crate::parse::parse_error;
use crate::reading::Raw;
use crate::source::FsUsage;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("filesystem.size", Bytes, 0, "Filesystem size.")
        .with_dimension("mount")
        .rollup_last()
        .essential(),
    MetricDef::gauge("filesystem.used", Bytes, 0, "Used space.").with_dimension("mount"),
    MetricDef::gauge("filesystem.available", Bytes, 0, "Space available to unprivileged users.")
        .with_dimension("mount"),
    MetricDef::gauge("filesystem.used_percent", Percent, 2, "Used space in percent, as reported by df(1).")
        .with_dimension("mount")
        .essential(),
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

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/self/mountinfo";
    let mut mountinfo = Vec::new();
    cx.source.read(PATH, &mut mountinfo).map_err(|error| CollectError::from_io(PATH, &error))?;
    let (mounts, invalid) = mounts::parse(&mountinfo);
    if let Some(line) = invalid {
        cx.out.record_error(parse_error(PATH, &line).to_string());
    }
    let exclude = &cx.options.exclude_mounts;
    let mounts = mounts::select(mounts, |mount| !is_excluded(exclude, &mount.name()));
    let paths: Vec<PathBuf> = mounts.iter().map(|mount| mount.path.clone()).collect();
    let mut unresponsive = Vec::new();
    for (mount, usage) in mounts.iter().zip(cx.source.usages(&paths)) {
        let name: Arc<str> = mount.name().into();
        match usage {
            Ok(usage) if usage.size > 0 && mount.is_shown(usage.size) => {
                push_samples(cx, &name, mount, usage);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                cx.out.push_instance("filesystem.unresponsive", &name, Raw::Gauge(1.0));
                unresponsive.push(name);
            }
            // Mounted in another namespace, no permission, or a mounted file.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
                ) => {}
            Err(error) => cx.out.record_error(format!("{name:?}: {error}")),
        }
    }
    if !unresponsive.is_empty() {
        let names: Vec<String> =
            unresponsive.iter().take(MAX_NAMED_MOUNTS).map(|name| format!("{name:?}")).collect();
        let others = match unresponsive.len().saturating_sub(MAX_NAMED_MOUNTS) {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        cx.out.record_error(format!("no response from {}{others}; skipped", names.join(", ")));
    }
    Ok(())
}

/// Maximum number of unresponsive mounts that the error names.
const MAX_NAMED_MOUNTS: usize = 8;

fn push_samples(cx: &mut CollectContext<'_>, name: &Arc<str>, mount: &Mount, usage: FsUsage) {
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
        assert_eq!(
            part.errors,
            ["/proc/self/mountinfo: unexpected value \"garbage\"", "\"/nfs\": I/O error"]
        );
    }
}
