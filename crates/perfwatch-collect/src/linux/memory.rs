//! Memory and swap from `/proc/meminfo` (proc_meminfo(5)).

use crate::collector::to_f64;
use crate::parse::{parse_error, text};
use crate::{Cadence, CollectContext, CollectError, Collector, SampleSink};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("memory.total", Bytes, 0, "Total usable memory.").rollup_last(),
    MetricDef::gauge("memory.used", Bytes, 0, "Total minus available memory."),
    MetricDef::gauge("memory.used_percent", Percent, 2, "Used memory in percent."),
    MetricDef::gauge("memory.available", Bytes, 0, "Memory available to new programs without swapping."),
    MetricDef::gauge("memory.free", Bytes, 0, "Unused memory."),
    MetricDef::gauge("memory.cached", Bytes, 0, "Page cache, shared memory included."),
    MetricDef::gauge("memory.buffers", Bytes, 0, "Block device buffers."),
    MetricDef::gauge("memory.shared", Bytes, 0, "Shared memory and tmpfs."),
    MetricDef::gauge("memory.slab", Bytes, 0, "Kernel slab memory."),
    MetricDef::gauge("memory.dirty", Bytes, 0, "Dirty pages waiting for write-back."),
    MetricDef::gauge("memory.committed", Bytes, 0, "Committed memory."),
    MetricDef::gauge("swap.total", Bytes, 0, "Swap size; absent without swap.").rollup_last(),
    MetricDef::gauge("swap.used", Bytes, 0, "Used swap space."),
    MetricDef::gauge("swap.used_percent", Percent, 2, "Used swap in percent."),
    MetricDef::gauge("hugepages.total", Bytes, 0, "Huge page pool size; absent if unused.").rollup_last(),
    MetricDef::gauge("hugepages.free", Bytes, 0, "Free huge pages."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "memory", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    parse(&text(cx.source, "/proc/meminfo")?, &mut cx.out)
}

/// Reads the number of a field, converted to bytes if its unit is kB.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    if words.next() == Some("kB") { value.checked_mul(1024) } else { Some(value) }
}

fn parse(meminfo: &str, out: &mut SampleSink) -> Result<(), CollectError> {
    let get = |name| field(meminfo, name);
    let (Some(total), Some(free)) = (get("MemTotal").filter(|&t| t > 0), get("MemFree")) else {
        return Err(parse_error("/proc/meminfo", meminfo));
    };
    // Kernels before 3.14 have no estimate; free memory plus buffers and page cache is the usual
    // approximation.
    let available = get("MemAvailable")
        .unwrap_or_else(|| free + get("Buffers").unwrap_or(0) + get("Cached").unwrap_or(0))
        .min(total);
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
    if let Some(total) = get("SwapTotal").filter(|&total| total > 0) {
        let used = total.saturating_sub(get("SwapFree").unwrap_or(total));
        out.gauge("swap.total", to_f64(total));
        out.gauge("swap.used", to_f64(used));
        out.gauge("swap.used_percent", to_f64(used) / to_f64(total) * 100.0);
    }
    if let (Some(pages), Some(size)) =
        (get("HugePages_Total").filter(|&pages| pages > 0), get("Hugepagesize"))
    {
        out.gauge("hugepages.total", to_f64(pages.saturating_mul(size)));
        out.gauge("hugepages.free", to_f64(get("HugePages_Free").unwrap_or(0).saturating_mul(size)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

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
}
