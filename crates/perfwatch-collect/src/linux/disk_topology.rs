//! Block devices that make up the disk totals. A device that repeats the I/O of others is recognized by
//! the kernel's own links below `/sys/block` (kernel document ABI/stable/sysfs-block): `slaves`, `holders`,
//! `hidden`.

use crate::Source;
use crate::parse::number;
use std::collections::{HashMap, HashSet};

/// Properties of the devices of `/proc/diskstats`, in its order.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct DiskTopology {
    /// Devices that are not partitions, whose device counts the same requests.
    pub(crate) whole: Vec<bool>,
    /// Devices that are part of the totals.
    pub(crate) counted: Vec<bool>,
    /// Device that a hidden path belongs to.
    pub(crate) head_of: Vec<Option<usize>>,
    /// Devices with a medium; others are unused numbers (nbd) and drives without a disk.
    pub(crate) has_medium: Vec<bool>,
}

/// Prefixes of devices in memory or in a file of another device, or that replicate one without a link.
const BACKED_PREFIXES: [&str; 6] = ["loop", "ram", "zram", "zd", "drbd", "nullb"];
/// Prefixes of devices that usually have others below; used if the kernel does not list them.
const STACKED_PREFIXES: [&str; 4] = ["dm-", "md", "bcache", "nbd"];
/// Prefixes of drives that report a size without a medium.
const DISC_PREFIXES: [&str; 2] = ["sr", "fd"];
/// Prefixes of devices that exist without a medium; used if their size is unknown.
const REMOVABLE_PREFIXES: [&str; 6] = ["sr", "fd", "nbd", "loop", "ram", "zram"];

