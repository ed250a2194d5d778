//! Builds snapshots that every hub accepts: rounds samples, makes series unique, keeps within the limits
//! of the wire format, and assigns a shape, which is reused while the series stay the same.

use crate::derive::{Derived, Sample};
use perfwatch_model::printable::{is_hidden, printable, printable_within};
use perfwatch_model::{
    BootId, CollectorError, Column, HostFacts, MetricDef, ProcessRow, Shape, Snapshot, Unit, limits, scale,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Metrics that describe the snapshot itself.
pub const SNAPSHOT_METRICS: &[MetricDef] = &[MetricDef::gauge(
    "snapshot.columns_dropped",
    Unit::Count,
    0,
    "Columns left out because the host has more than a snapshot can hold.",
)
.rollup_last()];

/// Name of the collector in errors about left-out columns.
const COLLECTOR: &str = "snapshot";
/// Longest varint of protobuf.
const MAX_VARINT_BYTES: usize = 10;
/// Bytes of a message beside its texts: field tags and lengths, numbers of a process row.
const COLUMN_OVERHEAD_BYTES: usize = 24;
const PROCESS_OVERHEAD_BYTES: usize = 128;
const SNAPSHOT_OVERHEAD_BYTES: usize = 1024;

/// Builds snapshots. Retains the last layout and facts, so that shape and facts are sent only after a
/// change.
pub struct SnapshotBuilder {
    layout: Layout,
    facts: Option<Arc<HostFacts>>,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        Self { layout: Layout::new(&[]), facts: None }
    }
}

impl SnapshotBuilder {
    /// Facts of the last snapshot that had any.
    pub fn facts(&self) -> Option<&Arc<HostFacts>> {
        self.facts.as_ref()
    }

    /// Builds a snapshot. Whatever the samples are, it is within the limits of the wire format: doubled
    /// series get a suffix, long texts are shortened, and columns, process rows and errors beyond
    /// [`limits`] are left out, the least important first.
    pub fn build(
        &mut self,
        boot: BootId,
        seq: u64,
        at_ms: i64,
        interval_ms: u32,
        derived: Derived,
    ) -> Snapshot {
        if !self.layout.matches(&derived.samples) {
            self.layout = Layout::new(&derived.samples);
        }
        let value = |&index: &usize| {
            let sample = &derived.samples[index];
            scale(sample.value, sample.metric.decimals)
        };
        let mut values: Vec<i64> = self.layout.retained.iter().map(value).collect();
        values.push(i64::try_from(self.layout.dropped).unwrap_or(i64::MAX));
        let facts = derived.facts.map(shorten_facts);
        let changed = facts.filter(|facts| self.facts.as_deref() != Some(facts)).map(Arc::new);
        if let Some(facts) = &changed {
            self.facts = Some(facts.clone());
        }
        let errors: Vec<CollectorError> = self
            .layout
            .error
            .iter()
            .cloned()
            .chain(derived.errors)
            .take(limits::MAX_COLLECTOR_ERRORS)
            .map(|error| CollectorError {
                collector: printable_within(&error.collector, limits::MAX_TEXT_BYTES).into_owned(),
                message: printable_within(&error.message, limits::MAX_TEXT_BYTES).into_owned(),
            })
            .collect();
        let used = SNAPSHOT_OVERHEAD_BYTES
            + values.len() * MAX_VARINT_BYTES
            + changed.as_ref().map_or(0, |facts| facts_bytes(facts))
            + errors
                .iter()
                .map(|e| e.collector.len() + e.message.len() + COLUMN_OVERHEAD_BYTES)
                .sum::<usize>();
        Snapshot {
            boot,
            seq,
            at_ms,
            interval_ms: interval_ms.min(limits::MAX_INTERVAL_MS),
            shape: self.layout.shape.clone(),
            values,
            processes: limit_processes(derived.processes, limits::MAX_SNAPSHOT_BYTES - used),
            facts: changed,
            errors,
        }
    }
}

