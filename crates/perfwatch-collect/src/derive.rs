//! The one place where counters become rates: two readings in, samples out.
//!
//! A rate is only given when both counters are of the same boot, the same instance, and grew.
//! After a reset, a wrap, a hot-plug, a reboot or a first look there is no sample for one
//! tick, which is honest; a guess would be a spike. Time is the monotonic clock's, so a wall
//! clock that jumps changes nothing.

use crate::collector::{glob_match, to_f64};
use crate::reading::{Part, PartReading, Raw, RawProcess, RawSample, Reading};
use crate::{CollectError, CollectorOptions};
use perfwatch_model::{BootId, CollectorError, HostFacts, MetricDef, MetricKind, ProcessRow};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A sample: NaN says that the series is there and this tick of it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The line of the collector's table.
    pub metric: &'static MetricDef,
    /// Which one, or `""`.
    pub instance: Arc<str>,
    /// In the metric's unit.
    pub value: f64,
}

/// What a reading says once the one before is subtracted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Derived {
    /// All samples.
    pub samples: Vec<Sample>,
    /// The largest processes.
    pub processes: Vec<ProcessRow>,
    /// The host's facts, where they were read.
    pub facts: Option<HostFacts>,
    /// Collectors with something to complain of.
    pub errors: Vec<CollectorError>,
}

/// Holds the last reading and what came of it.
#[derive(Default)]
pub struct Deriver {
    boot: Option<BootId>,
    last_readings: HashMap<&'static str, LastReading>,
}

pub(crate) struct LastReading {
    pub(crate) part: Arc<Part>,
    pub(crate) read_at: Duration,
    points: Vec<Sample>,
    processes: Vec<ProcessRow>,
}

impl Deriver {
    /// As if it had read these last.
    pub(crate) fn from_parts(boot: BootId, parts: Vec<(&'static str, Part, Duration)>) -> Self {
        let last = |(name, part, taken)| {
            let last = LastReading {
                part: Arc::new(part),
                read_at: taken,
                points: Vec::new(),
                processes: Vec::new(),
            };
            (name, last)
        };
        Self { boot: Some(boot), last_readings: parts.into_iter().map(last).collect() }
    }

    pub(crate) fn last_readings(&self) -> (Option<BootId>, &HashMap<&'static str, LastReading>) {
        (self.boot, &self.last_readings)
    }

    /// Subtracts the reading before, if there was one of the same boot.
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
        let say = |message: String| CollectorError { collector: read.collector.to_owned(), message };
        let part = match &read.result {
            Ok(part) => part,
            Err(error) => {
                if *error != CollectError::NotAvailable {
                    derived.errors.push(say(error.to_string()));
                }
                // The series stay, with a gap: a failing collector doesn't change the shape.
                let gap = |point: &Sample| Sample { value: f64::NAN, ..point.clone() };
                if let Some(last) = self.last_readings.get(read.collector) {
                    derived.samples.extend(last.points.iter().map(gap));
                }
                return;
            }
        };
        derived.errors.extend(part.errors.iter().cloned().map(say));
        derived.facts = derived.facts.take().or_else(|| part.facts.clone());
        let last = self.last_readings.get(read.collector);
        let same = last.is_some_and(|last| Arc::ptr_eq(&last.part, part));
        if !same {
            let before =
                last.and_then(|last| Some((&*last.part, read.started_at.checked_sub(last.read_at)?)));
            let points = derive_samples(before, &part.samples, options);
            let processes = derive_processes(before, &part.processes, options.top_processes);
            let last = LastReading { part: part.clone(), read_at: read.started_at, points, processes };
            self.last_readings.insert(read.collector, last);
        }
        if let Some(last) = self.last_readings.get(read.collector) {
            // Repeated, an event would count twice.
            let again = |point: &Sample| match point.metric.kind {
                MetricKind::Events if same => Sample { value: 0.0, ..point.clone() },
                _ => point.clone(),
            };
            derived.samples.extend(last.points.iter().map(again));
            derived.processes.extend(last.processes.iter().cloned());
        }
    }
}

type PreviousPart<'a> = Option<(&'a Part, Duration)>;

