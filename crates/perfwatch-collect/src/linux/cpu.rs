//! Processor time, context switches and interrupts from `/proc/stat` (proc_stat(5)).

use crate::collector::instance;
use crate::parse::{first_word, garbled, numbers, text};
use crate::reading::Raw;
use crate::{CollectError, Collector, Context, Every, Out};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::ratio("cpu.usage", Percent, 2, "Time all processors worked, of all time."),
    MetricDef::ratio("cpu.user", Percent, 2, "Time in programs, guests included."),
    MetricDef::ratio("cpu.nice", Percent, 2, "Time in programs of lowered priority."),
    MetricDef::ratio("cpu.system", Percent, 2, "Time in the kernel."),
    MetricDef::ratio("cpu.idle", Percent, 2, "Time with nothing to do."),
    MetricDef::ratio("cpu.iowait", Percent, 2, "Idle time while some task waited for storage."),
    MetricDef::ratio("cpu.irq", Percent, 2, "Time in hardware interrupts."),
    MetricDef::ratio("cpu.softirq", Percent, 2, "Time in deferred interrupt work."),
    MetricDef::ratio("cpu.steal", Percent, 2, "Time the hypervisor gave to other guests."),
    MetricDef::ratio("cpu.core.usage", Percent, 1, "Time this processor worked.").by("core"),
    MetricDef::rate("cpu.context_switches", PerSecond, 0, "Switches between tasks."),
    MetricDef::rate("cpu.interrupts", PerSecond, 0, "Interrupts served."),
    MetricDef::rate("cpu.forks", PerSecond, 1, "Processes and threads started."),
    MetricDef::gauge("cpu.cores", Count, 0, "Processors online.").last(),
];

pub(crate) const COLLECTOR: Collector = Collector { name: "cpu", metrics: METRICS, every: Every::Tick, read };

fn read(cx: &mut Context<'_>) -> Result<(), CollectError> {
    parse(&text(cx.source, "/proc/stat")?, &mut cx.out)
}

fn parse(stat: &str, out: &mut Out) -> Result<(), CollectError> {
    let mut cores = 0_u32;
    let mut total = false;
    for line in stat.lines() {
        let (name, rest) = first_word(line);
        match name {
            "cpu" => total |= times(rest, out),
            "ctxt" | "intr" | "processes" => {
                let metric = match name {
                    "ctxt" => "cpu.context_switches",
                    "intr" => "cpu.interrupts",
                    _ => "cpu.forks",
                };
                match first_word(rest).0.parse() {
                    Ok(count) => out.counter(metric, count),
                    Err(_) => out.complain(garbled("/proc/stat", line).to_string()),
                }
            }
            _ => {
                let Some(core) = name.strip_prefix("cpu").filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
                else {
                    continue;
                };
                let Some((busy, whole)) = busy_and_whole(rest) else {
                    out.complain(garbled("/proc/stat", line).to_string());
                    continue;
                };
                cores += 1;
                out.push("cpu.core.usage", &instance(core), Raw::Ratio { part: busy, whole });
            }
        }
    }
    if !total {
        return Err(garbled("/proc/stat", stat.lines().next().unwrap_or_default()));
    }
    out.gauge("cpu.cores", f64::from(cores));
    Ok(())
}

/// user nice system idle iowait irq softirq steal; guest time is inside user.
fn times(line: &str, out: &mut Out) -> bool {
    let times = numbers(line);
    let Some((busy, whole)) = busy_and_whole(line) else {
        return false;
    };
    let time = |at: usize| times.get(at).copied();
    out.ratio("cpu.usage", busy, whole);
    // Kernels before 2.6.11 have fewer columns: those are absent, not zero.
    for (name, at) in [
        ("cpu.user", 0),
        ("cpu.nice", 1),
        ("cpu.system", 2),
        ("cpu.idle", 3),
        ("cpu.iowait", 4),
        ("cpu.irq", 5),
        ("cpu.softirq", 6),
        ("cpu.steal", 7),
    ] {
        if let Some(part) = time(at) {
            out.ratio(name, part, whole);
        }
    }
    true
}

fn busy_and_whole(line: &str) -> Option<(u64, u64)> {
    let times = numbers(line);
    if times.len() < 4 {
        return None;
    }
    let whole = times.iter().take(8).fold(0, |sum: u64, &time| sum.saturating_add(time));
    let idle = times[3].saturating_add(times.get(4).copied().unwrap_or(0));
    Some((whole.saturating_sub(idle), whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::testing::{part_of, show};

    #[test]
    fn counts_guests_once_and_survives_a_bad_line() {
        let part = part_of(&COLLECTOR, &[(
            "/proc/stat",
            "cpu  10 2 3 80 5 1 1 1 7 0\ncpu0 5 1 1 40 3 0 0 0 3 0\ncpu7 oops\nintr 99 1 2 3\nctxt 12\nbtime 1\nprocesses 4\n",
        )])
        .unwrap();
        assert_eq!(part.complaints, ["/proc/stat: can't read \"cpu7 oops\""]);
        assert_eq!(
            show(&part),
            "cpu.usage 18/103\ncpu.user 10/103\ncpu.nice 2/103\ncpu.system 3/103\ncpu.idle 80/103\ncpu.iowait 5/103\n\
             cpu.irq 1/103\ncpu.softirq 1/103\ncpu.steal 1/103\ncpu.core.usage{0} 7/50\ncpu.interrupts +99\n\
             cpu.context_switches +12\ncpu.forks +4\ncpu.cores 1\n"
        );
    }

    #[test]
    fn old_and_garbled_kernels() {
        let old = part_of(&COLLECTOR, &[("/proc/stat", "cpu 1 2 3 4\ncpu0 1 2 3 4\n")]).unwrap();
        assert!(!show(&old).contains("iowait"));
        for text in ["", "cpu", "cpu a b c d", "\u{fffd}\u{fffd}"] {
            assert!(
                matches!(part_of(&COLLECTOR, &[("/proc/stat", text)]), Err(CollectError::Failed(_))),
                "{text:?}"
            );
        }
        assert_eq!(part_of(&COLLECTOR, &[]), Err(CollectError::NoData));
    }
}
