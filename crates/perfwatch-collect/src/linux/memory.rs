//! Memory and swap from `/proc/meminfo` (proc_meminfo(5)), the cache of ZFS from
//! `/proc/spl/kstat/zfs/arcstats`, and huge pages of all sizes from `/sys/kernel/mm/hugepages` (kernel
//! document admin-guide/mm/hugetlbpage.rst).
//!
//! In a container these are the figures of the machine, unless the runtime replaces `/proc/meminfo`
//! (LXCFS): then they are those of the container.

use crate::collector::to_f64;
use crate::parse::{first_word, number, parse_error, text};
use crate::{Cadence, CollectContext, CollectError, Collector, SampleSink, Source};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("memory.total", Bytes, 0, "Total usable memory.").rollup_last(),
    MetricDef::gauge("memory.used", Bytes, 0, "Total minus available memory."),
    MetricDef::gauge("memory.used_percent", Percent, 2, "Used memory in percent."),
    MetricDef::gauge(
        "memory.available",
        Bytes,
        0,
        "Memory available to new programs without swapping, ZFS cache included.",
    ),
    MetricDef::gauge("memory.free", Bytes, 0, "Unused memory."),
    MetricDef::gauge("memory.cached", Bytes, 0, "Page cache, shared memory included."),
    MetricDef::gauge("memory.buffers", Bytes, 0, "Block device buffers."),
    MetricDef::gauge("memory.shared", Bytes, 0, "Shared memory and tmpfs."),
    MetricDef::gauge("memory.slab", Bytes, 0, "Kernel slab memory."),
    MetricDef::gauge("memory.dirty", Bytes, 0, "Dirty pages waiting for write-back."),
    MetricDef::gauge("memory.committed", Bytes, 0, "Committed memory."),
    MetricDef::gauge("memory.zfs_arc", Bytes, 0, "Cache of ZFS (ARC); absent without ZFS."),
    MetricDef::gauge("swap.total", Bytes, 0, "Swap size; absent without swap.").rollup_last(),
    MetricDef::gauge("swap.used", Bytes, 0, "Used swap space."),
    MetricDef::gauge("swap.used_percent", Percent, 2, "Used swap in percent."),
    MetricDef::gauge("hugepages.total", Bytes, 0, "Huge page pools of all sizes; absent if unused.")
        .rollup_last(),
    MetricDef::gauge("hugepages.free", Bytes, 0, "Free huge pages of all sizes."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "memory", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let meminfo = text(cx.source, "/proc/meminfo")?;
    let source = cx.source;
    push_memory(&meminfo, source, &mut cx.out)?;
    push_swap(&meminfo, &mut cx.out);
    push_huge_pages(&meminfo, source, &mut cx.out);
    Ok(())
}

/// Reads the number of a field, converted to bytes if its unit is kB.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    if words.next() == Some("kB") { value.checked_mul(1024) } else { Some(value) }
}

fn push_memory(meminfo: &str, source: &dyn Source, out: &mut SampleSink) -> Result<(), CollectError> {
    let get = |name| field(meminfo, name);
    let (Some(total), Some(free)) = (get("MemTotal").filter(|&t| t > 0), get("MemFree")) else {
        return Err(parse_error("/proc/meminfo", meminfo));
    };
    // Some kernels report 0, or more than there is.
    let reported = get("MemAvailable").filter(|&available| (1..=total).contains(&available));
    let available = reported.unwrap_or_else(|| estimate_available(meminfo, free, source));
    let arc = read_arc(source);
    let reclaimable_arc = arc.map_or(0, |arc| {
        // The kernel counts the cache as used. More than all used memory is the cache of another machine:
        // in a container with its own meminfo, arcstats is that of the host.
        let used = total.saturating_sub(free);
        if arc.size > used { 0 } else { arc.size.saturating_sub(arc.min) }
    });
    let available = available.saturating_add(reclaimable_arc).min(total);
    let used = total - available;
    out.gauge("memory.total", to_f64(total));
    out.gauge("memory.used", to_f64(used));
    out.gauge("memory.used_percent", to_f64(used) / to_f64(total) * 100.0);
    out.gauge("memory.available", to_f64(available));
    for (metric, name) in [
        ("memory.free", "MemFree"),
        ("memory.cached", "Cached"),
        ("memory.buffers", "Buffers"),
        ("memory.shared", "Shmem"),
        ("memory.slab", "Slab"),
        ("memory.dirty", "Dirty"),
        ("memory.committed", "Committed_AS"),
    ] {
        if let Some(value) = get(name) {
            out.gauge(metric, to_f64(value));
        }
    }
    if let Some(arc) = arc {
        out.gauge("memory.zfs_arc", to_f64(arc.size));
    }
    Ok(())
}

