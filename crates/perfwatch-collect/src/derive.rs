//! Derives samples from two readings; the only place where counters become rates.
//!
//! A rate requires two counters of the same boot and instance, the second not smaller than the
//! first and not implausibly larger. After a reset, a wrap, a jump, a hot-plug, a reboot or the first
//! reading, the sample is missing for one tick; an estimate would be a spike. Durations come from the monotonic clock, so jumps
//! of the wall clock have no effect.

use crate::collector::{is_excluded, to_f64};
use crate::reading::{Part, PartReading, Raw, RawProcess, RawSample, Reading};
use crate::{CollectError, CollectorOptions};
use perfwatch_model::{BootId, CollectorError, HostFacts, MetricDef, MetricKind, ProcessRow, Unit};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Sample of a series. NaN marks a missing value of an existing series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric definition in the collector's table.
    pub metric: &'static MetricDef,
    /// Instance of the metric, or `""`.
    pub instance: Arc<str>,
    /// Value in the metric's unit, clamped to its range.
    pub value: f64,
}

/// Samples, top processes, facts and errors derived from a reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    /// Samples of all collectors.
    pub samples: Vec<Sample>,
    /// Top processes by CPU, memory and I/O.
    pub processes: Vec<ProcessRow>,
    /// Host facts, if the reading contains them.
    pub facts: Option<HostFacts>,
    /// Errors of all collectors.
    pub errors: Vec<CollectorError>,
}

/// Derives samples and retains the last reading for the next derivation.
#[derive(Default)]
pub struct Deriver {
    boot: Option<BootId>,
    last_readings: HashMap<&'static str, LastReading>,
}

pub(crate) struct LastReading {
    pub(crate) part: Arc<Part>,
    pub(crate) read_at: Duration,
    samples: Vec<Sample>,
    processes: Vec<ProcessRow>,
}

impl Deriver {
    /// Creates a deriver whose last reading consists of these parts.
    pub(crate) fn from_parts(boot: BootId, parts: Vec<(&'static str, Part, Duration)>) -> Self {
        let last_reading = |(name, part, read_at)| {
            let (samples, processes) = (Vec::new(), Vec::new());
            (name, LastReading { part: Arc::new(part), read_at, samples, processes })
        };
        Self { boot: Some(boot), last_readings: parts.into_iter().map(last_reading).collect() }
    }

    pub(crate) fn last_readings(&self) -> (Option<BootId>, &HashMap<&'static str, LastReading>) {
        (self.boot, &self.last_readings)
    }

    /// Derives the samples of a reading relative to the previous reading of the same boot.
    pub fn derive(&mut self, reading: &Reading, options: &CollectorOptions) -> Derived {
        if self.boot != Some(reading.boot) {
            self.last_readings.clear();
            self.boot = Some(reading.boot);
        }
        let mut derived = Derived::default();
        for part in &reading.parts {
            self.derive_part(part, options, &mut derived);
        }
        derived
    }

    fn derive_part(&mut self, read: &PartReading, options: &CollectorOptions, derived: &mut Derived) {
        let to_error = |message: String| CollectorError { collector: read.collector.to_owned(), message };
        let part = match &read.result {
            Ok(part) => part,
            Err(error) => {
                if *error != CollectError::NotAvailable {
                    derived.errors.push(to_error(error.to_string()));
                }
                // The series remain, without values: a failing collector does not change the shape.
                let missing = |sample: &Sample| Sample { value: f64::NAN, ..sample.clone() };
                if let Some(last) = self.last_readings.get(read.collector) {
                    derived.samples.extend(last.samples.iter().map(missing));
                }
                return;
            }
        };
        derived.errors.extend(part.errors.iter().cloned().map(to_error));
        derived.facts = derived.facts.take().or_else(|| part.facts.clone());
        let last = self.last_readings.get(read.collector);
        let is_repeated = last.is_some_and(|last| Arc::ptr_eq(&last.part, part));
        if !is_repeated {
            let previous =
                last.and_then(|last| Some((&*last.part, read.started_at.checked_sub(last.read_at)?)));
            let samples = derive_samples(previous, &part.samples, options);
            let processes = derive_processes(previous, &part.processes, options.top_processes);
            let last = LastReading { part: part.clone(), read_at: read.started_at, samples, processes };
            self.last_readings.insert(read.collector, last);
        }
        if let Some(last) = self.last_readings.get(read.collector) {
            // A repeated number of events would count the events twice.
            let repeat = |sample: &Sample| match sample.metric.kind {
                MetricKind::Events if is_repeated => Sample { value: 0.0, ..sample.clone() },
                _ => sample.clone(),
            };
            derived.samples.extend(last.samples.iter().map(repeat));
            derived.processes.extend(last.processes.iter().cloned());
        }
    }
}

/// Part of the previous reading, and the time since then.
type PreviousPart<'a> = Option<(&'a Part, Duration)>;

