//! Reads of history for the availability: the rows and gaps of a host on a day and around it, and the times in which
//! no hub ran.

use crate::availability::{DAY_MS, Observation, day_of};
use perfwatch_history::History;
use perfwatch_history::timeline::{HostTimeline, MAX_GAPS};
use perfwatch_live::host_registry::Host;
use perfwatch_model::HostId;
use perfwatch_store::StoreError;
use std::collections::HashMap;

/// Minimum time around a day in which its neighboring rows are expected.
const MIN_MARGIN_MS: i64 = 600_000;
/// Interval at which hubs record their own metrics.
const HUB_INTERVAL_MS: i64 = 10_000;
/// Time without metrics of hubs from which no hub ran.
const MIN_HUB_GAP_MS: i64 = 30_000;

/// Reader of history for a pass over the hosts of all pages.
pub(crate) struct Observer<'a> {
    history: &'a History,
    now_ms: i64,
    /// Times without a hub by day.
    hub_gaps: HashMap<i64, Vec<(i64, i64)>>,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(history: &'a History, now_ms: i64) -> Self {
        Self { history, now_ms, hub_gaps: HashMap::new() }
    }

    async fn read(&self, host: &Host, range: (i64, i64)) -> Result<HostTimeline, StoreError> {
        self.history.timeline(host.record.id, range, i64::from(host.interval_ms()), None).await
    }

    /// Rows of a host from a time on, until now.
    pub(crate) async fn since(&self, host: &Host, from_ms: i64) -> Result<Observation, StoreError> {
        let silent = Observation { rows_ms: Some((from_ms, from_ms)), ..Observation::default() };
        if host.newest_ms() <= Some(from_ms) || self.now_ms <= from_ms {
            return Ok(silent);
        }
        let timeline = self.read(host, (from_ms, self.now_ms + 1)).await?;
        // Retention may have deleted the row.
        Ok(if timeline.rows_ms.is_some() { to_observation(timeline) } else { silent })
    }

    /// Rows of a host on a day, with the last row before the day and the first row after it. `first_row_ms` is the
    /// first row of the host in the days of a page.
    pub(crate) async fn day(
        &self,
        (host, first_row_ms): (&Host, Option<i64>),
        day: i64,
    ) -> Result<Observation, StoreError> {
        let (start_ms, end_ms) = (day * DAY_MS, (day + 1) * DAY_MS);
        let Some(last_known_ms) = host.newest_ms() else { return Ok(Observation::default()) };
        if last_known_ms < start_ms {
            let rows_ms = Some((last_known_ms, last_known_ms));
            return Ok(Observation { rows_ms, ..Observation::default() });
        }
        let Some(first_row_ms) = first_row_ms.filter(|first_row_ms| *first_row_ms < end_ms) else {
            return Ok(Observation::default());
        };
        let margin_ms = (3 * i64::from(host.interval_ms())).max(MIN_MARGIN_MS);
        let range = (start_ms - margin_ms, (end_ms + margin_ms).min(self.now_ms + 1));
        let timeline = self.read(host, range).await?;
        let before_ms = match timeline.rows_ms {
            Some((first_ms, _)) if first_ms <= start_ms => None,
            _ => self.last_row_before(host, (first_row_ms, range.0)).await?,
        };
        let after_ms = match timeline.rows_ms {
            Some((_, last_ms)) if last_ms >= end_ms => None,
            _ if last_known_ms < range.1 => None,
            _ => self.first_row_after(host, range.1).await?,
        };
        if before_ms.is_none() && after_ms.is_none() {
            return Ok(to_observation(timeline));
        }
        let range = (before_ms.unwrap_or(range.0), after_ms.map_or(range.1, |after_ms| after_ms + 1));
        Ok(to_observation(self.read(host, range).await?))
    }

    async fn last_row_before(
        &self,
        host: &Host,
        (first_row_ms, before_ms): (i64, i64),
    ) -> Result<Option<i64>, StoreError> {
        let mut to_ms = before_ms;
        while to_ms > first_row_ms {
            if let Some((_, last_ms)) = self.read(host, (to_ms - DAY_MS, to_ms)).await?.rows_ms {
                return Ok(Some(last_ms));
            }
            to_ms -= DAY_MS;
        }
        Ok(None)
    }

    /// First row of a host from a time on.
    pub(crate) async fn first_row_after(
        &self,
        host: &Host,
        after_ms: i64,
    ) -> Result<Option<i64>, StoreError> {
        let mut from_ms = after_ms;
        while from_ms <= self.now_ms {
            let to_ms = (from_ms + DAY_MS).min(self.now_ms + 1);
            if let Some((first_ms, _)) = self.read(host, (from_ms, to_ms)).await?.rows_ms {
                return Ok(Some(first_ms));
            }
            from_ms = to_ms;
        }
        Ok(None)
    }

    /// Times of a day until now in which no hub ran, oldest first.
    pub(crate) async fn hub_gaps(&mut self, day: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        if let Some(gaps) = self.hub_gaps.get(&day) {
            return Ok(gaps.clone());
        }
        let (start_ms, end_ms) = (day * DAY_MS, ((day + 1) * DAY_MS).min(self.now_ms));
        let range = (start_ms - 2 * MIN_HUB_GAP_MS, end_ms + 1);
        let timeline = self.history.timeline(HostId::HUBS, range, HUB_INTERVAL_MS, None).await?;
        let gaps = hub_gaps(&timeline, (start_ms, end_ms));
        // The current day changes with each pass.
        if day < day_of(self.now_ms) {
            self.hub_gaps.insert(day, gaps.clone());
        }
        Ok(gaps)
    }
}

fn to_observation(timeline: HostTimeline) -> Observation {
    let is_truncated = timeline.gaps.len() >= MAX_GAPS;
    Observation { rows_ms: timeline.rows_ms, gaps: timeline.gaps, is_truncated }
}

/// Times of a range without metrics of hubs.
fn hub_gaps(timeline: &HostTimeline, (from_ms, to_ms): (i64, i64)) -> Vec<(i64, i64)> {
    let Some((first_ms, last_ms)) = timeline.rows_ms else { return vec![(from_ms, to_ms)] };
    let inner = timeline.gaps.iter().map(|gap| (gap.from_ms, gap.to_ms));
    let all = [(from_ms, first_ms)].into_iter().chain(inner).chain([(last_ms, to_ms)]);
    all.filter(|(start_ms, end_ms)| end_ms - start_ms >= MIN_HUB_GAP_MS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_tsdb::query::{Gap, GapKind};

    #[test]
    fn hub_gaps_are_the_times_without_its_metrics() {
        let range = (1_000_000, 2_000_000);
        let gap = |from_ms, to_ms| Gap { from_ms, to_ms, kind: GapKind::AgentStopped };
        let timeline =
            |rows_ms, gaps: &[Gap]| HostTimeline { rows_ms, gaps: gaps.to_vec(), ..HostTimeline::default() };
        for (timeline, expected) in [
            (timeline(None, &[]), vec![range]),
            (timeline(Some((990_000, 1_995_000)), &[]), vec![]),
            (
                timeline(Some((1_200_000, 1_500_000)), &[]),
                vec![(1_000_000, 1_200_000), (1_500_000, 2_000_000)],
            ),
            (
                timeline(Some((990_000, 1_995_000)), &[gap(1_100_000, 1_126_000), gap(1_200_000, 1_300_000)]),
                vec![(1_200_000, 1_300_000)],
            ),
        ] {
            assert_eq!(hub_gaps(&timeline, range), expected, "{timeline:?}");
        }
    }
}
