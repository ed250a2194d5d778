//! Throughput of the collection queue: the collections of the last 24 hours by time, from the collection
//! history that all hubs write.

use perfwatch_live::cache::Cache;
use perfwatch_store::collections::{CollectionCount, CollectionRow};
use perfwatch_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Width of a step in milliseconds.
const STEP_MS: i64 = 600_000;
/// Number of steps: 24 hours.
const MAX_STEPS: i64 = 144;
/// Maximum number of steps of a read: an hour, so that a read of many servers stays short.
const MAX_READ_STEPS: i64 = 6;
/// Time for which the series is cached.
const SERIES_TTL: Duration = Duration::from_secs(30);

/// Collections of the last 24 hours, in steps of 10 minutes. Connection tests and the successful
/// collections of open pages are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = QueueSeriesResponse))]
pub struct QueueSeries {
    /// Width of a step in milliseconds.
    step_ms: i64,
    /// Starts of the steps, Unix milliseconds.
    t: Vec<i64>,
    /// Successful collections of each step.
    succeeded: Vec<i64>,
    /// Failed attempts of each step.
    failed: Vec<i64>,
    /// Mean duration of the collections of each step in milliseconds; `null` without a collection.
    duration_ms: Vec<Option<i64>>,
}

impl QueueSeries {
    /// Reads the series of all servers, or of those that the filter of a scope contains.
    pub(crate) async fn read(
        store: &dyn Store,
        cache: &Cache,
        now_ms: i64,
        scope: Option<(&str, &(dyn Fn(Uuid) -> bool + Sync))>,
    ) -> Result<Self, StoreError> {
        let key = format!("queue_series:{}", scope.map_or("", |(name, _)| name));
        if let Some(series) = cache.get(std::slice::from_ref(&key)).await.pop().flatten() {
            return Ok(series);
        }
        let end = now_ms.div_euclid(STEP_MS) + 1;
        let mut counts = Vec::new();
        for first in (end - MAX_STEPS..end).step_by(MAX_READ_STEPS as usize) {
            let last = (first + MAX_READ_STEPS).min(end);
            let range = (first * STEP_MS, last * STEP_MS);
            let read = CollectionRow::counts(store, range, STEP_MS, scope.is_some()).await?;
            let is_visible = |count: &CollectionCount| match (count.server, scope) {
                (Some(server), Some((_, is_visible))) => is_visible(server),
                _ => true,
            };
            counts.extend(read.into_iter().filter(is_visible));
        }
        let series = Self::from_counts(&counts, end);
        cache.put(&key, &series, SERIES_TTL).await;
        Ok(series)
    }

    /// Series of the steps before `end`.
    fn from_counts(counts: &[CollectionCount], end: i64) -> Self {
        let first = end - MAX_STEPS;
        let steps = usize::try_from(MAX_STEPS).unwrap_or_default();
        let (mut succeeded, mut failed, mut total_ms) = (vec![0; steps], vec![0; steps], vec![0; steps]);
        for count in counts {
            let Some(at) = usize::try_from(count.step - first).ok().filter(|at| *at < steps) else {
                continue;
            };
            succeeded[at] += count.succeeded;
            failed[at] += count.failed;
            total_ms[at] += count.duration_ms;
        }
        let mean =
            |at: usize| (succeeded[at] + failed[at] > 0).then(|| total_ms[at] / (succeeded[at] + failed[at]));
        Self {
            step_ms: STEP_MS,
            t: (first..end).map(|step| step * STEP_MS).collect(),
            duration_ms: (0..steps).map(mean).collect(),
            succeeded,
            failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_servers_are_added() {
        let count = |step, succeeded, failed, duration_ms| CollectionCount {
            step,
            server: None,
            succeeded,
            failed,
            duration_ms,
        };
        let counts = [count(999, 2, 0, 500), count(999, 1, 1, 300), count(998, 0, 1, 90), count(1, 9, 9, 9)];
        let series = QueueSeries::from_counts(&counts, 1_000);
        assert_eq!((series.t.len(), series.t[143]), (144, 999 * STEP_MS));
        assert_eq!((series.succeeded[143], series.failed[143], series.duration_ms[143]), (3, 1, Some(200)));
        assert_eq!((series.failed[142], series.duration_ms[142], series.duration_ms[0]), (1, Some(90), None));
        assert_eq!(series.succeeded.iter().sum::<i64>(), 3, "older steps are left out");
    }
}