fn derive_samples(
    previous: PreviousPart<'_>,
    current: &[RawSample],
    options: &CollectorOptions,
) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::with_capacity(current.len());
    let mut lookup = SampleLookup::new(previous.map_or(&[], |(part, _)| &part.samples));
    let elapsed = previous.map_or(Duration::ZERO, |(_, elapsed)| elapsed);
    let mut sums: Vec<(usize, Sum)> = Vec::new();
    for sample in current {
        if is_excluded(&options.exclude_metrics, sample.metric.name) {
            continue;
        }
        let value = derive_value(sample.metric, lookup.find(sample).map(|s| s.raw), sample.raw, elapsed);
        if !sample.metric.summed {
            let value = value.unwrap_or(f64::NAN);
            samples.push(Sample { metric: sample.metric, instance: sample.instance.clone(), value });
            continue;
        }
        match sums.iter_mut().find(|(index, _)| samples[*index].metric.name == sample.metric.name) {
            Some((_, sum)) => sum.add(&value),
            None => {
                let mut sum = Sum::default();
                sum.add(&value);
                sums.push((samples.len(), sum));
                samples.push(Sample { metric: sample.metric, instance: "".into(), value: f64::NAN });
            }
        }
    }
    for (index, sum) in sums {
        samples[index].value = sum.value();
    }
    samples
}

/// Sum of the instances of a metric.
#[derive(Default)]
struct Sum {
    value: Option<f64>,
    is_incomplete: bool,
}

impl Sum {
    fn add(&mut self, value: &Result<f64, MissingReason>) {
        match value {
            Ok(value) => self.value = Some(self.value.unwrap_or(0.0) + value),
            // An instance without a rate yet adds nothing.
            Err(MissingReason::New) => {}
            // Without an instance that was part of the last sum, the sum would drop.
            Err(MissingReason::Implausible) => self.is_incomplete = true,
        }
    }

    fn value(&self) -> f64 {
        if self.is_incomplete { f64::NAN } else { self.value.unwrap_or(f64::NAN) }
    }
}

/// Reason why two readings give no sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingReason {
    /// No earlier counter of the same series.
    New,
    /// The counter was reset, wrapped or jumped.
    Implausible,
}

/// Increase of any counter between two readings at most; a larger one is a wrap below zero.
const MAX_INCREASE: u64 = 1 << 53;
/// Factor above the maximum of a metric up to which a rate is clamped: the time between two readings is
/// only as exact as the start of a thread. Above, the counter jumped.
const CLAMPED_FACTOR: f64 = 2.0;
/// The same for a share of two counters that are read together.
const CLAMPED_SHARE_FACTOR: f64 = 1.1;
/// Rate of a device at most: 10 TB/s.
const MAX_BYTES_PER_SECOND: f64 = 1e13;
/// Events in a tick at most.
const MAX_EVENTS: f64 = 1e6;
/// Added to the elapsed time for the same reason when a jump is detected.
const ELAPSED_TOLERANCE_S: f64 = 1.0;

