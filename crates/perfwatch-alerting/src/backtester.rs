//! Runs a rule over stored history and suggests a threshold.
//!
//! Raw rows are evaluated as far as the time budget allows; the remaining hosts are evaluated by the
//! minute.

use perfwatch_history::History;
use perfwatch_history::read::JoinedSeries;
use perfwatch_model::{Clock, HostId, MISSING, limit_table, unscale};
use perfwatch_rules::Rule;
use perfwatch_rules::backtest::{BacktestSeries, FiringInterval, run, suggest_threshold};
use perfwatch_rules::condition::{Condition, instance_matches};
use perfwatch_rules::host_evaluator::{LOAD_PER_CORE_INPUTS, METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE, ratio};
use perfwatch_store::{BlockContent, StoreError};
use perfwatch_tsdb::query::average;
use perfwatch_tsdb::{Buckets, Projection, SeriesSelector, Table, Tier};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Time limit for raw rows. Hosts that would exceed it are evaluated by the minute.
const MAX_RAW_TIME: Duration = Duration::from_millis(500);
/// Time limit of a backtest. Hosts that would exceed it are skipped.
const MAX_TOTAL_TIME: Duration = Duration::from_millis(900);
/// Maximum length of a range that is evaluated on raw rows.
const MAX_RAW_RANGE_MS: i64 = 8 * 86_400_000;
/// Maximum number of concurrent backtests. Further backtests wait.
const MAX_CONCURRENT_BACKTESTS: usize = 2;
/// Maximum number of stored values that are read of a host: eight days of 20 instances every two seconds.
/// A host above it is evaluated by the minute, then skipped.
const MAX_HOST_CELLS: usize = 8 << 20;
/// Maximum number of listed firing intervals. All intervals are counted.
const MAX_LISTED_INTERVALS: usize = 500;
/// Maximum number of values, give or take a host, from which a threshold is suggested.
const MAX_SUGGESTION_VALUES: usize = 400_000;
const DAY_MS: i64 = 86_400_000;

/// Backtest result of a single host.
pub struct HostBacktest {
    /// Host that was evaluated.
    pub host: HostId,
    /// Intervals in which the rule would have fired, oldest first per instance.
    pub firing_intervals: Vec<FiringInterval>,
    /// Set if minutes were evaluated instead of raw rows.
    pub downsampled: bool,
    /// Number of evaluated values.
    pub value_count: usize,
}

/// Result of a backtest over several hosts.
pub struct BacktestResult {
    /// Evaluated hosts, in the order of the request.
    pub hosts: Vec<HostBacktest>,
    /// Number of hosts that were skipped because of the time limit, or because they have too many values.
    pub skipped_hosts: usize,
    /// Number of firing intervals of all hosts, listed or not.
    pub firing_count: usize,
    /// Threshold at which the rule would fire at most about once per day and host. `None` if the rule
    /// fires that rarely already, or if no threshold achieves it.
    pub suggested_threshold: Option<f64>,
}

/// Metric and instance of a series.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesKey {
    metric: String,
    instance: String,
}

/// Time range in milliseconds since 1970, with an exclusive end.
#[derive(Debug, Clone, Copy)]
struct TimeRange {
    from_ms: i64,
    to_ms: i64,
}

