//! Helpers for collector tests: run a collector over a few files and format the result.

use crate::reading::{Part, Raw};
use crate::{Capture, CollectContext, CollectError, Collector, CollectorCache, CollectorOptions, SampleSink};
use std::fmt::Write as _;

/// Runs a collector over the given files.
pub(crate) fn collect_files(collector: &Collector, files: &[(&str, &str)]) -> Result<Part, CollectError> {
    let mut capture = Capture::default();
    for (path, text) in files {
        capture.insert(path, text.as_bytes());
    }
    collect_capture(collector, &capture, &CollectorOptions::default())
}

/// Runs a collector over a capture with the given options.
pub(crate) fn collect_capture(
    collector: &Collector,
    capture: &Capture,
    options: &CollectorOptions,
) -> Result<Part, CollectError> {
    let mut cache = CollectorCache::default();
    let mut cx = CollectContext {
        source: capture,
        options,
        cache: &mut cache,
        out: SampleSink::new(collector.metrics),
    };
    (collector.read)(&mut cx)?;
    Ok(cx.out.part)
}

/// Formats a line per sample: gauges as a number, counters with `+`, ratios as a fraction.
pub(crate) fn format_part(part: &Part) -> String {
    let mut text = String::new();
    for sample in &part.samples {
        let _ = write!(text, "{}", sample.metric.name);
        if !sample.instance.is_empty() {
            let _ = write!(text, "{{{}}}", sample.instance);
        }
        let _ = match sample.raw {
            Raw::Gauge(value) => writeln!(text, " {value}"),
            Raw::Counter(value) => writeln!(text, " +{value}"),
            Raw::Ratio { numerator, denominator, .. } => writeln!(text, " {numerator}/{denominator}"),
        };
    }
    text
}
