//! Top consumers and movers at fire time. They are observations and never presented as a cause.

use perfwatch_model::{MISSING, ProcessRow, Shape, unscale};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Resource that processes are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Resource {
    /// CPU usage, in percent of a core.
    Cpu,
    /// Resident memory, in bytes.
    Memory,
    /// Storage reads and writes, in bytes per second.
    Io,
    /// Number of open file descriptors.
    OpenFiles,
}

/// Process with a high usage of the resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopConsumer {
    /// Process id on the host.
    pub pid: u32,
    /// Short name of the process (`comm`).
    pub name: String,
    /// User that owns the process.
    pub user: String,
    /// Command line, at most 200 characters.
    pub command: String,
    /// Mean usage while the condition held.
    pub current: f64,
    /// Mean usage before; `None` if the process was not a top process then.
    pub baseline: Option<f64>,
}

/// Series whose mean changed much more than it usually varies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopMover {
    /// Dotted metric name, such as `cpu.usage`.
    pub metric: String,
    /// Instance of the metric; empty if the metric has no dimension.
    pub instance: String,
    /// Mean value while the condition held.
    pub current: f64,
    /// Mean value during the baseline.
    pub baseline: f64,
    /// Difference of the means, in usual deviations of the series.
    pub score: f64,
}

/// Top consumers and movers, stored with an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Resource that the consumers are ranked by.
    pub resource: Resource,
    /// Start of the explained time, in milliseconds since 1970.
    pub from_ms: i64,
    /// End of the explained time, in milliseconds since 1970.
    pub to_ms: i64,
    /// Start of the baseline, which ends at `from_ms`.
    pub baseline_from_ms: i64,
    /// Top consumers, largest usage first.
    pub consumers: Vec<TopConsumer>,
    /// Top movers, highest score first.
    pub movers: Vec<TopMover>,
}

/// Process with the highest usage while the condition held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LargestConsumer {
    /// Resource of the usage.
    pub resource: Resource,
    /// Process id on the host.
    pub pid: u32,
    /// Short name of the process (`comm`).
    pub name: String,
    /// Mean usage while the condition held.
    pub current: f64,
    /// Mean usage before; `None` if the process was not a top process then.
    pub baseline: Option<f64>,
}

impl Explanation {
    /// Process with the highest usage; `None` without top consumers.
    pub fn largest_consumer(&self) -> Option<LargestConsumer> {
        let process = self.consumers.first()?;
        Some(LargestConsumer {
            resource: self.resource,
            pid: process.pid,
            name: process.name.clone(),
            current: process.current,
            baseline: process.baseline,
        })
    }
}

/// Maximum number of top consumers.
const MAX_CONSUMERS: usize = 5;
/// Maximum number of top movers.
const MAX_MOVERS: usize = 8;
/// Minimum score of a top mover, in usual deviations.
const MIN_SCORE: f64 = 3.0;

/// Times of an explanation, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRange {
    /// Start of the baseline, which ends at `from_ms`.
    pub baseline_from_ms: i64,
    /// Start of the explained time.
    pub from_ms: i64,
    /// End of the explained time.
    pub to_ms: i64,
}

/// Row of history to explain an alert with.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRow<'a> {
    /// Time of the row, in milliseconds since 1970.
    pub at_ms: i64,
    /// Column schema of the values.
    pub shape: &'a Shape,
    /// Scaled integers, one per column.
    pub values: &'a [i64],
    /// Top processes of the row.
    pub processes: &'a [ProcessRow],
}

/// Resource of processes that a metric depends on most.
pub fn resource(metric: &str) -> Resource {
    match metric.split('.').next().unwrap_or_default() {
        "memory" | "swap" | "hugepages" => Resource::Memory,
        "disk" | "filesystem" => Resource::Io,
        "file_descriptors" => Resource::OpenFiles,
        "pressure" if metric.starts_with("pressure.memory") => Resource::Memory,
        "pressure" if metric.starts_with("pressure.io") => Resource::Io,
        _ => Resource::Cpu,
    }
}

#[expect(clippy::cast_precision_loss, reason = "52 bits are enough for a ranking")]
fn process_usage(process: &ProcessRow, resource: Resource) -> f64 {
    match resource {
        Resource::Cpu => f64::from(process.cpu_tenths) / 10.0,
        Resource::Memory => process.memory_bytes as f64,
        Resource::Io => {
            process.read_bytes.unwrap_or_default().saturating_add(process.write_bytes.unwrap_or_default())
                as f64
        }
        Resource::OpenFiles => f64::from(process.open_files.unwrap_or_default()),
    }
}

