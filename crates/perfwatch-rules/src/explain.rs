//! What stands beside an alert: who used most of what it is about, and what else moved with it.
//! Called "largest consumers and movers", never a cause: it is what was seen, no more.

use perfwatch_model::{MISSING, ProcessRow, Shape, unscale};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What processes are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Resource {
    /// Percent of one core.
    Cpu,
    /// Resident bytes.
    Memory,
    /// Bytes a second from and to storage.
    Io,
    /// Open file descriptors.
    OpenFiles,
}

/// A process that used much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopConsumer {
    /// Process id.
    pub pid: u32,
    /// The kernel's short name.
    pub name: String,
    /// Owner.
    pub user: String,
    /// Command line.
    pub command: String,
    /// How much, on average, while the condition held.
    pub current: f64,
    /// How much before; none where it was not among the largest.
    pub baseline: Option<f64>,
}

/// A metric that moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopMover {
    /// Dotted name.
    pub metric: String,
    /// Of which instance; empty where there are none.
    pub instance: String,
    /// Its average while the condition held.
    pub current: f64,
    /// Its average before.
    pub baseline: f64,
    /// How far it moved, in its own usual deviations.
    pub score: f64,
}

/// What is kept with an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// What consumers are ranked by.
    pub resource: Resource,
    /// The time that is explained, milliseconds since 1970.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// Since when the time before is counted.
    pub baseline_from_ms: i64,
    /// Largest first.
    pub consumers: Vec<TopConsumer>,
    /// Furthest first.
    pub movers: Vec<TopMover>,
}

/// Of each.
const MAX_CONSUMERS: usize = 5;
const MAX_MOVERS: usize = 8;
/// What moved by less than so many of its usual deviations did not move.
const MIN_SCORE: f64 = 3.0;

/// One row of what is looked at.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRow<'a> {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// What the values are.
    pub shape: &'a Shape,
    /// Scaled integers.
    pub values: &'a [i64],
    /// The largest processes.
    pub processes: &'a [ProcessRow],
}

/// What a metric is mostly made of by processes.
pub fn resource(metric: &str) -> Resource {
    match metric.split('.').next().unwrap_or_default() {
        "memory" | "swap" | "hugepages" => Resource::Memory,
        "disk" | "filesystem" => Resource::Io,
        "handles" => Resource::OpenFiles,
        "pressure" if metric.starts_with("pressure.memory") => Resource::Memory,
        "pressure" if metric.starts_with("pressure.io") => Resource::Io,
        _ => Resource::Cpu,
    }
}

#[expect(clippy::cast_precision_loss, reason = "seven digits are enough to rank by")]
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

/// Looks at rows from `before_ms` to `to_ms`: what is different since `from_ms`. The breached
/// metric itself is no news.
pub fn explain<'a>(
    metric: &str,
    (before_ms, from_ms, to_ms): (i64, i64, i64),
    rows: impl Iterator<Item = ExplainRow<'a>> + Clone,
) -> Explanation {
    let resource = resource(metric);
    Explanation {
        resource,
        from_ms,
        to_ms,
        baseline_from_ms: before_ms,
        consumers: top_consumers(resource, from_ms, rows.clone()),
        movers: top_movers(metric, from_ms, rows),
    }
}

fn top_consumers<'a>(
    resource: Resource,
    from_ms: i64,
    rows: impl Iterator<Item = ExplainRow<'a>>,
) -> Vec<TopConsumer> {
    struct Sums<'a> {
        last: &'a ProcessRow,
        sums: [f64; 2],
        rows: [u32; 2],
    }
    let mut by_process: HashMap<(u32, i64), Sums<'a>> = HashMap::new();
    let mut counts = [0_u32; 2];
    for row in rows {
        let part = usize::from(row.at_ms >= from_ms);
        counts[part] += 1;
        for process in row.processes {
            let sums = by_process.entry((process.pid, process.started_ms));
            let sums = sums.or_insert(Sums { last: process, sums: [0.0; 2], rows: [0; 2] });
            sums.last = process;
            sums.sums[part] += process_usage(process, resource);
            sums.rows[part] += 1;
        }
    }
    // What is a rate was 0 in the rows that don't name it; what is an amount was there unseen.
    let rate = matches!(resource, Resource::Cpu | Resource::Io);
    let average = |sums: &Sums<'_>, part: usize| {
        let rows = if rate { counts[part] } else { sums.rows[part] };
        (rows > 0 && sums.rows[part] > 0).then(|| sums.sums[part] / f64::from(rows))
    };
    let consumer = |sums: &Sums<'_>| {
        let now = average(sums, 1).filter(|now| *now > 0.0)?;
        Some(TopConsumer {
            pid: sums.last.pid,
            name: sums.last.name.to_string(),
            user: sums.last.user.to_string(),
            command: sums.last.command.chars().take(200).collect(),
            current: now,
            baseline: average(sums, 0),
        })
    };
    let mut consumers: Vec<TopConsumer> = by_process.values().filter_map(consumer).collect();
    consumers.sort_by(|a, b| b.current.total_cmp(&a.current).then(a.pid.cmp(&b.pid)));
    consumers.truncate(MAX_CONSUMERS);
    consumers
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct RunningVariance(f64, f64, f64);

