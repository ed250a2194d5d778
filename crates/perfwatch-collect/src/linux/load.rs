//! Run-queue averages from `/proc/loadavg` (proc_loadavg(5)).

use crate::parse::{garbled, text};
use crate::{CollectError, Collector, Context, Every};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("load.1m", Count, 2, "Tasks running or waiting for disk, average of 1 minute."),
    MetricDef::gauge("load.5m", Count, 2, "The same over 5 minutes."),
    MetricDef::gauge("load.15m", Count, 2, "The same over 15 minutes."),
    MetricDef::gauge("load.runnable", Count, 0, "Tasks that run or could run at this moment."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "load", metrics: METRICS, every: Every::Tick, read };

fn read(cx: &mut Context<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/loadavg";
    let text = text(cx.source, PATH)?;
    let mut words = text.split_ascii_whitespace();
    for name in ["load.1m", "load.5m", "load.15m"] {
        let value = words.next().and_then(|word| word.parse().ok()).filter(|v: &f64| v.is_finite());
        cx.out.gauge(name, value.ok_or_else(|| garbled(PATH, &text))?);
    }
    if let Some(runnable) = words.next().and_then(|word| word.split('/').next()?.parse().ok()) {
        cx.out.gauge("load.runnable", runnable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::testing::{part_of, show};

    #[test]
    fn reads_and_refuses() {
        let part = part_of(&COLLECTOR, &[("/proc/loadavg", "0.52 1.00 12.3 3/417 999\n")]).unwrap();
        assert_eq!(show(&part), "load.1m 0.52\nload.5m 1\nload.15m 12.3\nload.runnable 3\n");
        for text in ["", "0.5", "a b c", "NaN 0 0", "0.1 inf 0"] {
            assert!(part_of(&COLLECTOR, &[("/proc/loadavg", text)]).is_err(), "{text:?}");
        }
    }
}
