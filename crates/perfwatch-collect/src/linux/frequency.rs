//! Processor clock from `/sys/devices/system/cpu/cpu*/cpufreq` (kernel document
//! admin-guide/pm/cpufreq.rst), or from `/proc/cpuinfo` where that is all there is.

use crate::collector::float;
use crate::parse::{number, text};
use crate::{CollectError, Collector, Context, Every};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[MetricDef::gauge(
    "cpu.frequency",
    Megahertz,
    0,
    "Mean clock of the processors; absent where the machine hides it.",
)];

/// Asking each processor costs a file a core.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "frequency", metrics: METRICS, every: Every::Seconds(10), read };

fn read(cx: &mut Context<'_>) -> Result<(), CollectError> {
    const FOLDER: &str = "/sys/devices/system/cpu";
    let (mut sum, mut count) = (0.0, 0.0);
    for name in cx.source.list(FOLDER).unwrap_or_default() {
        let is_core =
            name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if is_core
            && let Ok(khz) = number::<u64>(cx.source, &format!("{FOLDER}/{name}/cpufreq/scaling_cur_freq"))
        {
            sum += float(khz) / 1000.0;
            count += 1.0;
        }
    }
    if count == 0.0 {
        for line in text(cx.source, "/proc/cpuinfo")?.lines().filter(|line| line.starts_with("cpu MHz")) {
            let mhz = line.split_once(':').and_then(|(_, mhz)| mhz.trim().parse::<f64>().ok());
            if let Some(mhz) = mhz.filter(|mhz| mhz.is_finite() && *mhz > 0.0) {
                sum += mhz;
                count += 1.0;
            }
        }
    }
    if count == 0.0 {
        return Err(CollectError::NoData);
    }
    cx.out.gauge("cpu.frequency", sum / count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::testing::{part_from, part_of, show};
    use crate::{Capture, Options};

    #[test]
    fn sysfs_first_then_cpuinfo_then_absent() {
        let sys = "=== /sys/devices/system/cpu list\ncpu0\ncpu1\ncpufreq\ncpuidle\n\
                   === /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq\n1000000\n=== /sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq\n3000000\n";
        let part =
            part_from(&COLLECTOR, &Capture::parse(sys.as_bytes()).unwrap(), &Options::default()).unwrap();
        assert_eq!(show(&part), "cpu.frequency 2000\n");
        let info = "cpu MHz\t\t: 2899.5\ncpu MHz : nonsense\n";
        assert_eq!(show(&part_of(&COLLECTOR, &[("/proc/cpuinfo", info)]).unwrap()), "cpu.frequency 2899.5\n");
        assert_eq!(part_of(&COLLECTOR, &[("/proc/cpuinfo", "Features: fp\n")]), Err(CollectError::NoData));
    }
}