fn derive_samples(before: PreviousPart<'_>, next: &[RawSample], options: &CollectorOptions) -> Vec<Sample> {
    let mut points: Vec<Sample> = Vec::with_capacity(next.len());
    let mut find = SampleLookup::new(before.map_or(&[], |(part, _)| &part.samples));
    let elapsed = before.map_or(Duration::ZERO, |(_, elapsed)| elapsed);
    let mut sums: Vec<(usize, &'static str)> = Vec::new();
    for sample in next {
        if options.exclude_metrics.iter().any(|pattern| glob_match(pattern, sample.metric.name)) {
            continue;
        }
        let value = derive_value(sample.metric, find.find(sample).map(|s| s.raw), sample.raw, elapsed);
        if !sample.metric.summed {
            points.push(Sample { metric: sample.metric, instance: sample.instance.clone(), value });
            continue;
        }
        match sums.iter().find(|(_, name)| *name == sample.metric.name) {
            // A part without a rate yet adds nothing to the sum.
            Some(&(at, _)) => {
                let sum: &mut f64 = &mut points[at].value;
                *sum = if sum.is_nan() {
                    value
                } else if value.is_nan() {
                    *sum
                } else {
                    *sum + value
                };
            }
            None => {
                sums.push((points.len(), sample.metric.name));
                points.push(Sample { metric: sample.metric, instance: "".into(), value });
            }
        }
    }
    points
}

fn derive_value(metric: &MetricDef, before: Option<Raw>, next: Raw, elapsed: Duration) -> f64 {
    let growth = |from: u64, to: u64| to.checked_sub(from).map(to_f64);
    let seconds = elapsed.as_secs_f64();
    let value = match (metric.kind, before, next) {
        (_, _, Raw::Gauge(value)) => Some(value),
        (MetricKind::Rate, Some(Raw::Counter(from)), Raw::Counter(to)) if seconds > 0.0 => {
            growth(from, to).map(|growth| growth / seconds * metric.factor)
        }
        (MetricKind::Events, Some(Raw::Counter(from)), Raw::Counter(to)) => growth(from, to),
        (
            MetricKind::Ratio,
            Some(Raw::Ratio { numerator: part, denominator: whole }),
            Raw::Ratio { numerator: next_part, denominator: next_whole },
        ) => {
            // A part may step back a little while the whole grows (iowait is a guess, says
            // proc_stat(5)): that is a share of zero. A whole that steps back is a reset.
            let part = to_f64(next_part.saturating_sub(part));
            match growth(whole, next_whole) {
                Some(whole) if whole > 0.0 => Some(part / whole * metric.factor),
                // Nothing happened: no share, no latency.
                Some(_) if part == 0.0 => Some(0.0),
                _ => None,
            }
        }
        _ => None,
    };
    let Some(value) = value.filter(|value| value.is_finite()) else {
        return f64::NAN;
    };
    value.clamp(metric.min, metric.max.unwrap_or(f64::MAX))
}

/// Finds the sample of the same metric and instance; readings are nearly always in one order.
struct SampleLookup<'a> {
    samples: &'a [RawSample],
    next: usize,
    index: Option<HashMap<(&'static str, &'a str), &'a RawSample>>,
}

impl<'a> SampleLookup<'a> {
    fn new(samples: &'a [RawSample]) -> Self {
        Self { samples, next: 0, index: None }
    }

    fn find(&mut self, wanted: &RawSample) -> Option<&'a RawSample> {
        let same = |s: &&RawSample| s.metric.name == wanted.metric.name && s.instance == wanted.instance;
        if let Some(sample) = self.samples.get(self.next).filter(same) {
            self.next += 1;
            return Some(sample);
        }
        let samples = self.samples;
        let index = self
            .index
            .get_or_insert_with(|| samples.iter().map(|s| ((s.metric.name, &*s.instance), s)).collect());
        let found = index.get(&(wanted.metric.name, &*wanted.instance)).copied()?;
        self.next = samples.iter().position(|s| std::ptr::eq(s, found)).map_or(self.next, |at| at + 1);
        Some(found)
    }
}

fn derive_processes(before: PreviousPart<'_>, next: &[RawProcess], top: usize) -> Vec<ProcessRow> {
    if next.is_empty() || top == 0 {
        return Vec::new();
    }
    let (earlier, elapsed) =
        before.map_or((&[][..], Duration::ZERO), |(part, elapsed)| (&part.processes, elapsed));
    let speeds: Vec<ProcessRates> = next
        .iter()
        .map(|process| {
            let then = earlier.binary_search_by_key(&process.pid, |p| p.pid).ok().map(|at| &earlier[at]);
            ProcessRates::between(
                then.filter(|then| then.start_ticks == process.start_ticks),
                process,
                elapsed,
            )
        })
        .collect();
    let mut chosen: Vec<usize> = Vec::new();
    let mut seen = HashSet::new();
    let mut choose = |count: usize, key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..next.len()).filter(|&at| key(at) > 0.0).collect();
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        chosen.extend(order.into_iter().take(count).filter(|&at| seen.insert(at)));
    };
    choose(top, &|at| speeds[at].cpu);
    choose(top.div_ceil(2), &|at| to_f64(next[at].memory_bytes));
    choose(top.div_ceil(2), &|at| speeds[at].read.unwrap_or(0.0) + speeds[at].written.unwrap_or(0.0));
    chosen.into_iter().map(|at| process_row(&next[at], &speeds[at])).collect()
}

/// What a process did a second: percent of a core, and bytes of storage where they are known.
struct ProcessRates {
    cpu: f64,
    read: Option<f64>,
    written: Option<f64>,
}

impl ProcessRates {
    fn between(then: Option<&RawProcess>, now: &RawProcess, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate =
            |from: u64, to: u64| if seconds > 0.0 { to_f64(to.saturating_sub(from)) / seconds } else { 0.0 };
        let io = then.and_then(|then| Some((then.io?, now.io?)));
        Self {
            // 100 ticks a second: one tick a second is one percent of a core.
            cpu: then.map_or(0.0, |then| rate(then.cpu_ticks, now.cpu_ticks)),
            read: io.map(|(then, now)| rate(then.0, now.0)),
            written: io.map(|(then, now)| rate(then.1, now.1)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "speeds are positive and `as` saturates"
)]
fn process_row(process: &RawProcess, speed: &ProcessRates) -> ProcessRow {
    let detail = process.detail.clone().unwrap_or_default();
    ProcessRow {
        pid: process.pid,
        name: process.name.clone(),
        user: detail.user.clone(),
        command: detail.command.clone(),
        state: process.state,
        cpu_tenths: (speed.cpu * 10.0).round() as u32,
        memory_bytes: process.memory_bytes,
        threads: process.threads,
        open_files: process.handles,
        read_bytes: speed.read.map(|read| read.round() as u64),
        write_bytes: speed.written.map(|written| written.round() as u64),
        started_ms: process.started_ms,
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
