//! For the collectors' own tests: run one over a handful of files and show what it said.

use crate::reading::{Part, Raw};
use crate::{Capture, CollectError, Collector, Context, Options, Out, Recall};
use std::fmt::Write as _;

/// What `collector` reads from these files alone.
pub(crate) fn part_of(collector: &Collector, files: &[(&str, &str)]) -> Result<Part, CollectError> {
    let mut capture = Capture::default();
    for (path, text) in files {
        capture.insert(path, text.as_bytes());
    }
    part_from(collector, &capture, &Options::default())
}

/// The same over a capture in text form.
pub(crate) fn part_from(
    collector: &Collector,
    capture: &Capture,
    options: &Options,
) -> Result<Part, CollectError> {
    let mut recall = Recall::default();
    let mut cx = Context { source: capture, options, recall: &mut recall, out: Out::new(collector.metrics) };
    (collector.read)(&mut cx)?;
    Ok(cx.out.part)
}

/// A line a sample: gauges bare, counters with `+`, ratios as a fraction.
pub(crate) fn show(part: &Part) -> String {
    let mut text = String::new();
    for sample in &part.samples {
        let _ = write!(text, "{}", sample.metric.name);
        if !sample.instance.is_empty() {
            let _ = write!(text, "{{{}}}", sample.instance);
        }
        let _ = match sample.raw {
            Raw::Gauge(value) => writeln!(text, " {value}"),
            Raw::Counter(value) => writeln!(text, " +{value}"),
            Raw::Ratio { part, whole } => writeln!(text, " {part}/{whole}"),
        };
    }
    text
}
