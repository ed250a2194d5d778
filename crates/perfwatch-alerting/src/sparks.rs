//! Recent course of the metrics of alerts, for lists. A course is read from history, bounded in rows and time,
//! and shared by all callers for some seconds.

use perfwatch_history::History;
use perfwatch_history::read::JoinedSeries;
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Clock, HostId, MISSING, unscale};
use perfwatch_rules::host_evaluator::{LOAD_PER_CORE_INPUTS, METRIC_CLOCK_SKEW, METRIC_LOAD_PER_CORE, ratio};
use perfwatch_store::{BlockContent, StoreError};
use perfwatch_tsdb::query::average;
use perfwatch_tsdb::{Buckets, Projection, SeriesSelector, Table, Tier};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Number of values of a course.
const SPARK_LEN: usize = 60;
/// Minimum width of a value: the course of a host with a short interval covers half an hour.
const MIN_STEP_MS: i64 = 30_000;
/// Time for which a course is shared.
const SPARK_TTL: Duration = Duration::from_secs(15);
/// Maximum number of courses of a list. Further alerts have none.
const MAX_SPARKS: usize = 100;
/// Maximum number of courses that are kept.
const MAX_SHARED_SPARKS: usize = 1_000;
/// Time limit of reading the courses of a list. Further alerts have none until the next request.
const MAX_READ_TIME: Duration = Duration::from_millis(400);
/// Maximum number of stored values that are read for a course.
const MAX_SPARK_CELLS: usize = 1 << 20;

/// Series of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SparkKey {
    /// Host of the alert.
    pub host: HostId,
    /// Metric of the condition.
    pub metric: String,
    /// Instance of the metric; empty without instances.
    pub instance: String,
}

/// Recent course of a metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spark {
    /// Start of the first value, Unix milliseconds.
    pub from_ms: i64,
    /// Width of a value in milliseconds.
    pub step_ms: i64,
    /// Means, oldest first, at most 60; `null` without samples.
    pub values: Vec<Option<f64>>,
}

/// Course with the monotonic time at which it was read; `None` without history.
struct SharedSpark {
    at: Duration,
    spark: Option<Arc<Spark>>,
}

/// Reads courses and shares them.
pub(crate) struct SparkReader {
    clock: Arc<dyn Clock>,
    hosts: Arc<HostRegistry>,
    history: Arc<History>,
    shared: tokio::sync::Mutex<HashMap<SparkKey, SharedSpark>>,
}

/// Sums and counts of the samples of each value.
struct Means {
    from_ms: i64,
    step_ms: i64,
    sums: [f64; SPARK_LEN],
    counts: [u32; SPARK_LEN],
}

impl Means {
    fn add(&mut self, at_ms: i64, value: f64) {
        let index = usize::try_from((at_ms - self.from_ms).div_euclid(self.step_ms)).ok();
        if let Some(index) = index.filter(|index| *index < SPARK_LEN) {
            self.sums[index] += value;
            self.counts[index] += 1;
        }
    }

    fn add_table(&mut self, table: &Table, metric: &str, instance: &str) {
        let Some(index) = table.shape.column_index(metric, instance) else { return };
        let (decimals, values) = (table.shape.columns()[index].decimals, &table.columns[index]);
        for (at_ms, value) in table.at_ms.iter().zip(values).filter(|(_, value)| **value != MISSING) {
            if let Some(value) = unscale(*value, decimals) {
                self.add(*at_ms, value);
            }
        }
    }

    fn add_buckets(&mut self, buckets: &Buckets, metric: &str, instance: &str) {
        let Some(index) = buckets.shape.column_index(metric, instance) else { return };
        let decimals = buckets.shape.columns()[index].decimals;
        for (at_ms, stats) in buckets.start_ms.iter().zip(&buckets.columns[index].0) {
            if let Some(value) = average(stats, decimals) {
                self.add(*at_ms, value);
            }
        }
    }

    fn values(&self) -> [Option<f64>; SPARK_LEN] {
        let mean =
            |index: usize| (self.counts[index] > 0).then(|| self.sums[index] / f64::from(self.counts[index]));
        std::array::from_fn(mean)
    }
}

