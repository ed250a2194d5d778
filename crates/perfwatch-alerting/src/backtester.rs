//! What a rule would have done: its own tracks over what history has, tick by tick as far as
//! there is time for it, by the minute for the rest.

use super::Alerting;
use perfwatch_model::{HostId, MISSING, unscale};
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

/// What the finest look may take; hosts beyond are looked at by the minute.
const RAW_TIME_BUDGET: Duration = Duration::from_millis(500);
/// And all of it.
const TOTAL_TIME_BUDGET: Duration = Duration::from_millis(900);
/// Longer ranges are looked at by the minute from the start.
const MAX_RAW_RANGE_MS: i64 = 8 * 86_400_000;
/// Back-tests at one time.
pub(super) const MAX_CONCURRENT_BACKTESTS: usize = 2;
/// Fires that are listed; all are counted.
const MAX_LISTED_INTERVALS: usize = 500;
/// Figures that a better threshold is looked for in.
const MAX_SUGGESTION_VALUES: usize = 400_000;

/// What it would have done at one host.
pub struct HostBacktest {
    pub host: HostId,
    pub firing_intervals: Vec<FiringInterval>,
    /// By the minute, not tick by tick.
    pub downsampled: bool,
    /// Values that were looked at.
    pub value_count: usize,
}

/// What it would have done.
pub struct BacktestResult {
    pub hosts: Vec<HostBacktest>,
    /// Hosts that there was no time for.
    pub skipped_hosts: usize,
    pub firing_count: usize,
    /// A threshold by which it would fire about once a day and host, or less.
    pub suggested_threshold: Option<f64>,
}

/// Values of rows by instance, in the order of their time.
#[derive(Default)]
struct InstanceValues(BTreeMap<(String, String), Vec<(i64, f64)>>);

impl InstanceValues {
    fn table(&mut self, table: &Table, (from_ms, to_ms): (i64, i64)) {
        for (column, values) in table.shape.columns().iter().zip(&table.columns) {
            let points = self.0.entry((column.metric.to_string(), column.instance.to_string())).or_default();
            let rows = table.at_ms.iter().zip(values).filter(|(at, _)| (from_ms..to_ms).contains(at));
            points.extend(
                rows.filter(|(_, value)| **value != MISSING)
                    .filter_map(|(at, value)| Some((*at, unscale(*value, column.decimals)?))),
            );
        }
    }

    /// Averages stand for their buckets.
    fn buckets(&mut self, buckets: &Buckets, (from_ms, to_ms): (i64, i64)) {
        for (column, values) in buckets.shape.columns().iter().zip(&buckets.columns) {
            let points = self.0.entry((column.metric.to_string(), column.instance.to_string())).or_default();
            let rows = buckets.start_ms.iter().zip(&values.0).filter(|(at, _)| (from_ms..to_ms).contains(at));
            points.extend(rows.filter_map(|(at, figures)| Some((*at, average(figures, column.decimals)?))));
        }
    }

    fn finish(mut self, rule: &Rule, times: Vec<i64>) -> Vec<BacktestSeries> {
        self.0.values_mut().for_each(|points| {
            points.sort_by_key(|(at, _)| *at);
            points.dedup_by_key(|(at, _)| *at);
        });
        let Some((metric, patterns)) = rule.condition.selector() else {
            let points = times.into_iter().map(|at| (at, 0.0)).collect();
            return vec![BacktestSeries { instance: String::new(), points }];
        };
        if metric == METRIC_LOAD_PER_CORE {
            let of = |name: &str| self.0.get(&(name.to_owned(), String::new()));
            let [Some(load), Some(cores)] = LOAD_PER_CORE_INPUTS.map(of) else { return Vec::new() };
            let cores: BTreeMap<i64, f64> = cores.iter().copied().collect();
            let points = load.iter().filter_map(|(at, load)| Some((*at, ratio(*load, *cores.get(at)?)?)));
            return vec![BacktestSeries { instance: String::new(), points: points.collect() }];
        }
        let fits = |(_, instance): &(String, String)| instance_matches(patterns, instance);
        let all = self.0.into_iter().filter(|(key, _)| key.0 == metric && fits(key));
        all.map(|((_, instance), points)| BacktestSeries { instance, points }).collect()
    }
}

/// Why a rule has no past.
pub fn unsupported_reason(rule: &Rule) -> Option<&'static str> {
    match &rule.condition {
        Condition::Hub { .. } => Some("hub metrics have no history"),
        when if when.selector().is_some_and(|(metric, _)| metric == METRIC_CLOCK_SKEW) => {
            Some("clock skew has no history")
        }
        _ => None,
    }
}

