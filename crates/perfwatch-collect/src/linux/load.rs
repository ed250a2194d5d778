//! Load averages from `/proc/loadavg` (proc_loadavg(5)).

use crate::parse::{parse_error, text};
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("load.1m", Count, 2, "1-minute load average."),
    MetricDef::gauge("load.5m", Count, 2, "5-minute load average."),
    MetricDef::gauge("load.15m", Count, 2, "15-minute load average."),
    MetricDef::gauge("load.runnable", Count, 0, "Runnable tasks."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "load", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/loadavg";
    let text = text(cx.source, PATH)?;
    let mut words = text.split_ascii_whitespace();
    for name in ["load.1m", "load.5m", "load.15m"] {
        let value = words.next().and_then(|word| word.parse().ok()).filter(|v: &f64| v.is_finite());
        cx.out.gauge(name, value.ok_or_else(|| parse_error(PATH, &text))?);
    }
    if let Some(runnable) = words.next().and_then(|word| word.split('/').next()?.parse().ok()) {
        cx.out.gauge("load.runnable", runnable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

    #[test]
    fn parses_valid_and_rejects_invalid_input() {
        let part = collect_files(&COLLECTOR, &[("/proc/loadavg", "0.52 1.00 12.3 3/417 999\n")]).unwrap();
        assert_eq!(format_part(&part), "load.1m 0.52\nload.5m 1\nload.15m 12.3\nload.runnable 3\n");
        for text in ["", "0.5", "a b c", "NaN 0 0", "0.1 inf 0"] {
            assert!(collect_files(&COLLECTOR, &[("/proc/loadavg", text)]).is_err(), "{text:?}");
        }
    }
}