fn has_prefix(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

impl DiskTopology {
    /// Reads the properties of the devices with these names. `is_included` tells which devices the
    /// configuration includes.
    pub(crate) fn read(source: &dyn Source, names: &[&str], is_included: impl Fn(&str) -> bool) -> Self {
        let listed = source.list("/sys/block").ok();
        // In /sys, a slash in a name (cciss/c0d0) is written as an exclamation mark.
        let listed: Option<HashSet<String>> =
            listed.map(|names| names.into_iter().map(|name| name.replace('!', "/")).collect());
        let is_whole = |name: &&str| match &listed {
            Some(listed) => listed.contains(*name),
            None => !is_partition_name(name, names) && multipath_head(name).is_none(),
        };
        let whole: Vec<bool> = names.iter().map(is_whole).collect();
        let devices: Vec<Option<Device>> =
            names.iter().zip(&whole).map(|(name, whole)| whole.then(|| Device::read(source, name))).collect();
        // Partitions and devices by the device that counts their requests.
        let mut owner: HashMap<&str, usize> = HashMap::new();
        for (index, device) in devices.iter().enumerate() {
            let Some(device) = device.as_ref().filter(|_| is_included(names[index])) else { continue };
            owner.insert(names[index], index);
            owner.extend(device.partitions.iter().map(|partition| (partition.as_str(), index)));
        }
        let holders: HashSet<&str> = devices
            .iter()
            .enumerate()
            .filter(|(index, _)| is_included(names[*index]))
            .flat_map(|(_, device)| device.iter().flat_map(|device| &device.holders))
            .map(String::as_str)
            .collect();
        let is_stacked = |index: usize, device: &Device| {
            let below =
                device.slaves.iter().any(|slave| owner.get(slave.as_str()).is_some_and(|&i| i != index));
            let is_unlisted = device.slaves.is_empty() && !device.lists_slaves;
            below
                || device.is_hidden
                || holders.contains(names[index])
                || is_unlisted && has_prefix(names[index], &STACKED_PREFIXES)
        };
        let has_medium = |(name, device): (&&str, &Option<Device>)| match device {
            Some(Device { sectors: Some(sectors), is_removable, .. }) => {
                *sectors > 0 && !(*is_removable && has_prefix(name, &DISC_PREFIXES))
            }
            _ => !has_prefix(name, &REMOVABLE_PREFIXES),
        };
        let has_medium: Vec<bool> = names.iter().zip(&devices).map(has_medium).collect();
        let select = |condition: &dyn Fn(usize, &Device) -> bool| -> Option<Vec<bool>> {
            let is_selected = |(index, device): (usize, &Option<Device>)| {
                device.as_ref().is_some_and(|device| is_included(names[index]) && condition(index, device))
            };
            let selected: Vec<bool> = devices.iter().enumerate().map(is_selected).collect();
            // An empty drive is not the disk of a host.
            let is_disk = |(index, selected): (usize, &bool)| {
                let device = devices[index].as_ref();
                let is_empty = device.is_some_and(|device| device.sectors == Some(0));
                *selected && !is_empty && !has_prefix(names[index], &DISC_PREFIXES)
            };
            selected.iter().enumerate().any(is_disk).then_some(selected)
        };
        let counted = select(&|index, device| {
            !is_stacked(index, device)
                && !has_prefix(names[index], &BACKED_PREFIXES)
                && !names[index].starts_with("nbd")
        })
        // The only disk of the host: a network block device, a volume of the machine around a container.
        .or_else(|| select(&|index, device| names[index].starts_with("nbd") && !device.is_hidden))
        .or_else(|| select(&|index, device| !is_stacked(index, device)))
        .or_else(|| select(&|_, device| !device.is_hidden))
        .unwrap_or_else(|| vec![false; names.len()]);
        let head_of = |(name, device): (&&str, &Option<Device>)| {
            device.as_ref().filter(|device| device.is_hidden)?;
            owner.get(multipath_head(name)?.as_str()).copied()
        };
        let head_of = names.iter().zip(&devices).map(head_of).collect();
        Self { whole, counted, head_of, has_medium }
    }
}

/// Name of the NVMe device that a path belongs to: `nvme0c1n1` → `nvme0n1`.
fn multipath_head(path: &str) -> Option<String> {
    let numbers = path.strip_prefix("nvme")?;
    let (subsystem, remaining) = numbers.split_once('c')?;
    let (controller, namespace) = remaining.split_once('n')?;
    let are_numbers = [subsystem, controller, namespace]
        .iter()
        .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    are_numbers.then(|| format!("nvme{subsystem}n{namespace}"))
}

/// Entries of a device in `/sys/block`.
struct Device {
    /// A path of a multipath device, which counts the same requests.
    is_hidden: bool,
    is_removable: bool,
    /// Size; `None` if unknown.
    sectors: Option<u64>,
    partitions: Vec<String>,
    /// True if the kernel lists the devices below.
    lists_slaves: bool,
    slaves: Vec<String>,
    /// Devices on top of this device and its partitions.
    holders: Vec<String>,
}

impl Device {
    fn read(source: &dyn Source, name: &str) -> Self {
        let entry = name.replace('/', "!");
        let folder = format!("/sys/block/{entry}");
        let entries = source.list(&folder).unwrap_or_default();
        let flag = |file: &str| number::<u8>(source, &format!("{folder}/{file}")).is_ok_and(|flag| flag == 1);
        let is_partition = |name: &&String| name.len() > entry.len() && name.starts_with(&entry);
        let partitions: Vec<String> = entries.iter().filter(is_partition).cloned().collect();
        let slaves = source.list(&format!("{folder}/slaves")).ok();
        let mut holders = source.list(&format!("{folder}/holders")).unwrap_or_default();
        for partition in &partitions {
            holders.extend(source.list(&format!("{folder}/{partition}/holders")).unwrap_or_default());
        }
        Self {
            is_hidden: flag("hidden"),
            is_removable: flag("removable"),
            sectors: number(source, &format!("{folder}/size")).ok(),
            partitions,
            // Replicated devices have no link to the device below.
            lists_slaves: slaves.is_some(),
            slaves: slaves.unwrap_or_default(),
            holders,
        }
    }
}

/// Returns whether a name is that of a partition of another listed device: `sda1`, `sata1p3`, `nbd0p1`.
/// Used only if `/sys` cannot be listed.
fn is_partition_name(name: &str, names: &[&str]) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    let after_digit = stem.strip_suffix('p').filter(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    names.contains(&after_digit.unwrap_or(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capture;

    /// Names of the counted devices. Each line is `NAME: ENTRY…`; an entry may be `FILE=CONTENT` or
    /// `FOLDER/NAME`.
    fn counted(sysfs: &str) -> String {
        use std::collections::BTreeMap;
        use std::fmt::Write as _;
        let (mut names, mut text) = (Vec::new(), String::new());
        let mut folders: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for line in sysfs.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, entries) = line.split_once(':').unwrap();
            names.push(name);
            let folder = format!("/sys/block/{name}");
            folders.entry("/sys/block".to_owned()).or_default().push(name);
            for entry in entries.split_ascii_whitespace() {
                if let Some((file, content)) = entry.split_once('=') {
                    folders.entry(folder.clone()).or_default().push(file);
                    let _ = writeln!(text, "=== {folder}/{file}\n{content}");
                } else if let Some((inner, name)) = entry.rsplit_once('/') {
                    folders.entry(folder.clone()).or_default().push(inner.split('/').next().unwrap());
                    folders
                        .entry(format!("{folder}/{inner}"))
                        .or_default()
                        .extend((!name.is_empty()).then_some(name));
                } else {
                    folders.entry(folder.clone()).or_default().push(entry);
                }
            }
        }
        for (folder, names) in folders {
            let _ = writeln!(text, "=== {folder} list\n{}", names.join("\n"));
        }
        let capture = Capture::parse(text.as_bytes()).unwrap();
        let topology = DiskTopology::read(&capture, &names, |name| !name.starts_with("loop"));
        let counted = names.iter().zip(topology.counted).filter(|(_, counted)| *counted);
        counted.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn requests_are_counted_once() {
        for (kind, sysfs, expected) in [
            ("volumes of ZFS", "sda: device\nzd0:\nzd16:", "sda"),
            ("volumes of ZFS in a container", "zd0:\nzd16:", "zd0 zd16"),
            ("logical volume on a partition", "sda: device sda1 sda2\ndm-0: slaves/sda2", "sda"),
            ("logical volume by its holder", "sda: sda2 sda2/holders/dm-0\ndm-0: slaves/", "sda"),
            ("logical volume of a container", "dm-5: slaves/sda3", "dm-5"),
            ("RAID", "sda: device\nsdb: device\nmd0: slaves/sda slaves/sdb", "sda sdb"),
            ("RAID without links", "sda: device\nmd0:", "sda"),
            ("paths of NVMe", "nvme0n1: device\nnvme0c0n1: hidden=1\nnvme0c1n1: hidden=1", "nvme0n1"),
            ("network block device beside a disk", "sda: device\nnbd0:", "sda"),
            ("root on a network block device", "nbd0:", "nbd0"),
            ("RADOS block devices", "sda: device\nrbd0:", "sda rbd0"),
            ("swap in memory", "vda: device\nzram0:", "vda"),
            ("an empty drive beside the only disk", "nbd0:\nsr0: size=2097151 removable=1\nfd0:", "nbd0"),
            ("excluded disks below", "loop0:\ndm-0: slaves/loop0", "dm-0"),
        ] {
            assert_eq!(counted(sysfs), expected, "{kind}");
        }
    }

    #[test]
    fn partitions_are_recognized_by_name() {
        for (names, expected) in [
            ("sda sda1", "sda"),
            ("nvme0n1 nvme0n1p2 mmcblk0 mmcblk0p1 mmcblk0boot0", "nvme0n1 mmcblk0 mmcblk0boot0"),
            ("sata1 sata1p3 synoboot synoboot1", "sata1 synoboot"),
            ("nbd0 nbd0p1 rbd0 rbd0p1", "nbd0 rbd0"),
            ("dm-1 dm-11 md127 md127p1", "dm-1 dm-11 md127"),
            // Virtual machines whose partitions have no disk.
            ("xvda1 xvda2", "xvda1 xvda2"),
        ] {
            let names: Vec<&str> = names.split(' ').collect();
            let whole = names.iter().filter(|name| !is_partition_name(name, &names));
            assert_eq!(whole.copied().collect::<Vec<_>>().join(" "), expected);
        }
    }
}
