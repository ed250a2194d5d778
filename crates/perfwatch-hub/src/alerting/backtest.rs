//! What a rule would have done: its own tracks over what history has, tick by tick as far as
//! there is time for it, by the minute for the rest.

use super::Alerting;
use perfwatch_alert::Rule;
use perfwatch_alert::backtest::{Fire, Past, run, suggest};
use perfwatch_alert::condition::{Condition, instance_fits};
use perfwatch_alert::watch::{CLOCK_SKEW, LOAD_AND_CORES, LOAD_PER_CORE, ratio};
use perfwatch_model::{HostId, MISSING, unscale};
use perfwatch_series::query::average;
use perfwatch_series::{Buckets, SeriesName, Table, Tier, Wanted};
use perfwatch_store::{Content, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the finest look may take; hosts beyond are looked at by the minute.
const FINE: Duration = Duration::from_millis(500);
/// And all of it.
const ALL: Duration = Duration::from_millis(900);
/// Longer ranges are looked at by the minute from the start.
const TICKS_MS: i64 = 8 * 86_400_000;
/// Back-tests at one time.
pub(super) const AT_ONCE: usize = 2;
/// Fires that are listed; all are counted.
const LISTED: usize = 500;
/// Figures that a better threshold is looked for in.
const FIGURES: usize = 400_000;

/// What it would have done at one host.
pub(crate) struct HostResult {
    pub(crate) host: HostId,
    pub(crate) fires: Vec<Fire>,
    /// By the minute, not tick by tick.
    pub(crate) coarse: bool,
    /// Values that were looked at.
    pub(crate) points: usize,
}

/// What it would have done.
pub(crate) struct Backtest {
    pub(crate) hosts: Vec<HostResult>,
    /// Hosts that there was no time for.
    pub(crate) left_out: usize,
    pub(crate) fires: usize,
    /// A threshold by which it would fire about once a day and host, or less.
    pub(crate) suggested: Option<f64>,
}

/// Values of rows by instance, in the order of their time.
#[derive(Default)]
struct Gathered(BTreeMap<(String, String), Vec<(i64, f64)>>);

impl Gathered {
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

    fn finish(mut self, rule: &Rule, times: Vec<i64>) -> Vec<Past> {
        self.0.values_mut().for_each(|points| {
            points.sort_by_key(|(at, _)| *at);
            points.dedup_by_key(|(at, _)| *at);
        });
        let Some((metric, patterns)) = rule.when.series() else {
            let points = times.into_iter().map(|at| (at, 0.0)).collect();
            return vec![Past { instance: String::new(), points }];
        };
        if metric == LOAD_PER_CORE {
            let of = |name: &str| self.0.get(&(name.to_owned(), String::new()));
            let [Some(load), Some(cores)] = LOAD_AND_CORES.map(of) else { return Vec::new() };
            let cores: BTreeMap<i64, f64> = cores.iter().copied().collect();
            let points = load.iter().filter_map(|(at, load)| Some((*at, ratio(*load, *cores.get(at)?)?)));
            return vec![Past { instance: String::new(), points: points.collect() }];
        }
        let fits = |(_, instance): &(String, String)| instance_fits(patterns, instance);
        let all = self.0.into_iter().filter(|(key, _)| key.0 == metric && fits(key));
        all.map(|((_, instance), points)| Past { instance, points }).collect()
    }
}

/// Why a rule has no past.
pub(crate) fn problem(rule: &Rule) -> Option<&'static str> {
    match &rule.when {
        Condition::Hub { .. } => Some("the hub keeps no history of itself"),
        when if when.series().is_some_and(|(metric, _)| metric == CLOCK_SKEW) => {
            Some("there is no history of how far clocks are off")
        }
        _ => None,
    }
}