/// Assignment of samples to columns.
struct Layout {
    /// Metric and instance of each sample that the layout was made for.
    series: Vec<(&'static str, Arc<str>)>,
    /// Index of the sample of each column.
    retained: Vec<usize>,
    shape: Arc<Shape>,
    /// Number of samples without a column.
    dropped: usize,
    /// Report of the samples without a column.
    error: Option<CollectorError>,
}

impl Layout {
    fn new(samples: &[Sample]) -> Self {
        let (mut columns, doubled) = unique_columns(samples);
        let limit = limits::MAX_COLUMNS - SNAPSHOT_METRICS.len();
        let reserved: usize =
            SNAPSHOT_METRICS.iter().map(|metric| metric.name.len() + COLUMN_OVERHEAD_BYTES).sum();
        let max_bytes = limits::MAX_SHAPE_BYTES - reserved;
        let is_within = columns.len() <= limit
            && columns.iter().map(|(_, c)| column_bytes(c)).sum::<usize>() <= max_bytes;
        let left_out =
            if is_within { Vec::new() } else { leave_out(&mut columns, samples, limit, max_bytes) };
        let dropped = doubled.len() + left_out.len();
        let error = (dropped > 0).then(|| {
            let mut parts = Vec::new();
            if !left_out.is_empty() {
                parts.push(format!(
                    "{} of {} columns left out, more than a snapshot holds: {}",
                    left_out.len(),
                    columns.len() + left_out.len(),
                    summarize(&left_out)
                ));
            }
            if !doubled.is_empty() {
                parts.push(format!("second value left out: {}", summarize(&doubled)));
            }
            CollectorError { collector: COLLECTOR.to_owned(), message: parts.join("; ") }
        });
        let (retained, mut columns): (Vec<usize>, Vec<Column>) = columns.into_iter().unzip();
        columns.extend(SNAPSHOT_METRICS.iter().map(|metric| column(metric, "")));
        Self {
            series: samples.iter().map(|sample| (sample.metric.name, sample.instance.clone())).collect(),
            retained,
            shape: Arc::new(Shape::new(columns)),
            dropped,
            error,
        }
    }

    fn matches(&self, samples: &[Sample]) -> bool {
        self.series.len() == samples.len()
            && self.series.iter().zip(samples).all(|((metric, instance), sample)| {
                *metric == sample.metric.name
                    && (Arc::ptr_eq(instance, &sample.instance) || *instance == sample.instance)
            })
    }
}

fn column(metric: &'static MetricDef, instance: &str) -> Column {
    let dimension = if instance.is_empty() { "" } else { metric.dimension };
    Column {
        metric: metric.name.into(),
        dimension: dimension.into(),
        instance: instance.into(),
        decimals: metric.decimals,
    }
}

fn column_bytes(column: &Column) -> usize {
    column.metric.len() + column.dimension.len() + column.instance.len() + COLUMN_OVERHEAD_BYTES
}

/// Returns a column with a unique name for each sample, and the metrics of samples that cannot have one: a
/// second value of a metric without instances.
fn unique_columns(samples: &[Sample]) -> (Vec<(usize, Column)>, Vec<&'static MetricDef>) {
    let mut columns = Vec::with_capacity(samples.len());
    let mut doubled = Vec::new();
    let mut seen: HashSet<(&str, String)> = HashSet::with_capacity(samples.len());
    let mut numbers: HashMap<(&str, &str), u32> = HashMap::new();
    for (index, sample) in samples.iter().enumerate() {
        let metric = sample.metric;
        let mut instance = shorten_instance(&sample.instance);
        if !seen.insert((metric.name, instance.clone())) {
            if metric.dimension.is_empty() {
                doubled.push(metric);
                continue;
            }
            let number = numbers.entry((metric.name, &sample.instance)).or_insert(1);
            loop {
                *number += 1;
                let suffix = format!(" #{number}");
                let text = printable(&sample.instance);
                let base = shorten(&text, limits::MAX_INSTANCE_BYTES - suffix.len());
                instance = format!("{base}{suffix}");
                if seen.insert((metric.name, instance.clone())) {
                    break;
                }
            }
        }
        columns.push((index, column(metric, &instance)));
    }
    (columns, doubled)
}

/// Rank of essential metrics of disks and filesystems.
const MAX_ESSENTIAL_RANK: u8 = 1;

/// Importance of a column; columns of higher numbers are left out first.
fn rank(metric: &MetricDef, column: &Column) -> u8 {
    match &*column.dimension {
        "" | "collector" => 0,
        _ if metric.essential => MAX_ESSENTIAL_RANK,
        "device" => 2,
        "mount" => 3,
        "sensor" => 4,
        "interface" => 6,
        _ => 5,
    }
}

/// Removes the least important columns until the others are within the limits; returns their metrics.
fn leave_out(
    columns: &mut Vec<(usize, Column)>,
    samples: &[Sample],
    max_columns: usize,
    max_bytes: usize,
) -> Vec<&'static MetricDef> {
    let metric_of = |(index, _): &(usize, Column)| samples[*index].metric;
    let mut first_position: HashMap<&str, usize> = HashMap::new();
    for (position, column) in columns.iter().enumerate() {
        first_position.entry(metric_of(column).name).or_insert(position);
    }
    let mut groups: BTreeMap<(u8, usize), Vec<usize>> = BTreeMap::new();
    for (position, column) in columns.iter().enumerate() {
        let metric = metric_of(column);
        let key = (rank(metric, &column.1), first_position[metric.name]);
        groups.entry(key).or_default().push(position);
    }
    let (mut free_columns, mut free_bytes) = (max_columns, max_bytes);
    let mut is_retained = vec![false; columns.len()];
    for ((rank, _), positions) in groups {
        let bytes: usize = positions.iter().map(|&position| column_bytes(&columns[position].1)).sum();
        // All instances of a metric or none, but for essential metrics as many as fit.
        if rank > MAX_ESSENTIAL_RANK && (positions.len() > free_columns || bytes > free_bytes) {
            continue;
        }
        for position in positions {
            let bytes = column_bytes(&columns[position].1);
            if free_columns > 0 && bytes <= free_bytes {
                free_columns -= 1;
                free_bytes -= bytes;
                is_retained[position] = true;
            }
        }
    }
    let left_out = columns
        .iter()
        .zip(&is_retained)
        .filter(|(_, retained)| !**retained)
        .map(|(column, _)| metric_of(column))
        .collect();
    let mut position = 0;
    columns.retain(|_| {
        position += 1;
        is_retained[position - 1]
    });
    left_out
}

