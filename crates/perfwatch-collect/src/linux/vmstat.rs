//! Swapping, faults and out-of-memory kills from `/proc/vmstat`.

use crate::parse::text;
use crate::{CollectError, Collector, Context, Every};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::rate("swap.in_bytes", BytesPerSecond, 0, "Read back from swap."),
    MetricDef::rate("swap.out_bytes", BytesPerSecond, 0, "Written to swap."),
    MetricDef::rate("memory.major_faults", PerSecond, 1, "Page faults that had to wait for storage."),
    MetricDef::rate("memory.minor_faults", PerSecond, 0, "Page faults served from memory."),
    MetricDef::events("memory.oom_kills", "Processes the kernel killed for want of memory."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "vmstat", metrics: METRICS, every: Every::Tick, read };

fn read(cx: &mut Context<'_>) -> Result<(), CollectError> {
    let text = text(cx.source, "/proc/vmstat")?;
    let page = cx.source.page_size();
    let get = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    for (metric, name, unit) in [
        ("swap.in_bytes", "pswpin", page),
        ("swap.out_bytes", "pswpout", page),
        ("memory.major_faults", "pgmajfault", 1),
        ("memory.oom_kills", "oom_kill", 1),
    ] {
        if let Some(count) = get(name) {
            cx.out.counter(metric, count.saturating_mul(unit));
        }
    }
    if let (Some(all), Some(major)) = (get("pgfault"), get("pgmajfault")) {
        cx.out.counter("memory.minor_faults", all.saturating_sub(major));
    }
    if cx.out.part.samples.is_empty() { Err(crate::parse::garbled("/proc/vmstat", &text)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::testing::{part_of, show};

    #[test]
    fn reads_and_refuses() {
        let text = "pgfault 100\npgmajfault 3\npgmajfault_a 9\npswpin 2\npswpout x\noom_kill 1\n";
        let part = part_of(&COLLECTOR, &[("/proc/vmstat", text)]).unwrap();
        assert_eq!(
            show(&part),
            "swap.in_bytes +8192\nmemory.major_faults +3\nmemory.oom_kills +1\nmemory.minor_faults +97\n"
        );
        assert!(part_of(&COLLECTOR, &[("/proc/vmstat", "what")]).is_err());
    }
}
