//! Background task that keeps the last 24 hours of every host: it samples the newest values, and reads the history
//! of hosts whose samples are missing, host by host.

use crate::day::{BUCKET_MS, DAY_METRICS, HostDay, MAX_BUCKETS, bucket_of};
use crate::fleet::FleetState;
use crate::{OverviewTask, off_thread};

use perfwatch_history::series::SeriesRequest;
use perfwatch_history::series_points::{SeriesResult, SeriesValues};
use perfwatch_model::HostId;
use perfwatch_store::StoreError;
use perfwatch_tsdb::SeriesSelector;
use perfwatch_tsdb::query::average;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Interval of the samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);
/// Pause between the reads of two hosts, so that a start with many hosts stays responsive.
const READ_INTERVAL: Duration = Duration::from_millis(10);

/// Hosts whose history is to be read.
#[derive(Default)]
struct ReadQueue {
    hosts: VecDeque<HostId>,
    /// Bucket in which a host was last added, and whether it had values: without stored history, its day stays
    /// incomplete.
    added: HashMap<HostId, (i64, bool)>,
}

impl ReadQueue {
    /// Adds the hosts that miss the previous bucket or the course of a filesystem, once in each bucket: all hosts
    /// after a start, later new hosts and those that are connected to another hub or send late. The filesystems
    /// are known from the first snapshot.
    fn refill(&mut self, overview: &OverviewTask, state: &FleetState) {
        let bucket = bucket_of(state.now_ms);
        let days = overview.days.read().unwrap_or_else(PoisonError::into_inner);
        let oldest_ms = (bucket - MAX_BUCKETS as i64) * BUCKET_MS;
        self.added.retain(|_, (added, _)| *added == bucket);
        for host in &state.hosts {
            let record = &host.host.record;
            let last_ms = host.host.last_at_ms.max(record.last_snapshot_ms);
            let mounts = host.values.as_ref().map_or(&[][..], |values| &values.mounts);
            let is_complete = days
                .get(&record.id)
                .is_some_and(|day| day.contains_bucket(bucket - 1) && day.contains_mounts(mounts));
            if is_complete || last_ms.is_none_or(|last_ms| last_ms <= oldest_ms) {
                continue;
            }
            let added = (bucket, host.values.is_some());
            if self.added.insert(record.id, added) != Some(added) {
                self.hosts.push_back(record.id);
            }
        }
    }
}

impl OverviewTask {
    /// Samples all hosts and reads missing history until the task is dropped.
    pub(crate) async fn run_sampler(self: Arc<Self>) {
        let (mut samples, mut reads) = (interval(SAMPLE_INTERVAL), interval(READ_INTERVAL));
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut queue = ReadQueue::default();
        loop {
            tokio::select! {
                _ = samples.tick() => {
                    let state = self.state().await;
                    queue.refill(&self, &state);
                    let overview = self.clone();
                    off_thread(move || overview.sample(&state)).await;
                }
                _ = reads.tick(), if !queue.hosts.is_empty() => {
                    if let Some(host) = queue.hosts.pop_front()
                        && let Err(error) = self.read_day(host).await
                    {
                        tracing::debug!(%host, error = %error, "skipping the history of a host in the overview");
                    }
                }
            }
        }
    }

    /// Adds the newest values of all hosts and removes deleted hosts.
    pub(crate) fn sample(&self, state: &FleetState) {
        let mut days = self.days.write().unwrap_or_else(PoisonError::into_inner);
        let known = |id: &HostId| state.hosts.iter().any(|host| host.host.record.id == *id);
        if days.len() > state.hosts.len() {
            days.retain(|id, _| known(id));
        }
        for host in &state.hosts {
            let Some(values) = &host.values else { continue };
            let day = days.entry(host.host.record.id).or_default();
            day.clear_future(state.now_ms);
            day.add(values);
            day.forecast(state.now_ms);
        }
    }

    /// Reads the last 24 hours of a host from its history.
    async fn read_day(&self, host: HostId) -> Result<(), StoreError> {
        let now_ms = self.deps.clock.wall_ms();
        let current = bucket_of(now_ms);
        // The current bucket is sampled.
        let range = ((current - MAX_BUCKETS as i64 + 1) * BUCKET_MS, current * BUCKET_MS);
        let mounts = self.forecast_mounts(host);
        let selector = |metric: &str, instance: &str| SeriesSelector {
            metric: metric.to_owned(),
            instance: Some(instance.to_owned()),
        };
        let mut selectors: Vec<SeriesSelector> =
            DAY_METRICS.iter().map(|metric| selector(metric, "")).collect();
        selectors.extend(mounts.iter().map(|mount| selector("filesystem.used_percent", mount)));
        let interval_ms = i64::from(self.deps.hosts.interval_ms(host));
        let request =
            SeriesRequest { host, selectors, range, max_points: MAX_BUCKETS, interval_ms, held: None };
        let history = &self.deps.history;
        let result = history.read_series(history.plan_series(request).await?).await?;
        let mut days = self.days.write().unwrap_or_else(PoisonError::into_inner);
        let day = days.entry(host).or_default();
        add_series(day, &result);
        day.forecast(now_ms);
        Ok(())
    }

    /// Filesystems of a host whose filling is forecast.
    fn forecast_mounts(&self, host: HostId) -> Vec<Arc<str>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.mounts(host)
    }
}

/// Adds the points of a result to the buckets without samples, and the course of filesystems.
#[expect(clippy::cast_possible_truncation, reason = "single precision suffices for a small chart")]
fn add_series(day: &mut HostDay, result: &SeriesResult) {
    let missing: Vec<bool> =
        result.at_ms.iter().map(|at_ms| !day.contains_bucket(bucket_of(*at_ms))).collect();
    for series in &result.series {
        let value = |row: usize| match &series.values {
            SeriesValues::Raw(values) => perfwatch_model::unscale(*values.get(row)?, series.decimals),
            SeriesValues::Points(points) => {
                average(points.stats().get(*result.point_indices.get(row)?)?, series.decimals)
            }
        };
        let rows =
            (0..result.at_ms.len()).filter_map(|row| Some((row, bucket_of(result.at_ms[row]), value(row)?)));
        let Some(metric) = DAY_METRICS.iter().position(|metric| *metric == series.metric) else {
            let mount: Arc<str> = series.instance.as_str().into();
            rows.for_each(|(_, bucket, value)| day.set_mount(&mount, bucket, value as f32));
            continue;
        };
        let rows: Vec<_> = rows.filter(|(row, ..)| missing[*row]).collect();
        for bucket in rows.chunk_by(|(_, one, _), (_, other, _)| one == other) {
            let sum: f64 = bucket.iter().map(|(.., value)| value).sum();
            day.add_samples(bucket[0].1, metric, sum, u32::try_from(bucket.len()).unwrap_or(u32::MAX));
        }
    }
}