impl RunningVariance {
    fn add(&mut self, value: f64) {
        *self = Self(self.0 + 1.0, self.1 + value, self.2 + value * value);
    }

    fn mean(self) -> f64 {
        self.1 / self.0
    }

    fn deviation(self) -> f64 {
        (self.2 / self.0 - self.mean() * self.mean()).max(0.0).sqrt()
    }
}

fn top_movers<'a>(breached: &str, from_ms: i64, rows: impl Iterator<Item = ExplainRow<'a>>) -> Vec<TopMover> {
    let mut by_series: HashMap<(&str, &str), ([RunningVariance; 2], u8)> = HashMap::new();
    for row in rows {
        let part = usize::from(row.at_ms >= from_ms);
        for (column, value) in row.shape.columns().iter().zip(row.values) {
            if *value != MISSING
                && let Some(value) = unscale(*value, column.decimals)
            {
                let series = by_series.entry((&column.metric, &column.instance)).or_default();
                series.0[part].add(value);
                series.1 = column.decimals;
            }
        }
    }
    let family = breached.split('.').next().unwrap_or_default();
    let mover =
        |((metric, instance), ([before, now], decimals)): (&(&str, &str), &([RunningVariance; 2], u8))| {
            // What only counts on, and what the agent says of itself, always moves.
            let counts_on =
                ["system.uptime", "system.entropy"].contains(metric) || metric.starts_with("agent.");
            if *metric == breached || counts_on || before.0 < 3.0 || now.0 < 1.0 {
                return None;
            }
            let (was, is) = (before.mean(), now.mean());
            // A series that never moved has no deviation of its own: a twentieth of what it shows, and
            // ten of its smallest steps, stand in for it.
            let step = 10.0 * 0.1_f64.powi(i32::from(*decimals));
            let usual = before.deviation() + 0.05 * was.abs().max(is.abs()) + step;
            let score = (is - was).abs() / usual;
            (score >= MIN_SCORE).then(|| TopMover {
                metric: (*metric).to_owned(),
                instance: (*instance).to_owned(),
                current: is,
                baseline: was,
                score: (score * 10.0).round() / 10.0,
            })
        };
    let mut movers: Vec<TopMover> = by_series.iter().filter_map(mover).collect();
    let key = |mover: &TopMover| {
        (mover.metric.split('.').next() == Some(family), mover.metric.clone(), mover.instance.clone())
    };
    // Of two that moved as far, the one of another family says more.
    movers.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| key(a).cmp(&key(b))));
    let mut seen = std::collections::HashSet::new();
    // One instance of a metric is enough.
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
        let quiet = vec![process(1, "init", 1, 100), process(7, "database", 50, 9_000)];
        let busy = vec![process(9, "burner", 1_000, 50), process(7, "database", 55, 9_100)];
        let rows: Vec<(i64, Vec<i64>, &Vec<ProcessRow>)> = (0..100_i64)
            .map(|s| {
                let burns = s >= 80;
                let wobble = s % 5;
                (
                    s * 1_000,
                    vec![
                        if burns { 990 } else { 50 + wobble },
                        if burns { 400 } else { 10 },
                        5_000 + wobble,
                        s * 10,
                        20 + wobble,
                    ],
                    if burns { &busy } else { &quiet },
                )
            })
            .collect();
        let rows = rows.iter().map(|(at_ms, values, processes)| ExplainRow {
            at_ms: *at_ms,
            shape: &shape,
            values,
            processes,
        });
        let explained = explain("cpu.usage", (0, 80_000, 100_000), rows.clone());
        let names: Vec<(&str, f64, Option<f64>)> =
            explained.consumers.iter().map(|c| (c.name.as_str(), c.current, c.baseline)).collect();
        assert_eq!(names, [("burner", 100.0, None), ("database", 5.5, Some(5.0))]);
        let movers: Vec<&str> = explained.movers.iter().map(|mover| mover.metric.as_str()).collect();
        assert_eq!(movers, ["load.1m"]);
        let memory = explain("memory.used_percent", (0, 80_000, 100_000), rows);
        assert_eq!((memory.resource, memory.consumers[0].name.as_str()), (Resource::Memory, "database"));
    }

    #[test]
    fn no_rows_yield_no_explanation() {
        let explained = explain("cpu.usage", (0, 1, 2), std::iter::empty());
        assert!(explained.consumers.is_empty() && explained.movers.is_empty());
    }
}