impl TimeRange {
    fn contains(self, at_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

/// Times and values by series, in the order of reading.
#[derive(Default)]
struct InstanceValues(BTreeMap<SeriesKey, Vec<(i64, f64)>>);

impl InstanceValues {
    fn points_mut(&mut self, metric: &str, instance: &str) -> &mut Vec<(i64, f64)> {
        self.0.entry(SeriesKey { metric: metric.to_owned(), instance: instance.to_owned() }).or_default()
    }

    fn add_table(&mut self, table: &Table, range: TimeRange) {
        for (column, values) in table.shape.columns().iter().zip(&table.columns) {
            let to_point = |(at_ms, value): (&i64, &i64)| {
                let is_present = range.contains(*at_ms) && *value != MISSING;
                if is_present { Some((*at_ms, unscale(*value, column.decimals)?)) } else { None }
            };
            let points = table.at_ms.iter().zip(values).filter_map(to_point);
            self.points_mut(&column.metric, &column.instance).extend(points);
        }
    }

    /// Adds the averages of buckets.
    fn add_buckets(&mut self, buckets: &Buckets, range: TimeRange) {
        for (column, stats) in buckets.shape.columns().iter().zip(&buckets.columns) {
            let rows = buckets.start_ms.iter().zip(&stats.0).filter(|(at_ms, _)| range.contains(**at_ms));
            let points = rows.filter_map(|(at_ms, stats)| Some((*at_ms, average(stats, column.decimals)?)));
            self.points_mut(&column.metric, &column.instance).extend(points);
        }
    }

    /// Series that the rule evaluates. `times` contains the times of all rows, for conditions without a
    /// metric.
    fn into_series(mut self, rule: &Rule, times: Vec<i64>) -> Vec<BacktestSeries> {
        self.0.values_mut().for_each(|points| {
            points.sort_by_key(|(at_ms, _)| *at_ms);
            points.dedup_by_key(|(at_ms, _)| *at_ms);
        });
        let Some((metric, patterns)) = selector(rule) else {
            let points = times.into_iter().map(|at_ms| (at_ms, 0.0)).collect();
            return vec![BacktestSeries { instance: String::new(), points }];
        };
        if metric == METRIC_LOAD_PER_CORE {
            let points_of =
                |name: &str| self.0.get(&SeriesKey { metric: name.to_owned(), instance: String::new() });
            let [Some(load), Some(cores)] = LOAD_PER_CORE_INPUTS.map(points_of) else { return Vec::new() };
            let cores: BTreeMap<i64, f64> = cores.iter().copied().collect();
            let points =
                load.iter().filter_map(|(at_ms, load)| Some((*at_ms, ratio(*load, *cores.get(at_ms)?)?)));
            return vec![BacktestSeries { instance: String::new(), points: points.collect() }];
        }
        let is_selected = |key: &SeriesKey| key.metric == metric && instance_matches(patterns, &key.instance);
        let selected = self.0.into_iter().filter(|(key, _)| is_selected(key));
        selected.map(|(key, points)| BacktestSeries { instance: key.instance, points }).collect()
    }
}

/// Collects the series of a rule from what was read of history.
fn collect_series(read: &JoinedSeries, rule: &Rule, range: TimeRange) -> Vec<BacktestSeries> {
    let (mut values, mut times) = (InstanceValues::default(), Vec::new());
    for slice in &read.sealed.slices {
        let slice_range =
            TimeRange { from_ms: slice.from_ms.max(range.from_ms), to_ms: slice.to_ms.min(range.to_ms) };
        let row_times = match &slice.content {
            Ok(BlockContent::Raw(table)) => {
                values.add_table(table, slice_range);
                &table.at_ms
            }
            Ok(BlockContent::Buckets(buckets)) => {
                values.add_buckets(buckets, slice_range);
                &buckets.start_ms
            }
            Err(_) => continue,
        };
        times.extend(row_times.iter().filter(|at_ms| slice_range.contains(**at_ms)));
    }
    for table in &read.unsealed {
        values.add_table(table, range);
        times.extend(&table.at_ms);
    }
    times.sort_unstable();
    values.into_series(rule, times)
}

/// Metric and instance patterns of the series that a rule evaluates. Values of `hub` rules are recorded in the
/// history of the hubs.
fn selector(rule: &Rule) -> Option<(&str, Option<&str>)> {
    match &rule.condition {
        Condition::Hub { hub_metric, .. } => Some((hub_metric.def().series, None)),
        condition => condition.selector(),
    }
}

/// Host whose history a rule evaluates instead of that of the selected hosts.
pub fn recording_host(rule: &Rule) -> Option<HostId> {
    matches!(rule.condition, Condition::Hub { .. }).then_some(HostId::HUBS)
}

/// Reason why a rule cannot be backtested; `None` if it can.
pub fn unsupported_reason(rule: &Rule) -> Option<&'static str> {
    match &rule.condition {
        condition if condition.selector().is_some_and(|(metric, _)| metric == METRIC_CLOCK_SKEW) => {
            Some("clock skew has no history")
        }
        _ => None,
    }
}

/// Backtest of a single host, with the input for a suggestion.
struct HostRun {
    result: HostBacktest,
    series: Vec<BacktestSeries>,
    evaluated_values: Vec<f64>,
}

/// Series and evaluated values of all hosts, from which a threshold is suggested.
#[derive(Default)]
struct SuggestionInput {
    series: Vec<BacktestSeries>,
    values: Vec<f64>,
}

/// Runs rules over stored history.
pub(crate) struct Backtester {
    clock: Arc<dyn Clock>,
    history: Arc<History>,
    permits: Semaphore,
}

impl Backtester {
    pub(crate) fn new(clock: Arc<dyn Clock>, history: Arc<History>) -> Self {
        Self { clock, history, permits: Semaphore::new(MAX_CONCURRENT_BACKTESTS) }
    }