/// Returns texts such as `20000 network.rx_bytes, 7 cpu.core.usage`, most frequent first.
fn summarize(metrics: &[&MetricDef]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    metrics.iter().for_each(|metric| *counts.entry(metric.name).or_default() += 1);
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// Truncates a text at a character boundary.
fn shorten(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Shortens an instance to [`limits::MAX_INSTANCE_BYTES`]. The end becomes a hash of the whole text, so that two
/// long mount points with equal beginnings stay different, and the same ones at every tick.
fn shorten_instance(instance: &str) -> String {
    let instance = &*printable(instance);
    if instance.len() <= limits::MAX_INSTANCE_BYTES {
        return instance.to_owned();
    }
    let hash = instance.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a, which is stable over versions, unlike the hasher of the standard library.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let suffix = format!("…{hash:016x}");
    format!("{}{suffix}", shorten(instance, limits::MAX_INSTANCE_BYTES - suffix.len()))
}

fn shorten_facts(facts: HostFacts) -> HostFacts {
    let shorten = |text: String| printable_within(&text, limits::MAX_TEXT_BYTES).into_owned();
    HostFacts {
        os: shorten(facts.os),
        kernel: shorten(facts.kernel),
        arch: shorten(facts.arch),
        cpu_model: shorten(facts.cpu_model),
        agent_version: shorten(facts.agent_version),
        ..facts
    }
}

fn facts_bytes(facts: &HostFacts) -> usize {
    [&facts.os, &facts.kernel, &facts.arch, &facts.cpu_model, &facts.agent_version]
        .iter()
        .map(|text| text.len() + COLUMN_OVERHEAD_BYTES)
        .sum()
}

/// Shortens the texts of process rows, escapes their hidden characters, and drops rows from the end until the rest is within the limits.
fn limit_processes(mut rows: Vec<ProcessRow>, max_bytes: usize) -> Vec<ProcessRow> {
    rows.truncate(limits::MAX_PROCESSES);
    let (mut used, mut count) = (0, 0);
    for row in &mut rows {
        for text in [&mut row.name, &mut row.user, &mut row.command] {
            if let Cow::Owned(clean) = printable_within(text, limits::MAX_TEXT_BYTES) {
                *text = clean.into();
            }
        }
        if is_hidden(row.state) {
            row.state = '?';
        }
        used += row.name.len() + row.user.len() + row.command.len() + PROCESS_OVERHEAD_BYTES;
        count += usize::from(used <= max_bytes);
    }
    rows.truncate(count);
    rows
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