fn derive_value(
    metric: &MetricDef,
    previous: Option<Raw>,
    current: Raw,
    elapsed: Duration,
) -> Result<f64, MissingReason> {
    let seconds = elapsed.as_secs_f64();
    let increase = |from: u64, to: u64| {
        let increase = to.checked_sub(from).filter(|&increase| increase <= MAX_INCREASE);
        increase.map(to_f64).ok_or(MissingReason::Implausible)
    };
    let value = match (metric.kind, previous, current) {
        (_, _, Raw::Gauge(value)) => value,
        (_, None, _) => return Err(MissingReason::New),
        (MetricKind::Rate, Some(Raw::Counter(from)), Raw::Counter(to)) if seconds > 0.0 => {
            let rate = increase(from, to)? / seconds * metric.factor;
            let max = match metric.unit {
                Unit::BytesPerSecond => Some(MAX_BYTES_PER_SECOND),
                _ => metric.max.map(|max| max * CLAMPED_FACTOR),
            };
            if max.is_some_and(|max| rate > max) {
                return Err(MissingReason::Implausible);
            }
            rate
        }
        (MetricKind::Events, Some(Raw::Counter(from)), Raw::Counter(to)) => {
            let events = increase(from, to)?;
            if events > MAX_EVENTS {
                return Err(MissingReason::Implausible);
            }
            events
        }
        (
            MetricKind::Ratio,
            Some(Raw::Ratio { numerator: old_numerator, denominator: old_denominator, .. }),
            Raw::Ratio { numerator, denominator, max_rate },
        ) => {
            let total = increase(old_denominator, denominator)?;
            // Without clocks in the captures, the elapsed time is unknown.
            let max = to_f64(max_rate) * CLAMPED_FACTOR * (seconds + ELAPSED_TOLERANCE_S);
            if seconds > 0.0 && total > max {
                return Err(MissingReason::Implausible);
            }
            let part = match increase(old_numerator, numerator) {
                Ok(part) => part,
                // A share of time may decrease slightly while time passes, because iowait is an estimate
                // (proc_stat(5)): it is zero. A larger decrease is a reset.
                Err(_)
                    if metric.max.is_some() && to_f64(old_numerator.saturating_sub(numerator)) <= total =>
                {
                    0.0
                }
                Err(error) => return Err(error),
            };
            if total > 0.0 {
                let ratio = part / total * metric.factor;
                // Both counters are read together, so that a share exceeds the maximum slightly at most: when
                // the estimate of iowait decreased.
                if metric.max.is_some_and(|max| ratio > max * CLAMPED_SHARE_FACTOR) {
                    return Err(MissingReason::Implausible);
                }
                ratio
            } else if part > 0.0 {
                return Err(MissingReason::Implausible);
            } else {
                // No activity: the share or latency is zero.
                0.0
            }
        }
        _ => return Err(MissingReason::Implausible),
    };
    if !value.is_finite() {
        return Err(MissingReason::Implausible);
    }
    Ok(value.clamp(metric.min, metric.max.unwrap_or(f64::MAX)))
}

/// Finds the sample of the same metric and instance in the previous reading. The order is nearly
/// always equal; otherwise an index is built.
struct SampleLookup<'a> {
    samples: &'a [RawSample],
    next: usize,
    index: Option<HashMap<(&'static str, &'a str), &'a RawSample>>,
}

impl<'a> SampleLookup<'a> {
    fn new(samples: &'a [RawSample]) -> Self {
        Self { samples, next: 0, index: None }
    }

    fn find(&mut self, current: &RawSample) -> Option<&'a RawSample> {
        let is_same_series =
            |s: &&RawSample| s.metric.name == current.metric.name && s.instance == current.instance;
        if let Some(sample) = self.samples.get(self.next).filter(is_same_series) {
            self.next += 1;
            return Some(sample);
        }
        let samples = self.samples;
        let index = self
            .index
            .get_or_insert_with(|| samples.iter().map(|s| ((s.metric.name, &*s.instance), s)).collect());
        let found = index.get(&(current.metric.name, &*current.instance)).copied()?;
        self.next =
            samples.iter().position(|s| std::ptr::eq(s, found)).map_or(self.next, |position| position + 1);
        Some(found)
    }
}

