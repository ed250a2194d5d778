//! Block devices from `/proc/diskstats` (kernel document admin-guide/iostats.rst).
//! Partitions are skipped, because their device counts the same requests.

use crate::collector::is_excluded;
use crate::linux::disk_topology::DiskTopology;
use crate::parse::{parse_error, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::rate(
        "disk.total.read_bytes",
        BytesPerSecond,
        0,
        "Bytes read from all disks, each counted once.",
    )
    .summed(),
    MetricDef::rate(
        "disk.total.write_bytes",
        BytesPerSecond,
        0,
        "Bytes written to all disks, each counted once.",
    )
    .summed(),
    MetricDef::rate("disk.read_bytes", BytesPerSecond, 0, "Bytes read from the device.")
        .with_dimension("device")
        .essential(),
    MetricDef::rate("disk.write_bytes", BytesPerSecond, 0, "Bytes written to the device.")
        .with_dimension("device")
        .essential(),
    MetricDef::rate("disk.read_iops", PerSecond, 1, "Completed reads.").with_dimension("device"),
    MetricDef::rate("disk.write_iops", PerSecond, 1, "Completed writes.").with_dimension("device"),
    MetricDef::ratio(
        "disk.read_latency",
        Milliseconds,
        2,
        "Mean read latency, queueing included; 0 without reads.",
    )
    .with_range(0.0, Some(MAX_LATENCY_MS))
    .with_dimension("device"),
    MetricDef::ratio(
        "disk.write_latency",
        Milliseconds,
        2,
        "Mean write latency, queueing included; 0 without writes.",
    )
    .with_range(0.0, Some(MAX_LATENCY_MS))
    .with_dimension("device"),
    // The raw rate is milliseconds per second; 1,000 equals a constant queue length of 1.
    MetricDef::rate("disk.queue_length", Count, 2, "Average number of requests in flight.")
        .with_dimension("device")
        .with_range(0.0, Some(MAX_QUEUE_LENGTH))
        .with_factor(1e-3),
    MetricDef::rate("disk.utilization", Percent, 1, "Time with at least one request in flight.")
        .with_dimension("device")
        .with_factor(0.1),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "disk", metrics: METRICS, cadence: Cadence::EveryTick, read };

/// Queue length above which a counter jumped.
const MAX_QUEUE_LENGTH: f64 = 100_000.0;
/// Latency above which a counter jumped: an hour.
const MAX_LATENCY_MS: f64 = 3_600_000.0;

/// Unit of the kernel's sector counters, independent of the device's sector size.
const SECTOR_BYTES: u64 = 512;

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/diskstats";
    let text = text(cx.source, PATH)?;
    let mut devices: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.split_ascii_whitespace().nth(2) {
            Some(name) => devices.push((name, line)),
            None => cx.out.record_error(parse_error(PATH, line).to_string()),
        }
    }
    let names: Vec<&str> = devices.iter().map(|(name, _)| *name).collect();
    let (source, exclude) = (cx.source, &cx.options.exclude_devices);
    let is_included = |name: &str| !is_excluded(exclude, name);
    let topology = cx.cache.disks.get(&names, || DiskTopology::read(source, &names, is_included)).clone();
    // Before Linux 6.4, only the hidden paths of an NVMe device count its requests.
    let is_idle = |index: usize| {
        counters_of(devices[index].1).is_some_and(|counters| counters.iter().all(|&count| count == 0))
    };
    for (index, (name, line)) in devices.iter().enumerate() {
        if !topology.whole[index] || !is_included(name) {
            continue;
        }
        let Some(counters) = counters_of(line) else {
            cx.out.record_error(parse_error(PATH, line).to_string());
            continue;
        };
        let [reads, _, read_sectors, read_ms, writes, _, write_sectors, write_ms, _, busy_ms, queue_ms] =
            counters;
        let (read, written) =
            (read_sectors.saturating_mul(SECTOR_BYTES), write_sectors.saturating_mul(SECTOR_BYTES));
        let device: Arc<str> = Arc::from(*name);
        let is_counted_path =
            topology.head_of[index].is_some_and(|head| topology.counted[head] && is_idle(head));
        if topology.counted[index] || is_counted_path {
            cx.out.push_instance("disk.total.read_bytes", &device, Raw::Counter(read));
            cx.out.push_instance("disk.total.write_bytes", &device, Raw::Counter(written));
        }
        // Drives without a medium and unused virtual devices would only add constant zeros.
        if reads == 0 && writes == 0 && !topology.has_medium[index] {
            continue;
        }
        let latency = |numerator, denominator| Raw::Ratio { numerator, denominator, max_rate: u64::MAX };
        for (metric, raw) in [
            ("disk.read_bytes", Raw::Counter(read)),
            ("disk.write_bytes", Raw::Counter(written)),
            ("disk.read_iops", Raw::Counter(reads)),
            ("disk.write_iops", Raw::Counter(writes)),
            ("disk.read_latency", latency(read_ms, reads)),
            ("disk.write_latency", latency(write_ms, writes)),
            ("disk.queue_length", Raw::Counter(queue_ms)),
            ("disk.utilization", Raw::Counter(busy_ms)),
        ] {
            cx.out.push_instance(metric, &device, raw);
        }
    }
    Ok(())
}

