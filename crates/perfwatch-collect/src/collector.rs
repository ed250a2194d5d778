//! Collector definition and sample sink.

use crate::cache::CollectorCache;
use crate::reading::{Part, Raw, RawSample};
use crate::{CollectError, Source};
use perfwatch_model::{MetricDef, glob, limits};
use std::sync::Arc;
use std::time::Duration;

/// Default frequency of a collector. Between two runs, snapshots repeat its last samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Runs at every tick.
    EveryTick,
    /// Runs at most once in this number of seconds.
    AtMostEvery(u64),
}

impl Cadence {
    /// Minimum time between two runs.
    pub fn min_interval(self) -> Duration {
        match self {
            Self::EveryTick => Duration::ZERO,
            Self::AtMostEvery(seconds) => Duration::from_secs(seconds),
        }
    }
}

/// Source of metrics on a host. Collectors fail independently of each other.
pub struct Collector {
    /// Name in the configuration and in collector errors; equals the name of its source file.
    pub name: &'static str,
    /// Metrics that the collector can produce.
    pub metrics: &'static [MetricDef],
    /// Default frequency of runs.
    pub cadence: Cadence,
    /// Reads the current values from the source.
    pub read: fn(&mut CollectContext<'_>) -> Result<(), CollectError>,
}

/// Part of a process's command line that leaves the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommandLine {
    /// Command lines are not collected.
    None,
    /// Arguments that resemble secrets are replaced by `***`.
    #[default]
    Masked,
    /// Complete command line, secrets included.
    Full,
}

/// User-configurable options of all collectors.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorOptions {
    /// Number of top processes by CPU; half as many are added by memory and by I/O.
    pub top_processes: usize,
    /// Collected part of command lines.
    pub command_line: CommandLine,
    /// Patterns of excluded network interfaces.
    pub exclude_interfaces: Vec<String>,
    /// Patterns of excluded block devices.
    pub exclude_devices: Vec<String>,
    /// Patterns of excluded mount points.
    pub exclude_mounts: Vec<String>,
    /// Patterns of excluded metric names.
    pub exclude_metrics: Vec<String>,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            top_processes: 10,
            command_line: CommandLine::default(),
            exclude_interfaces: strings(&[
                "veth*", "cali*", "lxc*", "ifb*", "tap*", "vnet*", "fwbr*", "fwpr*", "fwln*",
            ]),
            exclude_devices: strings(&["loop*", "ram*"]),
            exclude_mounts: strings(&[
                "/var/lib/docker/*",
                "/var/lib/containers/*",
                "*/containers/storage/*",
                "/var/lib/kubelet/*",
                "/snap/*",
            ]),
            exclude_metrics: Vec::new(),
        }
    }
}

/// Inputs and output of a collector run.
pub struct CollectContext<'a> {
    /// Access to the files of the host.
    pub source: &'a dyn Source,
    /// Options from the agent's or hub's configuration.
    pub options: &'a CollectorOptions,
    /// State of previous runs.
    pub cache: &'a mut CollectorCache,
    /// Sink for samples and errors.
    pub out: SampleSink,
}

/// Collects raw samples of the metrics in a `METRICS` table.
pub struct SampleSink {
    metrics: &'static [MetricDef],
    last_index: usize,
    no_instance: Arc<str>,
    /// Samples and errors pushed so far.
    pub part: Part,
}

impl SampleSink {
    /// Creates an empty sink for the metrics of a table.
    pub fn new(metrics: &'static [MetricDef]) -> Self {
        Self { metrics, last_index: 0, no_instance: Arc::from(""), part: Part::default() }
    }

    /// Pushes a current value of a metric without instances.
    pub fn gauge(&mut self, name: &str, value: f64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Gauge(value));
    }

    /// Pushes a counter of a metric without instances.
    pub fn counter(&mut self, name: &str, value: u64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Counter(value));
    }

    /// Pushes a quotient of two counters of a metric without instances; `max_rate` as in
    /// [`Raw::Ratio`].
    pub fn ratio(&mut self, name: &str, numerator: u64, denominator: u64, max_rate: u64) {
        let none = self.no_instance.clone();
        self.push_instance(name, &none, Raw::Ratio { numerator, denominator, max_rate });
    }

    /// Pushes a raw value of an instance. The metric must be in the collector's table.
    pub fn push_instance(&mut self, name: &str, instance: &Arc<str>, raw: Raw) {
        // Collectors push in the order of the table, so the next entry nearly always matches.
        let count = self.metrics.len();
        let mut indices = (0..count).map(|step| (self.last_index + step) % count);
        let Some(index) = indices.find(|&index| self.metrics[index].name == name) else {
            debug_assert!(false, "{name} is not in the collector's METRICS");
            return;
        };
        self.last_index = index + 1;
        self.part.samples.push(RawSample { metric: &self.metrics[index], instance: instance.clone(), raw });
    }

    /// Records a failure that does not affect the other samples. At most
    /// [`limits::MAX_ERRORS_PER_COLLECTOR`] are recorded.
    pub fn record_error(&mut self, message: impl Into<String>) {
        if self.part.errors.len() < limits::MAX_ERRORS_PER_COLLECTOR {
            self.part.errors.push(message.into());
        }
    }
}

/// Returns whether `name` matches any of the patterns.
pub(crate) fn is_excluded(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern, name))
}

/// Converts an integer to a sample; exact below 2^53, and above for multiples of large powers of two.
#[expect(clippy::cast_precision_loss, reason = "53 bits are more than any sample needs")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}