impl Alerting {
    async fn load_series(
        &self,
        rule: &Rule,
        host: HostId,
        range: (i64, i64),
        tier: Tier,
    ) -> Result<Vec<BacktestSeries>, StoreError> {
        let name = |metric: &str| SeriesSelector { metric: metric.to_owned(), instance: None };
        let names = match rule.condition.selector() {
            Some((METRIC_LOAD_PER_CORE, _)) => LOAD_PER_CORE_INPUTS.map(name).to_vec(),
            Some((metric, _)) => vec![name(metric)],
            None => Vec::new(),
        };
        // What it looks back at before the range makes its first figures.
        let from_ms = range.0 - rule.lookback().ms();
        let wanted = Arc::new(Projection::of_series(names));
        let joined = self.deps.history.read(host, tier, (from_ms, range.1), &wanted).await?;
        let rule = rule.clone();
        let gather = move || {
            let (mut gathered, mut times) = (InstanceValues::default(), Vec::new());
            for piece in &joined.sealed.slices {
                let within = (piece.from_ms.max(from_ms), piece.to_ms.min(range.1));
                match &piece.content {
                    Ok(BlockContent::Raw(table)) => {
                        gathered.table(table, within);
                        times.extend(table.at_ms.iter().filter(|at| (within.0..within.1).contains(*at)));
                    }
                    Ok(BlockContent::Buckets(buckets)) => {
                        gathered.buckets(buckets, within);
                        times.extend(buckets.start_ms.iter().filter(|at| (within.0..within.1).contains(*at)));
                    }
                    Err(_) => {}
                }
            }
            for table in &joined.unsealed {
                gathered.table(table, (from_ms, range.1));
                times.extend(&table.at_ms);
            }
            times.sort_unstable();
            gathered.finish(&rule, times)
        };
        perfwatch_history::run_blocking(gather).await
    }

    /// Runs a rule over the past of some hosts.
    pub async fn backtest(
        &self,
        rule: Rule,
        hosts: Vec<HostId>,
        range: (i64, i64),
    ) -> Result<BacktestResult, StoreError> {
        let _slot = self.permits.acquire().await;
        let rule = Arc::new(rule);
        let began = self.deps.clock.monotonic();
        let took = || self.deps.clock.monotonic().saturating_sub(began);
        let (mut results, mut all_pasts, mut figures) = (Vec::new(), Vec::new(), Vec::new());
        let total = hosts.len();
        let mut slowest = Duration::ZERO;
        for host in hosts {
            let before = took();
            // The first one is always looked at; what would not fit is not begun.
            if before + slowest > TOTAL_TIME_BUDGET && !results.is_empty() {
                break;
            }
            let coarse = !results.is_empty() && before + slowest > RAW_TIME_BUDGET;
            let coarse = coarse || range.1 - range.0 > MAX_RAW_RANGE_MS;
            let tier = if coarse { Tier::Minute } else { Tier::Raw };
            let pasts = self.load_series(&rule, host, range, tier).await?;
            let run_rule = rule.clone();
            let (fires, pasts, new) = perfwatch_history::run_blocking(move || {
                let (mut fires, mut new) = (Vec::new(), Vec::new());
                for past in &pasts {
                    fires.extend(run(&run_rule, past, &mut |figure| new.push(figure)));
                }
                (fires, pasts, new)
            })
            .await?;
            let fires: Vec<FiringInterval> =
                fires.into_iter().filter(|fire| fire.fired_ms >= range.0).collect();
            let points = pasts.iter().map(|past| past.points.len()).sum();
            if figures.len() < MAX_SUGGESTION_VALUES {
                figures.extend(new);
                all_pasts.extend(pasts);
            }
            results.push(HostBacktest {
                host,
                firing_intervals: fires,
                downsampled: coarse,
                value_count: points,
            });
            slowest = if coarse { took() - before } else { slowest.max(took() - before) };
        }
        let fires = results.iter().map(|result| result.firing_intervals.len()).sum();
        let days = usize::try_from((range.1 - range.0) / 86_400_000).unwrap_or(1).max(1);
        let most = days * results.len().max(1);
        let suggested = match fires > most && took() < TOTAL_TIME_BUDGET {
            true => {
                perfwatch_history::run_blocking(move || suggest_threshold(&rule, &all_pasts, figures, most))
                    .await?
            }
            false => None,
        };
        let mut listed = 0;
        for result in &mut results {
            result.firing_intervals.truncate(MAX_LISTED_INTERVALS.saturating_sub(listed));
            listed += result.firing_intervals.len();
        }
        let left_out = total - results.len();
        Ok(BacktestResult {
            hosts: results,
            skipped_hosts: left_out,
            firing_count: fires,
            suggested_threshold: suggested,
        })
    }
}