/// Estimates `MemAvailable` as kernels since 3.14 do (`si_mem_available`, mm/show_mem.c): free memory
/// above the low watermark, and half of the file pages and of the reclaimable slab or all of them above the
/// watermark. Shared memory is not counted: it is in the page cache, but cannot be dropped.
fn estimate_available(meminfo: &str, free: u64, source: &dyn Source) -> u64 {
    let get = |name| field(meminfo, name);
    let file_pages = match (get("Active(file)"), get("Inactive(file)")) {
        (Some(active), Some(inactive)) => active.saturating_add(inactive),
        // Kernels before 2.6.28.
        _ => get("Cached")
            .unwrap_or(0)
            .saturating_add(get("Buffers").unwrap_or(0))
            .saturating_sub(get("Shmem").unwrap_or(0)),
    };
    let slab = get("SReclaimable").unwrap_or(0);
    // The low watermark is 5/4 of the minimum (mm/page_alloc.c). Unknown, half is reserved.
    let min_free_kb = number::<u64>(source, "/proc/sys/vm/min_free_kbytes").ok();
    let watermark = min_free_kb.map(|kb| kb.saturating_mul(1024) / 4 * 5);
    let reserve = |pages: u64| watermark.unwrap_or(u64::MAX).min(pages / 2);
    let file_reserve = watermark.map_or(0, |_| reserve(file_pages));
    free.saturating_sub(watermark.unwrap_or(0))
        .saturating_add(file_pages - file_reserve)
        .saturating_add(slab - reserve(slab))
}

/// Adaptive replacement cache of ZFS, in bytes.
#[derive(Clone, Copy)]
struct ZfsCache {
    size: u64,
    /// Size below which ZFS gives nothing back.
    min: u64,
}

fn read_arc(source: &dyn Source) -> Option<ZfsCache> {
    let stats = text(source, "/proc/spl/kstat/zfs/arcstats").ok()?;
    // In a container whose meminfo is replaced, arcstats is still that of the machine.
    let mounts = text(source, "/proc/self/mountinfo").unwrap_or_default();
    let is_replaced = |line: &str| line.split(' ').nth(4) == Some("/proc/meminfo");
    if mounts.lines().any(is_replaced) {
        return None;
    }
    // name type data
    let get = |name: &str| {
        let line = stats.lines().find(|line| first_word(line).0 == name)?;
        line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()
    };
    Some(ZfsCache { size: get("size")?, min: get("c_min")? })
}

fn push_swap(meminfo: &str, out: &mut SampleSink) {
    let get = |name| field(meminfo, name);
    if let Some(total) = get("SwapTotal").filter(|&total| total > 0) {
        let used = total.saturating_sub(get("SwapFree").unwrap_or(total));
        out.gauge("swap.total", to_f64(total));
        out.gauge("swap.used", to_f64(used));
        out.gauge("swap.used_percent", to_f64(used) / to_f64(total) * 100.0);
    }
}

