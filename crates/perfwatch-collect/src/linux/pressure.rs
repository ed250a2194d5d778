//! Pressure stall information from `/proc/pressure/*` (kernel document accounting/psi.rst):
//! the share of time in which some or all tasks were stalled on a resource.

use crate::parse::{parse_error, text};
use crate::{Cadence, CollectContext, CollectError, Collector, SampleSink};
use perfwatch_model::{MetricDef, Unit::*};

/// Factor from microseconds of stall per second to percent.
const PER_SECOND: f64 = 1e-4;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge(
        "pressure.cpu.some_avg10",
        Percent,
        2,
        "Share of time at least one task stalled on CPU, 10-second average.",
    ),
    MetricDef::rate(
        "pressure.cpu.some",
        Percent,
        2,
        "Share of time at least one task stalled on CPU since the last snapshot.",
    )
    .with_factor(PER_SECOND),
    MetricDef::gauge(
        "pressure.memory.some_avg10",
        Percent,
        2,
        "Share of time at least one task stalled on memory, 10-second average.",
    ),
    MetricDef::rate(
        "pressure.memory.some",
        Percent,
        2,
        "Share of time at least one task stalled on memory since the last snapshot.",
    )
    .with_factor(PER_SECOND),
    MetricDef::gauge(
        "pressure.memory.full_avg10",
        Percent,
        2,
        "Share of time all tasks stalled on memory, 10-second average.",
    ),
    MetricDef::rate(
        "pressure.memory.full",
        Percent,
        2,
        "Share of time all tasks stalled on memory since the last snapshot.",
    )
    .with_factor(PER_SECOND),
    MetricDef::gauge(
        "pressure.io.some_avg10",
        Percent,
        2,
        "Share of time at least one task stalled on I/O, 10-second average.",
    ),
    MetricDef::rate(
        "pressure.io.some",
        Percent,
        2,
        "Share of time at least one task stalled on I/O since the last snapshot.",
    )
    .with_factor(PER_SECOND),
    MetricDef::gauge(
        "pressure.io.full_avg10",
        Percent,
        2,
        "Share of time all tasks stalled on I/O, 10-second average.",
    ),
    MetricDef::rate(
        "pressure.io.full",
        Percent,
        2,
        "Share of time all tasks stalled on I/O since the last snapshot.",
    )
    .with_factor(PER_SECOND),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "pressure", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    for resource in ["cpu", "memory", "io"] {
        let path = format!("/proc/pressure/{resource}");
        match text(cx.source, &path) {
            Ok(text) => parse(resource, &path, &text, &mut cx.out),
            // Not compiled in, or disabled (psi=0).
            Err(CollectError::NotAvailable) => {}
            Err(error) => return Err(error),
        }
    }
    if cx.out.part.samples.is_empty() && cx.out.part.errors.is_empty() {
        return Err(CollectError::NotAvailable);
    }
    Ok(())
}

/// Parses lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=12`, and `full` likewise.
fn parse(resource: &str, path: &str, text: &str, out: &mut SampleSink) {
    for line in text.lines() {
        let (kind, remaining) = crate::parse::first_word(line);
        // `full` is undefined for the CPU of a whole system; newer kernels print zeros.
        if !matches!((resource, kind), (_, "some") | ("memory" | "io", "full")) {
            continue;
        }
        let get = |key: &str| {
            remaining.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let average = get("avg10").and_then(|v| v.parse::<f64>().ok()).filter(|v| v.is_finite());
        let (Some(average), Some(total)) = (average, get("total").and_then(|v| v.parse().ok())) else {
            out.record_error(parse_error(path, line).to_string());
            continue;
        };
        out.gauge(&format!("pressure.{resource}.{kind}_avg10"), average);
        out.counter(&format!("pressure.{resource}.{kind}"), total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

    #[test]
    fn missing_files_are_optional() {
        let part = collect_files(&COLLECTOR, &[
            ("/proc/pressure/cpu", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("/proc/pressure/io", "some avg10=x total=12\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=7\n"),
        ])
        .unwrap();
        assert_eq!(
            format_part(&part),
            "pressure.cpu.some_avg10 1.5\npressure.cpu.some +12\npressure.io.full_avg10 0.25\npressure.io.full +7\n"
        );
        assert_eq!(part.errors.len(), 1);
        assert_eq!(collect_files(&COLLECTOR, &[]), Err(CollectError::NotAvailable));
    }
}
