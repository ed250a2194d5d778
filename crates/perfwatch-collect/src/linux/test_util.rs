//! For the collectors' own tests: run one over a handful of files and show what it said.

use crate::reading::{Part, Raw};
use crate::{Capture, CollectContext, CollectError, Collector, CollectorCache, CollectorOptions, SampleSink};
use std::fmt::Write as _;

/// What `collector` reads from these files alone.
pub(crate) fn collect_files(collector: &Collector, files: &[(&str, &str)]) -> Result<Part, CollectError> {
    let mut capture = Capture::default();
    for (path, text) in files {
        capture.insert(path, text.as_bytes());
    }
    collect_capture(collector, &capture, &CollectorOptions::default())
}

/// The same over a capture in text form.
pub(crate) fn collect_capture(
    collector: &Collector,
    capture: &Capture,
    options: &CollectorOptions,
) -> Result<Part, CollectError> {
    let mut recall = CollectorCache::default();
    let mut cx = CollectContext {
        source: capture,
        options,
        cache: &mut recall,
        out: SampleSink::new(collector.metrics),
    };
    (collector.read)(&mut cx)?;
    Ok(cx.out.part)
}

/// A line a sample: gauges bare, counters with `+`, ratios as a fraction.
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
            Raw::Ratio { numerator: part, denominator: whole } => writeln!(text, " {part}/{whole}"),
        };
    }
    text
}