/// Compares the explained time with the baseline before it. The breached metric is not a mover.
pub fn explain<'a>(
    metric: &str,
    range: ExplainRange,
    rows: impl Iterator<Item = ExplainRow<'a>> + Clone,
) -> Explanation {
    let resource = resource(metric);
    let ExplainRange { baseline_from_ms, from_ms, to_ms } = range;
    Explanation {
        resource,
        from_ms,
        to_ms,
        baseline_from_ms,
        consumers: top_consumers(resource, from_ms, rows.clone()),
        movers: top_movers(metric, from_ms, rows),
    }
}

fn top_consumers<'a>(
    resource: Resource,
    from_ms: i64,
    rows: impl Iterator<Item = ExplainRow<'a>>,
) -> Vec<TopConsumer> {
    /// Usage of a process during the baseline (index 0) and the explained time (index 1).
    struct ProcessSums<'a> {
        last: &'a ProcessRow,
        sums: [f64; 2],
        rows: [u32; 2],
    }
    let mut by_process: HashMap<(u32, i64), ProcessSums<'a>> = HashMap::new();
    let mut row_counts = [0_u32; 2];
    for row in rows {
        let period = usize::from(row.at_ms >= from_ms);
        row_counts[period] += 1;
        for process in row.processes {
            let sums = by_process.entry((process.pid, process.started_ms));
            let sums = sums.or_insert(ProcessSums { last: process, sums: [0.0; 2], rows: [0; 2] });
            sums.last = process;
            sums.sums[period] += process_usage(process, resource);
            sums.rows[period] += 1;
        }
    }
    // In rows without the process, a rate counts as 0; an amount is unknown and not counted.
    let is_rate = matches!(resource, Resource::Cpu | Resource::Io);
    let mean = |sums: &ProcessSums<'_>, period: usize| {
        let rows = if is_rate { row_counts[period] } else { sums.rows[period] };
        (rows > 0 && sums.rows[period] > 0).then(|| sums.sums[period] / f64::from(rows))
    };
    let consumer = |sums: &ProcessSums<'_>| {
        let current = mean(sums, 1).filter(|current| *current > 0.0)?;
        Some(TopConsumer {
            pid: sums.last.pid,
            name: sums.last.name.to_string(),
            user: sums.last.user.to_string(),
            command: sums.last.command.chars().take(200).collect(),
            current,
            baseline: mean(sums, 0),
        })
    };
    let mut consumers: Vec<TopConsumer> = by_process.values().filter_map(consumer).collect();
    consumers.sort_by(|a, b| b.current.total_cmp(&a.current).then(a.pid.cmp(&b.pid)));
    consumers.truncate(MAX_CONSUMERS);
    consumers
}

