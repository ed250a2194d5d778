//! What a collector is: a table of metrics and one function that reads.

use crate::linux::processes;
use crate::reading::{Part, Raw, RawSample};
use crate::{CollectError, Source};
use perfwatch_model::{MetricDef, limits};
use std::sync::Arc;
use std::time::Duration;

/// How often a collector reads when nothing else is configured. Between its turns, its last
/// samples are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// At each tick.
    EveryTick,
    /// No more often than this many seconds.
    AtMostEvery(u64),
}

impl Cadence {
    /// The least time between two reads.
    pub fn min_interval(self) -> Duration {
        match self {
            Self::EveryTick => Duration::ZERO,
            Self::AtMostEvery(seconds) => Duration::from_secs(seconds),
        }
    }
}

/// One source of metrics.
pub struct Collector {
    /// Its file's name, by which it is switched and reports errors.
    pub name: &'static str,
    /// What it can give.
    pub metrics: &'static [MetricDef],
    /// How often it reads by itself.
    pub cadence: Cadence,
    /// Reads once.
    pub read: fn(&mut CollectContext<'_>) -> Result<(), CollectError>,
}

/// How much of a process's command line leaves the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommandLine {
    /// Nothing.
    None,
    /// With what looks like a secret replaced by `***`.
    #[default]
    Masked,
    /// All of it.
    Full,
}

/// What a user may choose about collecting.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorOptions {
    /// Rows by CPU; half as many by memory and by I/O join them.
    pub top_processes: usize,
    /// What is shown of command lines.
    pub command_line: CommandLine,
    /// Interfaces that are left out; `*` stands for anything.
    pub exclude_interfaces: Vec<String>,
    /// Block devices that are left out.
    pub exclude_devices: Vec<String>,
    /// Mount points that are left out.
    pub exclude_mounts: Vec<String>,
    /// Metrics that are left out.
    pub exclude_metrics: Vec<String>,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            top_processes: 10,
            command_line: CommandLine::default(),
            exclude_interfaces: list(&["veth*", "cali*", "ifb*"]),
            exclude_devices: list(&["loop*", "ram*"]),
            exclude_mounts: list(&[
                "/var/lib/docker/*",
                "/var/lib/containers/*",
                "/var/lib/kubelet/*",
                "/snap/*",
            ]),
            exclude_metrics: Vec::new(),
        }
    }
}

/// What a collector remembers to be cheap. It never changes what a number means: a collector
/// with a fresh recall gives the same samples.
#[derive(Default)]
pub struct CollectorCache {
    pub(crate) processes: processes::ProcessCache,
}

/// What a collector's function gets.
pub struct CollectContext<'a> {
    /// The host.
    pub source: &'a dyn Source,
    /// The user's choices.
    pub options: &'a CollectorOptions,
    /// Its own memory.
    pub cache: &'a mut CollectorCache,
    /// Where samples go.
    pub out: SampleSink,
}

/// Takes samples by the names of one `METRICS` table.
pub struct SampleSink {
    metrics: &'static [MetricDef],
    last_index: usize,
    no_instance: Arc<str>,
    /// What was taken so far.
    pub part: Part,
}

impl SampleSink {
    /// For this table.
    pub fn new(metrics: &'static [MetricDef]) -> Self {
        Self { metrics, last_index: 0, no_instance: Arc::from(""), part: Part::default() }
    }

    /// A number as it is.
    pub fn gauge(&mut self, name: &str, value: f64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Gauge(value));
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, value: u64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Counter(value));
    }

    /// A share of a counter.
    pub fn ratio(&mut self, name: &str, part: u64, whole: u64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Ratio { numerator: part, denominator: whole });
    }

    /// The same for one instance.
    pub fn push_instance(&mut self, name: &str, instance: &Arc<str>, raw: Raw) {
        // Collectors emit in the table's order, so the next line is nearly always the one.
        let count = self.metrics.len();
        let found =
            (0..count).map(|step| (self.last_index + step) % count).find(|&at| self.metrics[at].name == name);
        let Some(at) = found else {
            debug_assert!(false, "{name} is not in the collector's METRICS");
            return;
        };
        self.last_index = at + 1;
        self.part.samples.push(RawSample { metric: &self.metrics[at], instance: instance.clone(), raw });
    }

    /// Says what could not be read though the rest can.
    pub fn record_error(&mut self, why: impl Into<String>) {
        if self.part.errors.len() < 8 {
            self.part.errors.push(why.into());
        }
    }
}

/// An instance's name, cut to what the wire allows.
pub(crate) fn truncate_instance(name: &str) -> Arc<str> {
    let end = (0..=limits::MAX_INSTANCE_BYTES.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    Arc::from(&name[..end.unwrap_or_default()])
}

/// Whether `name` fits a pattern in which `*` stands for any text.
pub fn glob_match(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| glob_match(tail, &rest[at..]))
        }),
    }
}

/// Whether `name` fits one of the patterns.
pub(crate) fn is_excluded(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| glob_match(pattern, name))
}

/// A whole number as a sample. Exact below 2^53, which is 8 PiB of bytes.
#[expect(clippy::cast_precision_loss, reason = "samples are below 2^53 by the scale's own clamp")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, fits) in [
            ("veth*", "veth12", true),
            ("veth*", "eth0", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("lo", "lo", true),
            ("lo", "lo0", false),
            ("*é", "é", true),
        ] {
            assert_eq!(glob_match(pattern, name), fits, "{pattern} on {name}");
        }
    }
}