    /// Runs a rule over a time range of several hosts. The first host is always evaluated, the others
    /// within the time limit.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the history cannot be read.
    pub(crate) async fn run(
        &self,
        rule: Rule,
        hosts: Vec<HostId>,
        (from_ms, to_ms): (i64, i64),
    ) -> Result<BacktestResult, StoreError> {
        let _permit = self.permits.acquire().await;
        let rule = Arc::new(rule);
        let range = TimeRange { from_ms, to_ms };
        let start = self.clock.monotonic();
        let elapsed = || self.clock.monotonic().saturating_sub(start);
        let (mut results, mut input) = (Vec::new(), SuggestionInput::default());
        let (mut skipped_hosts, mut hosts) = (0, hosts.into_iter());
        let mut max_host_time = Duration::ZERO;
        while let Some(host) = hosts.next() {
            let host_start = elapsed();
            let expected_end = host_start + max_host_time;
            if expected_end > MAX_TOTAL_TIME && !results.is_empty() {
                skipped_hosts += 1 + hosts.len();
                break;
            }
            let mut downsampled =
                (!results.is_empty() && expected_end > MAX_RAW_TIME) || to_ms - from_ms > MAX_RAW_RANGE_MS;
            let tier = if downsampled { Tier::Minute } else { Tier::Raw };
            let host_run = match self.run_host(&rule, host, range, tier).await {
                Err(StoreError::TooLarge(_)) if !downsampled => {
                    downsampled = true;
                    self.run_host(&rule, host, range, Tier::Minute).await
                }
                host_run => host_run,
            };
            let host_run = match host_run {
                Err(StoreError::TooLarge(_)) => {
                    limit_table::READ_CELLS.refuse();
                    skipped_hosts += 1;
                    continue;
                }
                host_run => host_run?,
            };
            results.push(host_run.result);
            if input.values.len() < MAX_SUGGESTION_VALUES {
                input.values.extend(host_run.evaluated_values);
                input.series.extend(host_run.series);
            }
            let host_time = elapsed() - host_start;
            max_host_time = if downsampled { host_time } else { max_host_time.max(host_time) };
        }
        let firing_count = results.iter().map(|result| result.firing_intervals.len()).sum();
        let days = usize::try_from((to_ms - from_ms) / DAY_MS).unwrap_or(1).max(1);
        let max_firings = days * results.len().max(1);
        let suggested_threshold = if firing_count > max_firings && elapsed() < MAX_TOTAL_TIME {
            let suggest = move || suggest_threshold(&rule, &input.series, input.values, max_firings);
            perfwatch_history::run_blocking(suggest).await?
        } else {
            None
        };
        let mut listed = 0;
        for result in &mut results {
            result.firing_intervals.truncate(MAX_LISTED_INTERVALS.saturating_sub(listed));
            listed += result.firing_intervals.len();
        }
        Ok(BacktestResult { hosts: results, skipped_hosts, firing_count, suggested_threshold })
    }

    async fn run_host(
        &self,
        rule: &Arc<Rule>,
        host: HostId,
        range: TimeRange,
        tier: Tier,
    ) -> Result<HostRun, StoreError> {
        let series = self.load_series(rule, host, range, tier).await?;
        let rule = rule.clone();
        let evaluate = move || {
            let (mut firing_intervals, mut evaluated_values) = (Vec::new(), Vec::new());
            for series in &series {
                firing_intervals.extend(run(&rule, series, &mut |value| evaluated_values.push(value)));
            }
            // The lookback before the range only completes the first windows.
            firing_intervals.retain(|interval| interval.fired_ms >= range.from_ms);
            let value_count = series.iter().map(|series| series.points.len()).sum();
            let downsampled = tier != Tier::Raw;
            let result = HostBacktest { host, firing_intervals, downsampled, value_count };
            HostRun { result, series, evaluated_values }
        };
        perfwatch_history::run_blocking(evaluate).await
    }

    /// Loads the series of a host that a rule evaluates, including its lookback before the range.
    async fn load_series(
        &self,
        rule: &Arc<Rule>,
        host: HostId,
        range: TimeRange,
        tier: Tier,
    ) -> Result<Vec<BacktestSeries>, StoreError> {
        let to_selector = |metric: &str| SeriesSelector { metric: metric.to_owned(), instance: None };
        let selectors = match selector(rule) {
            Some((METRIC_LOAD_PER_CORE, _)) => LOAD_PER_CORE_INPUTS.map(to_selector).to_vec(),
            Some((metric, _)) => vec![to_selector(metric)],
            None => Vec::new(),
        };
        let range = TimeRange { from_ms: range.from_ms - rule.lookback().ms(), ..range };
        let projection = Arc::new(Projection::of_series(selectors));
        let range_ms = (range.from_ms, range.to_ms);
        let read = self.history.read_limited(host, tier, range_ms, &projection, MAX_HOST_CELLS).await?;
        let rule = rule.clone();
        perfwatch_history::run_blocking(move || collect_series(&read, &rule, range)).await
    }
}
