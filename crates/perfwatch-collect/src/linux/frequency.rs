//! CPU frequency from `/sys/devices/system/cpu/cpu*/cpufreq` (kernel document
//! admin-guide/pm/cpufreq.rst), or from `/proc/cpuinfo` without cpufreq.

use crate::collector::to_f64;
use crate::parse::{number, text};
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] =
    &[MetricDef::gauge("cpu.frequency", Megahertz, 0, "Mean CPU frequency; absent if not reported.")];

/// Runs at most every 10 s, because each core needs a file read.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "frequency", metrics: METRICS, cadence: Cadence::AtMostEvery(10), read };

/// Frequency that no processor has, 100 GHz: the driver does not know it.
const MAX_KHZ: u64 = 100_000_000;

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const FOLDER: &str = "/sys/devices/system/cpu";
    let (mut sum, mut count) = (0.0, 0.0);
    for name in cx.source.list(FOLDER).unwrap_or_default() {
        let is_core =
            name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if is_core
            && let Ok(khz) = number::<u64>(cx.source, &format!("{FOLDER}/{name}/cpufreq/scaling_cur_freq"))
            && (1..MAX_KHZ).contains(&khz)
        {
            sum += to_f64(khz) / 1000.0;
            count += 1.0;
        }
    }
    if count == 0.0 {
        let cpuinfo = text(cx.source, "/proc/cpuinfo")?;
        for (key, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
            // x86, s390, LoongArch, PowerPC.
            if !matches!(key.trim(), "cpu MHz" | "cpu MHz dynamic" | "CPU MHz" | "clock") {
                continue;
            }
            let mhz = value.trim().trim_end_matches("MHz").parse::<f64>().ok();
            if let Some(mhz) = mhz.filter(|mhz| mhz.is_finite() && *mhz > 0.0) {
                sum += mhz;
                count += 1.0;
            }
        }
    }
    if count == 0.0 {
        return Err(CollectError::NotAvailable);
    }
    cx.out.gauge("cpu.frequency", sum / count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    #[test]
    fn frequency_falls_back_to_cpuinfo() {
        let capture = "=== /sys/devices/system/cpu list\ncpu0\ncpu1\ncpufreq\ncpuidle\n\
                   === /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq\n1000000\n=== /sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq\n3000000\n";
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(capture.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        assert_eq!(format_part(&part), "cpu.frequency 2000\n");
        let cpuinfo = "cpu MHz\t\t: 2899.5\ncpu MHz : nonsense\n";
        assert_eq!(
            format_part(&collect_files(&COLLECTOR, &[("/proc/cpuinfo", cpuinfo)]).unwrap()),
            "cpu.frequency 2899.5\n"
        );
        assert_eq!(
            collect_files(&COLLECTOR, &[("/proc/cpuinfo", "Features: fp\n")]),
            Err(CollectError::NotAvailable)
        );
    }
}