fn derive_processes(previous: PreviousPart<'_>, current: &[RawProcess], top: usize) -> Vec<ProcessRow> {
    if current.is_empty() || top == 0 {
        return Vec::new();
    }
    let (earlier, elapsed) =
        previous.map_or((&[][..], Duration::ZERO), |(part, elapsed)| (&part.processes, elapsed));
    let rates: Vec<ProcessRates> = current
        .iter()
        .map(|process| {
            let index = earlier.binary_search_by_key(&process.pid, |p| p.pid).ok();
            // A different start time means that the pid was reused.
            let previous =
                index.map(|index| &earlier[index]).filter(|p| p.start_ticks == process.start_ticks);
            ProcessRates::between(previous, process, elapsed)
        })
        .collect();
    let mut chosen: Vec<usize> = Vec::new();
    let mut is_chosen = HashSet::new();
    let mut choose = |count: usize, key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..current.len()).filter(|&index| key(index) > 0.0).collect();
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        chosen.extend(order.into_iter().take(count).filter(|&index| is_chosen.insert(index)));
    };
    choose(top, &|index| rates[index].cpu);
    choose(top.div_ceil(2), &|index| to_f64(current[index].memory_bytes));
    choose(top.div_ceil(2), &|index| rates[index].read.unwrap_or(0.0) + rates[index].written.unwrap_or(0.0));
    chosen.into_iter().map(|index| process_row(&current[index], &rates[index])).collect()
}

/// Rates of a process: CPU in percent of a core, storage I/O in bytes per second.
struct ProcessRates {
    cpu: f64,
    read: Option<f64>,
    written: Option<f64>,
}

impl ProcessRates {
    fn between(previous: Option<&RawProcess>, current: &RawProcess, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let increase = |from: u64, to: u64| to.checked_sub(from).filter(|&increase| increase <= MAX_INCREASE);
        let rate = |from: u64, to: u64| {
            let rate = if seconds > 0.0 { to_f64(increase(from, to)?) / seconds } else { 0.0 };
            (rate <= MAX_BYTES_PER_SECOND).then_some(rate)
        };
        let io = previous.and_then(|previous| Some((previous.io?, current.io?)));
        // A process cannot use more than a core per thread.
        let max_cpu = 100.0 * f64::from(current.threads.max(1)) * CLAMPED_FACTOR;
        let cpu = previous.and_then(|previous| rate(previous.cpu_ticks, current.cpu_ticks));
        Self {
            // 100 ticks are a second of CPU time, so ticks per second are percent of a core.
            cpu: cpu.filter(|&cpu| cpu <= max_cpu || seconds < ELAPSED_TOLERANCE_S).unwrap_or(0.0),
            read: io.and_then(|(previous, current)| rate(previous.0, current.0)),
            written: io.and_then(|(previous, current)| rate(previous.1, current.1)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative and `as` saturates"
)]
fn process_row(process: &RawProcess, rates: &ProcessRates) -> ProcessRow {
    let detail = process.detail.clone().unwrap_or_default();
    ProcessRow {
        pid: process.pid,
        parent_pid: process.parent_pid,
        name: process.name.clone(),
        user: detail.user.clone(),
        command: detail.command.clone(),
        state: process.state,
        cpu_tenths: (rates.cpu * 10.0).round() as u32,
        memory_bytes: process.memory_bytes,
        threads: process.threads,
        open_files: process.open_files,
        read_bytes: rates.read.map(|read| read.round() as u64),
        write_bytes: rates.written.map(|written| written.round() as u64),
        started_ms: process.started_ms,
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
