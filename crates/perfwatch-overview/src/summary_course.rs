//! Recent course of the values of a host, read from its history.

use crate::Overview;
use crate::summary::SummaryValues;
use perfwatch_history::grid::{GridBounds, GridRequest, GridResult};
use perfwatch_live::host_registry::Host;
use perfwatch_model::SeriesSelector;
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_rules::builtin_rules::REAL_MOUNTS;
use perfwatch_rules::condition::instance_matches;
use perfwatch_store::StoreError;
use perfwatch_tsdb::fill::{FillGrid, fill_between_samples};
use perfwatch_tsdb::query::{average, tier_for};

/// Metrics of the values, in the order of [`summary_values`].
const METRICS: [&str; 6] = [
    "cpu.usage",
    "memory.used_percent",
    "filesystem.used_percent",
    "load.1m",
    "network.total.rx_bytes",
    "network.total.tx_bytes",
];
/// Stored values in memory at the same time.
const MAX_PART_CELLS: usize = 512 << 10;
/// Maximum number of points of all series: an hour of a host with hundreds of filesystems.
const MAX_COURSE_LEN: usize = 100_000;

/// Steps of a course.
#[derive(Debug, Clone, Copy)]
pub struct CourseSteps {
    /// Start of the first step in Unix milliseconds, a multiple of `step_ms`.
    pub start_ms: i64,
    /// Width of a step in milliseconds.
    pub step_ms: i64,
    /// Number of steps.
    pub len: usize,
}

impl Overview {
    /// Course of a host until now, read from its history; `None` for steps without data, and for all steps of a host
    /// with too many values.
    ///
    /// # Errors
    /// Returns the error of the store if the history cannot be read.
    pub async fn summary_course(
        &self,
        host: &Host,
        steps: CourseSteps,
    ) -> Result<Vec<Option<SummaryValues>>, StoreError> {
        let deps = &self.0.deps;
        let now_ms = deps.clock.wall_ms();
        let CourseSteps { start_ms, step_ms, len } = steps;
        let end_ms = start_ms + step_ms * i64::try_from(len).unwrap_or_default();
        let request = GridRequest {
            host: host.record.id,
            selectors: METRICS.iter().map(|metric| SeriesSelector::parse(metric)).collect(),
            range: (start_ms, end_ms.min(now_ms + 1)),
            step_ms,
            tier: tier_for(step_ms),
            bounds: GridBounds { part_cells: MAX_PART_CELLS, cells: MAX_READ_CELLS, points: MAX_COURSE_LEN },
            held: None,
        };
        let grid = match deps.history.read_grid(request).await {
            Err(StoreError::TooLarge(_)) => return Ok(vec![None; len]),
            grid => grid?,
        };
        let interval_ms = i64::from(host.interval_ms());
        let fill = FillGrid { start_ms, step_ms, interval_ms, end_ms: end_ms.min(now_ms) };
        let columns = METRICS.map(|metric| column(&grid, metric, len, fill));
        let step = |step: usize| summary_values(columns.each_ref().map(|column| column[step]));
        Ok((0..len).map(step).collect())
    }
}

/// Values of a metric at each step, NaN without data; of filesystems, those of the fullest.
fn column(grid: &GridResult, metric: &str, len: usize, fill: FillGrid) -> Vec<f64> {
    let mut column = vec![f64::NAN; len];
    let series = grid.series.iter().filter(|((name, instance), _)| {
        name == metric && (instance.is_empty() || instance_matches(Some(REAL_MOUNTS), instance))
    });
    for (_, points) in series {
        let mut values = vec![f64::NAN; len];
        for (value, stats) in values.iter_mut().zip(points.stats()) {
            *value = average(stats, points.decimals()).unwrap_or(f64::NAN);
        }
        fill_between_samples(&mut values, fill);
        // The maximum of a number and NaN is the number.
        column.iter_mut().zip(values).for_each(|(largest, value)| *largest = largest.max(value));
    }
    column
}

/// Values of a step by metric of [`METRICS`]; `None` if all are missing.
fn summary_values(values: [f64; METRICS.len()]) -> Option<SummaryValues> {
    let [cpu, memory, disk, load, rx, tx] = values.map(|value| (!value.is_nan()).then_some(value));
    let is_empty = values.iter().all(|value| value.is_nan());
    (!is_empty).then_some(SummaryValues { cpu, memory, disk, load, rx, tx })
}
