//! CPU time, context switches and interrupts from `/proc/stat` (proc_stat(5)).

use crate::parse::{first_word, numbers, parse_error, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector, SampleSink};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::ratio("cpu.usage", Percent, 2, "CPU time in use, all cores."),
    MetricDef::ratio("cpu.user", Percent, 2, "CPU time in user mode, guests included."),
    MetricDef::ratio("cpu.nice", Percent, 2, "CPU time in niced user processes."),
    MetricDef::ratio("cpu.system", Percent, 2, "CPU time in the kernel."),
    MetricDef::ratio("cpu.idle", Percent, 2, "Idle CPU time."),
    MetricDef::ratio("cpu.iowait", Percent, 2, "Idle CPU time while I/O was outstanding."),
    MetricDef::ratio("cpu.irq", Percent, 2, "CPU time in hardware interrupts."),
    MetricDef::ratio("cpu.softirq", Percent, 2, "CPU time in software interrupts."),
    MetricDef::ratio("cpu.steal", Percent, 2, "CPU time taken by the hypervisor."),
    MetricDef::ratio("cpu.core.usage", Percent, 1, "CPU time in use, per core.").with_dimension("core"),
    MetricDef::rate("cpu.context_switches", PerSecond, 0, "Context switches."),
    MetricDef::rate("cpu.interrupts", PerSecond, 0, "Interrupts serviced."),
    MetricDef::rate("cpu.forks", PerSecond, 1, "Processes and threads created."),
    MetricDef::gauge("cpu.cores", Count, 0, "Online logical processors.").rollup_last(),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "cpu", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    parse(&text(cx.source, "/proc/stat")?, &mut cx.out)
}

/// Clock ticks of a core in a second (USER_HZ), on every architecture.
const MAX_TICKS_PER_S: u64 = 100;

fn core_number(name: &str) -> Option<&str> {
    name.strip_prefix("cpu").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn parse(stat: &str, out: &mut SampleSink) -> Result<(), CollectError> {
    // The lines of the cores follow the line of their sum.
    let cores_in_sum = stat.lines().filter(|line| core_number(first_word(line).0).is_some()).count();
    let max_rate = MAX_TICKS_PER_S * (cores_in_sum as u64).max(1);
    let mut cores = 0_u32;
    let mut has_total = false;
    for line in stat.lines() {
        let (name, remaining) = first_word(line);
        match name {
            // The first line counts: further lines would be the same series.
            "cpu" if has_total => {}
            "cpu" => has_total = parse_times(remaining, max_rate, out),
            "ctxt" | "intr" | "processes" => {
                let metric = match name {
                    "ctxt" => "cpu.context_switches",
                    "intr" => "cpu.interrupts",
                    _ => "cpu.forks",
                };
                match first_word(remaining).0.parse() {
                    Ok(count) => out.counter(metric, count),
                    Err(_) => out.record_error(parse_error("/proc/stat", line).to_string()),
                }
            }
            _ => {
                let Some(core) = core_number(name) else {
                    continue;
                };
                let Some((busy, total)) = busy_and_total(remaining) else {
                    out.record_error(parse_error("/proc/stat", line).to_string());
                    continue;
                };
                cores += 1;
                out.push_instance(
                    "cpu.core.usage",
                    &core.into(),
                    Raw::Ratio { numerator: busy, denominator: total, max_rate: MAX_TICKS_PER_S },
                );
            }
        }
    }
    if !has_total {
        return Err(parse_error("/proc/stat", stat.lines().next().unwrap_or_default()));
    }
    out.gauge("cpu.cores", f64::from(cores));
    Ok(())
}

/// Parses `user nice system idle iowait irq softirq steal`; user time includes guest time. Returns
/// false if the line is invalid.
fn parse_times(line: &str, max_rate: u64, out: &mut SampleSink) -> bool {
    let times = numbers(line);
    let Some((busy, total)) = busy_and_total(line) else {
        return false;
    };
    out.ratio("cpu.usage", busy, total, max_rate);
    // Kernels before 2.6.11 have fewer columns; missing columns are absent, not zero.
    for (name, column) in [
        ("cpu.user", 0),
        ("cpu.nice", 1),
        ("cpu.system", 2),
        ("cpu.idle", 3),
        ("cpu.iowait", 4),
        ("cpu.irq", 5),
        ("cpu.softirq", 6),
        ("cpu.steal", 7),
    ] {
        if let Some(&time) = times.get(column) {
            out.ratio(name, time, total, max_rate);
        }
    }
    true
}

/// Busy and total time of a line, in clock ticks.
fn busy_and_total(line: &str) -> Option<(u64, u64)> {
    let times = numbers(line);
    if times.len() < 4 {
        return None;
    }
    let total = times.iter().take(8).fold(0, |sum: u64, &time| sum.saturating_add(time));
    let idle = times[3].saturating_add(times.get(4).copied().unwrap_or(0));
    Some((total.saturating_sub(idle), total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

    #[test]
    fn guest_time_is_counted_once_and_bad_lines_are_skipped() {
        let part = collect_files(&COLLECTOR, &[(
            "/proc/stat",
            "cpu  10 2 3 80 5 1 1 1 7 0\ncpu0 5 1 1 40 3 0 0 0 3 0\ncpu7 oops\nintr 99 1 2 3\nctxt 12\nbtime 1\nprocesses 4\n",
        )])
        .unwrap();
        assert_eq!(part.errors, ["/proc/stat: unexpected value \"cpu7 oops\""]);
        assert_eq!(
            format_part(&part),
            "cpu.usage 18/103\ncpu.user 10/103\ncpu.nice 2/103\ncpu.system 3/103\ncpu.idle 80/103\ncpu.iowait 5/103\n\
             cpu.irq 1/103\ncpu.softirq 1/103\ncpu.steal 1/103\ncpu.core.usage{0} 7/50\ncpu.interrupts +99\n\
             cpu.context_switches +12\ncpu.forks +4\ncpu.cores 1\n"
        );
    }

    #[test]
    fn short_and_malformed_stat_files() {
        let old = collect_files(&COLLECTOR, &[("/proc/stat", "cpu 1 2 3 4\ncpu0 1 2 3 4\n")]).unwrap();
        assert!(!format_part(&old).contains("iowait"));
        for text in ["", "cpu", "cpu a b c d", "\u{fffd}\u{fffd}"] {
            assert!(
                matches!(collect_files(&COLLECTOR, &[("/proc/stat", text)]), Err(CollectError::Failed(_))),
                "{text:?}"
            );
        }
        assert_eq!(collect_files(&COLLECTOR, &[]), Err(CollectError::NotAvailable));
    }
}