/// Number of counters of a device that every kernel since 2.6 has.
const COUNTERS_LEN: usize = 11;

/// Parses the counters of a line of `/proc/diskstats`.
fn counters_of(line: &str) -> Option<[u64; COUNTERS_LEN]> {
    let words = line.split_ascii_whitespace().skip(3).take(COUNTERS_LEN);
    let counters: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    counters.try_into().ok()
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
                && !text.contains("disk.read_iops{sr0}")
                && !text.contains("loop")
        );
        assert!(!text.contains("disk.total.read_bytes{dm-0}"), "{text}");
        assert_eq!(part.errors.len(), 1);
    }

    #[test]
    fn paths_are_counted_if_their_device_counts_nothing() {
        let sysfs = "=== /sys/block list\nnvme0n1\nnvme0c0n1\nnvme0c1n1\n=== /sys/block/nvme0c0n1/hidden\n1\n\
                     === /sys/block/nvme0c1n1/hidden\n1\n";
        let path = |name: &str| format!("259 1 {name} 5 0 100 5 0 0 0 0 0 5 5\n");
        for (head, expected) in [
            (
                "259 0 nvme0n1 0 0 0 0 0 0 0 0 0 0 0\n".to_owned(),
                "{nvme0n1} +0 {nvme0c0n1} +51200 {nvme0c1n1} +51200",
            ),
            (path("nvme0n1"), "{nvme0n1} +51200"),
        ] {
            let stats = head + &path("nvme0c0n1") + &path("nvme0c1n1");
            let capture = Capture::parse(format!("=== /proc/diskstats\n{stats}{sysfs}").as_bytes()).unwrap();
            let part = collect_capture(&COLLECTOR, &capture, &CollectorOptions::default()).unwrap();
            let text = format_part(&part);
            let totals = text.lines().filter_map(|line| line.strip_prefix("disk.total.read_bytes"));
            assert_eq!(totals.collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn idle_disks_are_there_before_their_first_request() {
        let stats = " 8 0 sda 0 0 0 0 0 0 0 0 0 0 0\n 11 0 sr0 0 0 0 0 0 0 0 0 0 0 0\n 43 0 nbd7 0 0 0 0 0 0 0 0 0 0 0\n";
        let sysfs = "=== /sys/block list\nsda\nsr0\nnbd7\n=== /sys/block/sda/size\n2048\n=== /sys/block/nbd7/size\n0\n\
                     === /sys/block/sr0/size\n2097151\n=== /sys/block/sr0/removable\n1\n";
        let capture = Capture::parse(format!("=== /proc/diskstats\n{stats}{sysfs}").as_bytes()).unwrap();
        let with_sysfs =
            format_part(&collect_capture(&COLLECTOR, &capture, &CollectorOptions::default()).unwrap());
        let without = format_part(&collect_files(&COLLECTOR, &[("/proc/diskstats", stats)]).unwrap());
        for text in [with_sysfs, without] {
            assert!(text.contains("disk.read_bytes{sda} +0\n"), "{text}");
            assert!(!text.contains("disk.read_bytes{sr0}") && !text.contains("{nbd7}"), "{text}");
        }
    }

    #[test]
    fn partitions_are_detected_by_name_without_sysfs() {
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/diskstats", STATS)]).unwrap());
        assert!(text.contains("{sda}") && !text.contains("{sda1}"), "{text}");
    }
}
