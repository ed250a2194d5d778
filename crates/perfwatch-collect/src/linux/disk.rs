//! Block devices from `/proc/diskstats` (kernel document admin-guide/iostats.rst).
//! Partitions are skipped, because their device counts the same requests.

use crate::collector::{is_excluded, truncate_instance};
use crate::parse::{parse_error, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::rate("disk.total.read_bytes", BytesPerSecond, 0, "Bytes read from all physical devices.")
        .summed(),
    MetricDef::rate("disk.total.write_bytes", BytesPerSecond, 0, "Bytes written to all physical devices.")
        .summed(),
    MetricDef::rate("disk.read_bytes", BytesPerSecond, 0, "Bytes read from the device.")
        .with_dimension("device"),
    MetricDef::rate("disk.write_bytes", BytesPerSecond, 0, "Bytes written to the device.")
        .with_dimension("device"),
    MetricDef::rate("disk.read_iops", PerSecond, 1, "Completed reads.").with_dimension("device"),
    MetricDef::rate("disk.write_iops", PerSecond, 1, "Completed writes.").with_dimension("device"),
    MetricDef::ratio(
        "disk.read_latency",
        Milliseconds,
        2,
        "Mean read latency, queueing included; 0 without reads.",
    )
    .with_dimension("device"),
    MetricDef::ratio(
        "disk.write_latency",
        Milliseconds,
        2,
        "Mean write latency, queueing included; 0 without writes.",
    )
    .with_dimension("device"),
    // The raw rate is milliseconds per second; 1,000 equals a constant queue length of 1.
    MetricDef::rate("disk.queue_length", Count, 2, "Average number of requests in flight.")
        .with_dimension("device")
        .with_factor(1e-3),
    MetricDef::rate("disk.utilization", Percent, 1, "Time with at least one request in flight.")
        .with_dimension("device")
        .with_factor(0.1),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "disk", metrics: METRICS, cadence: Cadence::EveryTick, read };

/// Unit of the kernel's sector counters, independent of the device's sector size.
const SECTOR_BYTES: u64 = 512;

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/diskstats";
    let text = text(cx.source, PATH)?;
    let whole_devices = cx.source.list("/sys/block").ok();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(name) = words.get(2) else {
            cx.out.record_error(parse_error(PATH, line).to_string());
            continue;
        };
        let is_whole = match &whole_devices {
            // In /sys, a slash in a name (cciss/c0d0) is written as an exclamation mark.
            Some(devices) => devices.iter().any(|device| device.replace('!', "/") == *name),
            None => !is_partition_name(name),
        };
        if !is_whole || is_excluded(&cx.options.exclude_devices, name) {
            continue;
        }
        let counters: Vec<u64> = words[3..].iter().map_while(|word| word.parse().ok()).collect();
        let [reads, _, read_sectors, read_ms, writes, _, write_sectors, write_ms, _, busy_ms, queue_ms, ..] =
            counters[..]
        else {
            cx.out.record_error(parse_error(PATH, line).to_string());
            continue;
        };
        // Drives without a medium and unused virtual devices would only add constant zeros.
        if reads == 0 && writes == 0 {
            continue;
        }
        let (read, written) =
            (read_sectors.saturating_mul(SECTOR_BYTES), write_sectors.saturating_mul(SECTOR_BYTES));
        let device = truncate_instance(name);
        if !is_stacked(name) {
            cx.out.push_instance("disk.total.read_bytes", &device, Raw::Counter(read));
            cx.out.push_instance("disk.total.write_bytes", &device, Raw::Counter(written));
        }
        for (metric, raw) in [
            ("disk.read_bytes", Raw::Counter(read)),
            ("disk.write_bytes", Raw::Counter(written)),
            ("disk.read_iops", Raw::Counter(reads)),
            ("disk.write_iops", Raw::Counter(writes)),
            ("disk.read_latency", Raw::Ratio { numerator: read_ms, denominator: reads }),
            ("disk.write_latency", Raw::Ratio { numerator: write_ms, denominator: writes }),
            ("disk.queue_length", Raw::Counter(queue_ms)),
            ("disk.utilization", Raw::Counter(busy_ms)),
        ] {
            cx.out.push_instance(metric, &device, raw);
        }
    }
    Ok(())
}

/// Returns whether the requests of a device are counted again by underlying devices.
fn is_stacked(name: &str) -> bool {
    ["dm-", "md", "drbd", "bcache", "zram", "nbd"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns whether a name is that of a partition: sda1, vdb2, nvme0n1p3, mmcblk0p1. Used only if
/// `/sys` cannot be listed.
fn is_partition_name(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    if name.starts_with("nvme") || name.starts_with("mmcblk") {
        return stem.ends_with('p');
    }
    ["sd", "vd", "hd", "xvd"].iter().any(|prefix| stem.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    const STATS: &str = "   8       0 sda 10 1 100 5 20 2 200 8 0 30 40 0 0 0 0\n   8       1 sda1 9 0 90 4 20 2 200 8 0 30 40\n \
                         253 0 dm-0 10 0 100 5 20 0 200 8 0 30 40\n 11 0 sr0 0 0 0 0 0 0 0 0 0 0 0\n 7 0 loop0 5 0 9 0 0 0 0 0 0 0 0\n";

    #[test]
    fn only_whole_devices_are_counted() {
        let capture = format!(
            "=== /proc/diskstats\n{STATS} 8 16 sdb short\n=== /sys/block list\nsda\nsdb\ndm-0\nsr0\nloop0\n"
        );
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(capture.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        let text = format_part(&part);
        let total = "disk.total.read_bytes{sda} +51200\ndisk.total.write_bytes{sda} +102400\n";
        assert!(text.starts_with(&format!("{total}disk.read_bytes{{sda}} +51200\ndisk.write_bytes{{sda}} +102400\ndisk.read_iops{{sda}} +10\n")), "{text}");
        assert!(text.contains("disk.read_latency{sda} 5/10\ndisk.write_latency{sda} 8/20\ndisk.queue_length{sda} +40\ndisk.utilization{sda} +30\n"));
        assert!(
            text.contains("disk.read_iops{dm-0}")
                && !text.contains("sda1")
                && !text.contains("sr0")
                && !text.contains("loop")
        );
        assert!(!text.contains("disk.total.read_bytes{dm-0}"), "{text}");
        assert_eq!(part.errors.len(), 1);
    }

    #[test]
    fn partitions_are_detected_by_name_without_sysfs() {
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/diskstats", STATS)]).unwrap());
        assert!(text.contains("{sda}") && !text.contains("{sda1}"), "{text}");
        for (name, expected) in [
            ("nvme0n1", false),
            ("nvme0n1p2", true),
            ("mmcblk0", false),
            ("mmcblk0p1", true),
            ("xvda", false),
            ("xvda1", true),
            ("dm-1", false),
            ("md127", false),
        ] {
            assert_eq!(is_partition_name(name), expected, "{name}");
        }
    }
}
