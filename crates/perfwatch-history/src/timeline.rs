//! Gaps, reboots and changed facts of a host over a range, from the sequence numbers and annotations of its rows.

use super::History;
use super::read::JoinedSeries;
pub use super::series_points::MAX_GAPS;
use super::series_points::gap_markers;
use super::task::{CancelOnDrop, MAX_PART_CELLS, run_held};
use perfwatch_model::{HostFacts, HostId};
use perfwatch_store::{BlockContent, HeldPermits, ReadBounds, StoreError};
use perfwatch_tsdb::query::{self, Gap, GapMarker};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{Projection, Table, Tier};
use std::sync::Arc;

/// Maximum number of reboots, and of changes of facts.
const MAX_CHANGES: usize = 500;
/// Length of the parts in which rows are read; a day of rows every two seconds fits into a part.
const PART_MS: i64 = 86_400_000;
/// Minimum length of the parts.
const MIN_PART_MS: i64 = 60_000;

/// Change of the boot id between two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reboot {
    /// Time of the last row of the previous boot, Unix milliseconds.
    pub from_ms: i64,
    /// Time of the first row of the new boot, Unix milliseconds.
    pub to_ms: i64,
}

/// Facts of a host that differ from those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsChange {
    /// Time of the first row with the new facts, Unix milliseconds.
    pub at_ms: i64,
    /// Previous facts.
    pub before: Arc<HostFacts>,
    /// New facts.
    pub after: Arc<HostFacts>,
}

/// Events of a host that its rows contain, oldest first. The newest remain if there are too many.
#[derive(Debug, Default)]
pub struct HostTimeline {
    /// Times of the first and of the last row, Unix milliseconds; `None` without rows.
    pub rows_ms: Option<(i64, i64)>,
    /// Times without rows.
    pub gaps: Vec<Gap>,
    /// Reboots. Only raw rows contain the boot id.
    pub reboots: Vec<Reboot>,
    /// Changes of the facts. Only raw rows contain facts, and only where they may have changed.
    pub facts: Vec<FactsChange>,
}

impl History {
    /// Reads the timeline of a host in parts of bounded size. `interval_ms` is the expected interval between
    /// snapshots.
    ///
    /// # Errors
    /// Returns the error of the store if the blocks cannot be read.
    pub async fn timeline(
        &self,
        host: HostId,
        (from_ms, to_ms): (i64, i64),
        interval_ms: i64,
        held: Option<HeldPermits>,
    ) -> Result<HostTimeline, StoreError> {
        let projection = Projection { sequences: true, annotations: true, ..Projection::default() };
        let projection = Arc::new(projection);
        let bounds = ReadBounds { max_cells: MAX_PART_CELLS, trim: true, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let mut builder = TimelineBuilder { interval_ms, ..TimelineBuilder::default() };
        let (mut at_ms, mut part_ms) = (from_ms, PART_MS);
        while at_ms < to_ms {
            let range = (at_ms, (bucket_start(at_ms, part_ms) + part_ms).min(to_ms));
            let joined = match self.read_bounded(host, Tier::Raw, range, &projection, &bounds).await {
                Err(StoreError::TooLarge(_)) if part_ms > MIN_PART_MS => {
                    part_ms /= 2;
                    continue;
                }
                joined => joined?,
            };
            builder = run_held(&bounds, move || builder.add(&joined, range)).await?;
            at_ms = range.1;
        }
        Ok(builder.timeline)
    }
}

/// Timeline of the parts read so far.
#[derive(Default)]
struct TimelineBuilder {
    interval_ms: i64,
    timeline: HostTimeline,
    last_marker: Option<GapMarker>,
    last_facts: Option<Arc<HostFacts>>,
}

impl TimelineBuilder {
    fn add(mut self, joined: &JoinedSeries, part: (i64, i64)) -> Self {
        let mut markers: Vec<GapMarker> = self.last_marker.into_iter().collect();
        markers.extend(gap_markers(joined, part, self.interval_ms));
        if let (Some(first), Some(last)) = (markers.first(), markers.last()) {
            let first_ms = self.timeline.rows_ms.map_or(first.at_ms, |(first_ms, _)| first_ms);
            self.timeline.rows_ms = Some((first_ms, last.at_ms));
        }
        self.last_marker = markers.last().copied();
        let reboots = markers.windows(2).filter_map(|pair| match (pair[0].sequence, pair[1].sequence) {
            (Some((before, _)), Some((after, _))) if before != after => {
                Some(Reboot { from_ms: pair[0].at_ms, to_ms: pair[1].at_ms })
            }
            _ => None,
        });
        self.timeline.reboots.extend(reboots);
        self.timeline.gaps.extend(query::find_gaps(&markers));
        self.add_facts(joined, part);
        keep_newest(&mut self.timeline.reboots, MAX_CHANGES);
        keep_newest(&mut self.timeline.gaps, MAX_GAPS);
        keep_newest(&mut self.timeline.facts, MAX_CHANGES);
        self
    }

    fn add_facts(&mut self, joined: &JoinedSeries, (from_ms, to_ms): (i64, i64)) {
        let sealed = joined.sealed.slices.iter().filter_map(|slice| match &slice.content {
            Ok(BlockContent::Raw(table)) => Some((table, slice.from_ms, slice.to_ms)),
            _ => None,
        });
        let unsealed = joined.unsealed.iter().map(|table| (table, from_ms, to_ms));
        let facts_of = |(table, from_ms, to_ms): (&Table, i64, i64)| -> Vec<(i64, Arc<HostFacts>)> {
            let at = |(row, facts): &(usize, Arc<HostFacts>)| Some((*table.at_ms.get(*row)?, facts.clone()));
            table.facts.iter().filter_map(at).filter(|(at_ms, _)| (from_ms..to_ms).contains(at_ms)).collect()
        };
        let mut all: Vec<(i64, Arc<HostFacts>)> = sealed.chain(unsealed).flat_map(facts_of).collect();
        all.sort_by_key(|(at_ms, _)| *at_ms);
        for (at_ms, after) in all {
            if let Some(before) =
                self.last_facts.replace(after.clone()).filter(|before| differ(before, &after))
            {
                self.timeline.facts.push(FactsChange { at_ms, before, after });
            }
        }
    }
}

/// Returns whether facts differ in more than the boot time, and in the memory that a kernel reserves.
fn differ(before: &HostFacts, after: &HostFacts) -> bool {
    let key = |facts: &HostFacts| {
        (facts.os.clone(), facts.kernel.clone(), facts.cores, facts.agent_version.clone())
    };
    key(before) != key(after)
}

/// Removes the oldest elements above a number.
fn keep_newest<T>(list: &mut Vec<T>, max: usize) {
    list.drain(..list.len().saturating_sub(max));
}