/// Mean and standard deviation of values that are added one after another.
#[derive(Clone, Copy, Default)]
struct RunningVariance {
    count: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl RunningVariance {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    fn mean(self) -> f64 {
        self.sum / self.count
    }

    fn deviation(self) -> f64 {
        (self.sum_of_squares / self.count - self.mean() * self.mean()).max(0.0).sqrt()
    }
}

#[derive(Default)]
struct SeriesStats {
    baseline: RunningVariance,
    current: RunningVariance,
    decimals: u8,
}

/// Score of a series; `None` below [`MIN_SCORE`] or with too few values.
fn to_mover(metric: &str, instance: &str, stats: &SeriesStats) -> Option<TopMover> {
    if stats.baseline.count < 3.0 || stats.current.count < 1.0 {
        return None;
    }
    let (baseline, current) = (stats.baseline.mean(), stats.current.mean());
    // A constant series has no deviation: a twentieth of its value plus ten of its smallest steps are
    // added to the deviation.
    let min_step = 10.0 * 0.1_f64.powi(i32::from(stats.decimals));
    let deviation = stats.baseline.deviation() + 0.05 * baseline.abs().max(current.abs()) + min_step;
    let score = (current - baseline).abs() / deviation;
    (score >= MIN_SCORE).then(|| TopMover {
        metric: metric.to_owned(),
        instance: instance.to_owned(),
        current,
        baseline,
        score: (score * 10.0).round() / 10.0,
    })
}

fn top_movers<'a>(breached: &str, from_ms: i64, rows: impl Iterator<Item = ExplainRow<'a>>) -> Vec<TopMover> {
    let mut by_series: HashMap<(&str, &str), SeriesStats> = HashMap::new();
    for row in rows {
        for (column, value) in row.shape.columns().iter().zip(row.values) {
            if *value != MISSING
                && let Some(value) = unscale(*value, column.decimals)
            {
                let stats = by_series.entry((&column.metric, &column.instance)).or_default();
                let period = if row.at_ms >= from_ms { &mut stats.current } else { &mut stats.baseline };
                period.add(value);
                stats.decimals = column.decimals;
            }
        }
    }
    let family = breached.split('.').next().unwrap_or_default();
    // Counters that always grow and the agent's metrics of itself always move.
    let is_candidate = |metric: &str| {
        metric != breached
            && !["system.uptime", "system.entropy"].contains(&metric)
            && !metric.starts_with("agent.")
    };
    let mut movers: Vec<TopMover> = by_series
        .iter()
        .filter(|((metric, _), _)| is_candidate(metric))
        .filter_map(|((metric, instance), stats)| to_mover(metric, instance, stats))
        .collect();
    let tie_break = |mover: &TopMover| {
        (mover.metric.split('.').next() == Some(family), mover.metric.clone(), mover.instance.clone())
    };
    // With equal scores, a metric of another family is more informative.
    movers.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| tie_break(a).cmp(&tie_break(b))));
    let mut seen = std::collections::HashSet::new();
    // Only the instance with the highest score of each metric.
    movers.retain(|mover| seen.insert(mover.metric.clone()));
    movers.truncate(MAX_MOVERS);
    movers
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::Column;

    fn process(pid: u32, name: &str, cpu_tenths: u32, memory_bytes: u64) -> ProcessRow {
        ProcessRow { pid, name: name.into(), cpu_tenths, memory_bytes, ..ProcessRow::default() }
    }

    #[test]
    fn top_consumer_and_movers_are_ranked() {
        let column = |metric: &'static str| Column {
            metric: metric.into(),
            dimension: "".into(),
            instance: "".into(),
            decimals: 1,
        };
        let shape = Shape::new(
            ["cpu.usage", "load.1m", "memory.used", "system.uptime", "cpu.forks"].map(column).to_vec(),
        );
        let idle_processes = vec![process(1, "init", 1, 100), process(7, "database", 50, 9_000)];
        let busy_processes = vec![process(9, "burner", 1_000, 50), process(7, "database", 55, 9_100)];
        let rows: Vec<(i64, Vec<i64>, &Vec<ProcessRow>)> = (0..100_i64)
            .map(|s| {
                let is_busy = s >= 80;
                let noise = s % 5;
                (
                    s * 1_000,
                    vec![
                        if is_busy { 990 } else { 50 + noise },
                        if is_busy { 400 } else { 10 },
                        5_000 + noise,
                        s * 10,
                        20 + noise,
                    ],
                    if is_busy { &busy_processes } else { &idle_processes },
                )
            })
            .collect();
        let rows = rows.iter().map(|(at_ms, values, processes)| ExplainRow {
            at_ms: *at_ms,
            shape: &shape,
            values,
            processes,
        });
        let range = ExplainRange { baseline_from_ms: 0, from_ms: 80_000, to_ms: 100_000 };
        let explanation = explain("cpu.usage", range, rows.clone());
        let names: Vec<(&str, f64, Option<f64>)> =
            explanation.consumers.iter().map(|c| (c.name.as_str(), c.current, c.baseline)).collect();
        assert_eq!(names, [("burner", 100.0, None), ("database", 5.5, Some(5.0))]);
        let largest = explanation.largest_consumer().unwrap();
        assert_eq!((largest.name.as_str(), largest.pid, largest.resource), ("burner", 9, Resource::Cpu));
        let movers: Vec<&str> = explanation.movers.iter().map(|mover| mover.metric.as_str()).collect();
        assert_eq!(movers, ["load.1m"]);
        let memory = explain("memory.used_percent", range, rows);
        assert_eq!((memory.resource, memory.consumers[0].name.as_str()), (Resource::Memory, "database"));
    }

    #[test]
    fn resource_follows_the_metric_family() {
        for (metric, expected) in [
            ("cpu.usage", Resource::Cpu),
            ("swap.used_percent", Resource::Memory),
            ("disk.utilization", Resource::Io),
            ("pressure.io.full_avg10", Resource::Io),
            ("file_descriptors.used_percent", Resource::OpenFiles),
        ] {
            assert_eq!(resource(metric), expected, "{metric}");
        }
    }

    #[test]
    fn no_rows_yield_no_explanation() {
        let range = ExplainRange { baseline_from_ms: 0, from_ms: 1, to_ms: 2 };
        let explanation = explain("cpu.usage", range, std::iter::empty());
        assert!(explanation.consumers.is_empty() && explanation.movers.is_empty());
    }
}
