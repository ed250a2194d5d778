//! Swapping, faults and out-of-memory kills from `/proc/vmstat`.

use crate::parse::text;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::rate("swap.in_bytes", BytesPerSecond, 0, "Bytes swapped in."),
    MetricDef::rate("swap.out_bytes", BytesPerSecond, 0, "Bytes swapped out."),
    MetricDef::rate("memory.major_faults", PerSecond, 1, "Page faults that required I/O."),
    MetricDef::rate("memory.minor_faults", PerSecond, 0, "Page faults without I/O."),
    MetricDef::events("memory.oom_kills", "Processes killed by the OOM killer."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "vmstat", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let text = text(cx.source, "/proc/vmstat")?;
    let page_size = cx.source.page_size();
    let get = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    for (metric, name, unit) in [
        ("swap.in_bytes", "pswpin", page_size),
        ("swap.out_bytes", "pswpout", page_size),
        ("memory.major_faults", "pgmajfault", 1),
        ("memory.oom_kills", "oom_kill", 1),
    ] {
        if let Some(count) = get(name) {
            cx.out.counter(metric, count.saturating_mul(unit));
        }
    }
    if let (Some(total), Some(major)) = (get("pgfault"), get("pgmajfault")) {
        cx.out.counter("memory.minor_faults", total.saturating_sub(major));
    }
    if cx.out.part.samples.is_empty() {
        Err(crate::parse::parse_error("/proc/vmstat", &text))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

    #[test]
    fn parses_valid_and_rejects_invalid_input() {
        let text = "pgfault 100\npgmajfault 3\npgmajfault_a 9\npswpin 2\npswpout x\noom_kill 1\n";
        let part = collect_files(&COLLECTOR, &[("/proc/vmstat", text)]).unwrap();
        assert_eq!(
            format_part(&part),
            "swap.in_bytes +8192\nmemory.major_faults +3\nmemory.oom_kills +1\nmemory.minor_faults +97\n"
        );
        assert!(collect_files(&COLLECTOR, &[("/proc/vmstat", "malformed")]).is_err());
    }
}