impl Alerting {
    async fn pasts(
        &self,
        rule: &Rule,
        host: HostId,
        range: (i64, i64),
        tier: Tier,
    ) -> Result<Vec<Past>, StoreError> {
        let name = |metric: &str| SeriesName { metric: metric.to_owned(), instance: None };
        let names = match rule.when.series() {
            Some((LOAD_PER_CORE, _)) => LOAD_AND_CORES.map(name).to_vec(),
            Some((metric, _)) => vec![name(metric)],
            None => Vec::new(),
        };
        // What it looks back at before the range makes its first figures.
        let from_ms = range.0 - rule.looks_back().ms();
        let wanted = Arc::new(Wanted::series(names));
        let joined = self.rooms.history.join(host, tier, (from_ms, range.1), &wanted).await?;
        let rule = rule.clone();
        let gather = move || {
            let (mut gathered, mut times) = (Gathered::default(), Vec::new());
            for piece in &joined.reading.pieces {
                let within = (piece.from_ms.max(from_ms), piece.to_ms.min(range.1));
                match &piece.content {
                    Ok(Content::Ticks(table)) => {
                        gathered.table(table, within);
                        times.extend(table.at_ms.iter().filter(|at| (within.0..within.1).contains(*at)));
                    }
                    Ok(Content::Buckets(buckets)) => {
                        gathered.buckets(buckets, within);
                        times.extend(buckets.start_ms.iter().filter(|at| (within.0..within.1).contains(*at)));
                    }
                    Err(_) => {}
                }
            }
            for table in &joined.open {
                gathered.table(table, (from_ms, range.1));
                times.extend(&table.at_ms);
            }
            times.sort_unstable();
            gathered.finish(&rule, times)
        };
        crate::history::blocking(gather).await
    }

    /// Runs a rule over the past of some hosts.
    pub(crate) async fn backtest(
        &self,
        rule: Rule,
        hosts: Vec<HostId>,
        range: (i64, i64),
    ) -> Result<Backtest, StoreError> {
        let _slot = self.backtests.acquire().await;
        let rule = Arc::new(rule);
        let began = self.rooms.clock.monotonic();
        let took = || self.rooms.clock.monotonic().saturating_sub(began);
        let (mut results, mut all_pasts, mut figures) = (Vec::new(), Vec::new(), Vec::new());
        let total = hosts.len();
        let mut slowest = Duration::ZERO;
        for host in hosts {
            let before = took();
            // The first one is always looked at; what would not fit is not begun.
            if before + slowest > ALL && !results.is_empty() {
                break;
            }
            let coarse = !results.is_empty() && before + slowest > FINE;
            let coarse = coarse || range.1 - range.0 > TICKS_MS;
            let tier = if coarse { Tier::Minute } else { Tier::Raw };
            let pasts = self.pasts(&rule, host, range, tier).await?;
            let run_rule = rule.clone();
            let (fires, pasts, new) = crate::history::blocking(move || {
                let (mut fires, mut new) = (Vec::new(), Vec::new());
                for past in &pasts {
                    fires.extend(run(&run_rule, past, &mut |figure| new.push(figure)));
                }
                (fires, pasts, new)
            })
            .await?;
            let fires: Vec<Fire> = fires.into_iter().filter(|fire| fire.fired_ms >= range.0).collect();
            let points = pasts.iter().map(|past| past.points.len()).sum();
            if figures.len() < FIGURES {
                figures.extend(new);
                all_pasts.extend(pasts);
            }
            results.push(HostResult { host, fires, coarse, points });
            slowest = if coarse { took() - before } else { slowest.max(took() - before) };
        }
        let fires = results.iter().map(|result| result.fires.len()).sum();
        let days = usize::try_from((range.1 - range.0) / 86_400_000).unwrap_or(1).max(1);
        let most = days * results.len().max(1);
        let suggested = match fires > most && took() < ALL {
            true => crate::history::blocking(move || suggest(&rule, &all_pasts, figures, most)).await?,
            false => None,
        };
        let mut listed = 0;
        for result in &mut results {
            result.fires.truncate(LISTED.saturating_sub(listed));
            listed += result.fires.len();
        }
        let left_out = total - results.len();
        Ok(Backtest { hosts: results, left_out, fires, suggested })
    }
}