/// Means of a series in steps from a time.
fn means(
    read: &JoinedSeries,
    (metric, instance): (&str, &str),
    (from_ms, step_ms): (i64, i64),
) -> [Option<f64>; SPARK_LEN] {
    let mut means = Means { from_ms, step_ms, sums: [0.0; SPARK_LEN], counts: [0; SPARK_LEN] };
    for slice in &read.sealed.slices {
        match &slice.content {
            Ok(BlockContent::Raw(table)) => means.add_table(table, metric, instance),
            Ok(BlockContent::Buckets(buckets)) => means.add_buckets(buckets, metric, instance),
            Err(_) => {}
        }
    }
    read.unsealed.iter().for_each(|table| means.add_table(table, metric, instance));
    means.values()
}

/// Rounds to three decimals: the course is drawn, not read.
fn round_value(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

impl SparkReader {
    pub(crate) fn new(clock: Arc<dyn Clock>, hosts: Arc<HostRegistry>, history: Arc<History>) -> Self {
        Self { clock, hosts, history, shared: tokio::sync::Mutex::default() }
    }

    /// Courses of the series of a list, as many as the limits of number and time allow.
    pub(crate) async fn read_all(&self, keys: Vec<SparkKey>) -> HashMap<SparkKey, Arc<Spark>> {
        let mut shared = self.shared.lock().await;
        let start = self.clock.monotonic();
        shared.retain(|_, spark| start.saturating_sub(spark.at) < SPARK_TTL);
        let mut found = HashMap::new();
        for key in keys.into_iter().take(MAX_SPARKS) {
            let known = shared.get(&key).map(|known| known.spark.clone());
            let elapsed = self.clock.monotonic().saturating_sub(start);
            let spark = match known {
                Some(spark) => spark,
                None if elapsed > MAX_READ_TIME => continue,
                // A host without history has no course.
                None => self.read(&key).await.unwrap_or_default().map(Arc::new),
            };
            if shared.len() < MAX_SHARED_SPARKS {
                let at = shared.get(&key).map_or(start, |known| known.at);
                shared.insert(key.clone(), SharedSpark { at, spark: spark.clone() });
            }
            found.extend(spark.map(|spark| (key, spark)));
        }
        found
    }

    async fn read(&self, key: &SparkKey) -> Result<Option<Spark>, StoreError> {
        let Some(host) = self.hosts.get(key.host) else { return Ok(None) };
        let (metrics, instance) = match key.metric.as_str() {
            "" | METRIC_CLOCK_SKEW => return Ok(None),
            METRIC_LOAD_PER_CORE => (LOAD_PER_CORE_INPUTS.map(str::to_owned).to_vec(), String::new()),
            metric => (vec![metric.to_owned()], key.instance.clone()),
        };
        // Wider than the interval, so that each value has a sample.
        let step_ms = MIN_STEP_MS.max(i64::from(host.interval_ms()) * 3 / 2);
        let to_ms = self.clock.wall_ms();
        let from_ms = to_ms - step_ms * i64::try_from(SPARK_LEN).unwrap_or_default();
        let selector = |metric: &String| SeriesSelector { metric: metric.clone(), instance: None };
        let projection = Arc::new(Projection::of_series(metrics.iter().map(selector).collect()));
        let range = (from_ms, to_ms + 1);
        let read =
            self.history.read_limited(key.host, Tier::Raw, range, &projection, MAX_SPARK_CELLS).await?;
        let build = move || {
            let courses = metrics.iter().map(|metric| means(&read, (metric, &instance), (from_ms, step_ms)));
            let values = match courses.collect::<Vec<_>>().as_slice() {
                [load, cores] => std::array::from_fn(|at| ratio(load[at]?, cores[at]?)),
                [values, ..] => *values,
                [] => [None; SPARK_LEN],
            };
            let is_recorded = values.iter().any(Option::is_some);
            let values = values.map(|value| value.map(round_value)).to_vec();
            is_recorded.then_some(Spark { from_ms, step_ms, values })
        };
        perfwatch_history::run_blocking(build).await
    }
}