/// Pushes the pools of all huge page sizes. `HugePages_*` of meminfo are those of the default size only,
/// `Hugetlb` (since Linux 4.16) is the sum of all sizes.
fn push_huge_pages(meminfo: &str, source: &dyn Source, out: &mut SampleSink) {
    const FOLDER: &str = "/sys/kernel/mm/hugepages";
    let get = |name| field(meminfo, name);
    let all_sizes = get("Hugetlb");
    let default_pages = get("HugePages_Total").unwrap_or(0);
    if all_sizes == Some(0) {
        return;
    }
    let (mut total, mut free) = (0_u64, 0_u64);
    for pool in source.list(FOLDER).unwrap_or_default() {
        let size = pool.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB"));
        let Some(size) = size.and_then(|kb| kb.parse::<u64>().ok()?.checked_mul(1024)) else { continue };
        let bytes = |file: &str| {
            let pages = number::<u64>(source, &format!("{FOLDER}/{pool}/{file}")).unwrap_or(0);
            pages.saturating_mul(size)
        };
        total = total.saturating_add(bytes("nr_hugepages"));
        free = free.saturating_add(bytes("free_hugepages"));
    }
    if total == 0 {
        let size = get("Hugepagesize").unwrap_or(0);
        let default_total = default_pages.saturating_mul(size);
        total = all_sizes.unwrap_or(default_total);
        if total == 0 {
            return;
        }
        // The free pages of other sizes are unknown.
        free = get("HugePages_Free").unwrap_or(0).saturating_mul(size);
        if total != default_total {
            out.gauge("hugepages.total", to_f64(total));
            return;
        }
    }
    out.gauge("hugepages.total", to_f64(total));
    out.gauge("hugepages.free", to_f64(free));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::reading::Raw;

    #[test]
    fn swap_and_huge_pages_are_optional() {
        let base = "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 400 kB\nSwapCached: 7 kB\nSwapTotal: 0 kB\nHugePages_Total: 0\n";
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/meminfo", base)]).unwrap());
        assert_eq!(
            text,
            "memory.total 1024000\nmemory.used 614400\nmemory.used_percent 60\nmemory.available 409600\nmemory.free 204800\n"
        );
        let more = "MemTotal: 1000 kB\nMemFree: 200 kB\nBuffers: 50 kB\nCached: 150 kB\nSwapTotal: 100 kB\nSwapFree: 75 kB\n\
                    HugePages_Total: 4\nHugePages_Free: 1\nHugepagesize: 2048 kB\n";
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/meminfo", more)]).unwrap());
        assert!(text.contains("memory.available 409600\n"), "{text}");
        assert!(text.contains(
            "swap.used 25600\nswap.used_percent 25\nhugepages.total 8388608\nhugepages.free 2097152"
        ));
    }

    #[test]
    fn rejects_malformed_meminfo() {
        for text in [
            "",
            "MemTotal: 0 kB\nMemFree: 0 kB\n",
            "MemTotal: x kB\n",
            "MemTotal: 99999999999999999999 kB\nMemFree: 1 kB",
        ] {
            assert!(collect_files(&COLLECTOR, &[("/proc/meminfo", text)]).is_err(), "{text:?}");
        }
    }

    /// Value of a metric that the collector derives from these files.
    fn gauge(files: &[(&str, &str)], name: &str) -> Option<f64> {
        let part = collect_files(&COLLECTOR, files).unwrap();
        let sample = part.samples.iter().find(|sample| sample.metric.name == name)?;
        let Raw::Gauge(value) = sample.raw else { panic!("{sample:?}") };
        Some(value)
    }

    #[test]
    fn available_memory_is_believed_or_estimated() {
        const MIB: f64 = 1_048_576.0;
        let base = "MemTotal: 16384000 kB\nMemFree: 512000 kB\nBuffers: 102400 kB\nCached: 8192000 kB\n\
                    Shmem: 6144000 kB\nSReclaimable: 204800 kB\n";
        let file = "Active(file): 1024000 kB\nInactive(file): 1024000 kB\n";
        let watermark = ("/proc/sys/vm/min_free_kbytes", "81920\n");
        for (kind, meminfo, other, expected_mib) in [
            ("reported", format!("{base}{file}MemAvailable: 2048000 kB\n"), vec![], 2000.0),
            ("absent", format!("{base}{file}"), vec![], 2600.0),
            ("zero", format!("{base}{file}MemAvailable: 0 kB\n"), vec![], 2600.0),
            ("more than the total", format!("{base}{file}MemAvailable: 99999999 kB\n"), vec![], 2600.0),
            ("with the low watermark", format!("{base}{file}"), vec![watermark], 2400.0),
            ("without file pages", base.to_owned(), vec![], 2700.0),
        ] {
            let files: Vec<(&str, &str)> =
                std::iter::once(("/proc/meminfo", meminfo.as_str())).chain(other).collect();
            assert_eq!(gauge(&files, "memory.available"), Some(expected_mib * MIB), "{kind}");
        }
    }

    #[test]
    fn zfs_cache_above_its_minimum_is_available() {
        let meminfo = "MemTotal: 8000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n";
        let stats = |size: u64| format!("13 1 0x01\nname type data\nc_min 4 1024000\nsize 4 {size}\n");
        for (size, expected_kb) in [(4_096_000, 5000.0), (512_000, 2000.0), (80_000_000, 2000.0)] {
            let stats = stats(size);
            let files = [("/proc/meminfo", meminfo), ("/proc/spl/kstat/zfs/arcstats", stats.as_str())];
            assert_eq!(gauge(&files, "memory.available"), Some(expected_kb * 1024.0), "{size}");
        }
    }

    #[test]
    fn huge_pages_of_every_size_are_counted() {
        let meminfo =
            "MemTotal: 8 kB\nMemFree: 1 kB\nHugePages_Total: 2\nHugePages_Free: 1\nHugepagesize: 2048 kB\n";
        let pools = "=== /sys/kernel/mm/hugepages list\nhugepages-2048kB\nhugepages-1048576kB\n\
                     === /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n2\n\
                     === /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages\n1\n\
                     === /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages\n3\n\
                     === /sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages\n0\n";
        let all = "Hugetlb: 3149824 kB\n";
        let mib = 1_048_576.0;
        for (input, total_mib, free_mib) in [
            (format!("=== /proc/meminfo\n{meminfo}"), 4.0, Some(2.0)),
            (format!("=== /proc/meminfo\n{meminfo}{all}{pools}"), 3076.0, Some(2.0)),
            (format!("=== /proc/meminfo\n{meminfo}{all}"), 3076.0, None),
        ] {
            let capture = crate::Capture::parse(input.as_bytes()).unwrap();
            let part = collect_capture(&COLLECTOR, &capture, &crate::CollectorOptions::default()).unwrap();
            let find = |name: &str| part.samples.iter().find(|s| s.metric.name == name).map(|s| s.raw);
            assert_eq!(find("hugepages.total"), Some(Raw::Gauge(total_mib * mib)), "{input}");
            assert_eq!(find("hugepages.free"), free_mib.map(|free| Raw::Gauge(free * mib)), "{input}");
        }
    }
}
