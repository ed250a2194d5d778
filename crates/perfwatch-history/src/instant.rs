//! Newest row of a host at a time, for reads over many hosts.

use super::History;
use super::read::{JoinedSeries, NearestSnapshot, bucket_row};
use super::task::{CancelOnDrop, run_held};
use perfwatch_model::{HostId, ProcessRow};
use perfwatch_store::{BlockContent, HeldPermits, ReadBounds, StoreError, shares};
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{EncodedRow, Projection, SeriesSelector, Table, Tier, decode_rows};
use std::sync::Arc;

/// Request for the newest row of a host at a time.
#[derive(Debug)]
pub struct InstantRequest {
    /// Host of the row.
    pub host: HostId,
    /// Time of the request, Unix milliseconds.
    pub at_ms: i64,
    /// Maximum age of a raw row at that time, in milliseconds. Buckets that contain the time are always read.
    pub max_age_ms: i64,
    /// Selected columns, as [`InstantRequest::projection`]. A row that is not sealed has all of them.
    pub projection: Arc<Projection>,
    /// Maximum number of stored values that are decoded.
    pub max_cells: usize,
    /// Permits that the read holds.
    pub held: Option<HeldPermits>,
}

impl InstantRequest {
    /// Projection of series, with the parts that a row consists of.
    pub fn projection(series: Vec<SeriesSelector>) -> Arc<Projection> {
        Arc::new(Projection { sequences: true, ..Projection::of_series(series) })
    }
}

/// Newest row of a host at a time.
#[derive(Default)]
pub struct InstantRow {
    /// `None` if no row was recorded.
    pub row: Option<NearestSnapshot>,
    /// Whether the row has its processes: it is not from a block.
    pub has_processes: bool,
    /// Number of stored values that were decoded.
    pub cells: usize,
    /// Whether a block of the time is corrupt, so that a newer row may be missing.
    pub is_unreadable: bool,
}

impl History {
    /// Time before which all history was deleted, Unix milliseconds.
    ///
    /// # Errors
    /// Returns the error of the store if the watermarks cannot be read.
    pub async fn deleted_before_ms(&self) -> Result<i64, StoreError> {
        Ok(self.backend.retention_watermarks().await?.tier_ms(Tier::Hour))
    }

    /// Time before which all history of a host was deleted, Unix milliseconds. Hosts above their share of the
    /// storage lose theirs earlier.
    ///
    /// # Errors
    /// Returns the error of the store if the watermarks cannot be read.
    pub async fn host_deleted_before_ms(&self, host: HostId) -> Result<i64, StoreError> {
        Ok(shares::host_watermarks(&*self.backend, host).await?.tier_ms(Tier::Hour))
    }

    /// Reads the newest row of a host at a time from the head, from blocks, or from roll-ups where rows were
    /// deleted. The read ends if its future is dropped.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the number of values, or another error of the store if the blocks
    /// cannot be read.
    pub async fn row_at(&self, request: InstantRequest) -> Result<InstantRow, StoreError> {
        let InstantRequest { host, at_ms, max_age_ms, projection, max_cells, held } = request;
        let range = (at_ms.saturating_sub(max_age_ms), at_ms.saturating_add(1));
        let newest = self.unsealed_rows(host, range).into_iter().max_by_key(EncodedRow::at_ms);
        let newest = newest.and_then(|row| decode_rows([&row]).pop());
        // Within an interval there is no newer row in a block.
        if let Some(row) = newest.filter(|row| at_ms - row.at_ms < i64::from(row.interval_ms)) {
            let row = NearestSnapshot { snapshot: Arc::unwrap_or_clone(row), width_ms: 0 };
            return Ok(InstantRow { row: Some(row), has_processes: true, ..InstantRow::default() });
        }
        let bounds = ReadBounds { max_cells, trim: true, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        // The bucket that contains the time may start before the oldest raw row that counts.
        let from_ms = range.0.min(bucket_start(at_ms, Tier::Minute.width_ms()));
        let mut joined = self.read_bounded(host, Tier::Raw, (from_ms, range.1), &projection, &bounds).await?;
        let mut cells = joined.sealed.size.cells;
        let hour_ms = bucket_start(at_ms, Tier::Hour.width_ms());
        if joined.sealed.plan.last().is_some_and(|segment| segment.tier == Tier::Hour) && hour_ms < from_ms {
            joined = self.read_bounded(host, Tier::Raw, (hour_ms, range.1), &projection, &bounds).await?;
            cells = cells.saturating_add(joined.sealed.size.cells);
        }
        let select = move || {
            let is_unreadable = joined.sealed.slices.iter().any(|slice| slice.content.is_err());
            InstantRow { row: newest_row(&joined, at_ms), has_processes: false, cells, is_unreadable }
        };
        run_held(&bounds, select).await
    }

    /// Reads the processes of a raw row of a host.
    ///
    /// # Errors
    /// Returns [`StoreError::TooLarge`] above the number of values, or another error of the store if the blocks
    /// cannot be read.
    pub async fn processes_at(
        &self,
        request: InstantRequest,
    ) -> Result<(Vec<ProcessRow>, usize), StoreError> {
        let InstantRequest { host, at_ms, max_cells, held, .. } = request;
        let projection = Arc::new(Projection { sequences: true, processes: true, ..Projection::default() });
        let bounds = ReadBounds { max_cells, trim: true, held, ..ReadBounds::default() };
        let _cancel = CancelOnDrop(bounds.cancelled.clone());
        let joined = self.read_bounded(host, Tier::Raw, (at_ms, at_ms + 1), &projection, &bounds).await?;
        let cells = joined.sealed.size.cells;
        let row = run_held(&bounds, move || newest_row(&joined, at_ms)).await?;
        Ok((row.map(|row| row.snapshot.processes).unwrap_or_default(), cells))
    }
}

/// Newest row at or before a time.
fn newest_row(joined: &JoinedSeries, at_ms: i64) -> Option<NearestSnapshot> {
    let newest_of = |times: &[i64]| {
        let times = times.iter().enumerate().filter(|(_, time_ms)| **time_ms <= at_ms);
        times.max_by_key(|(_, time_ms)| **time_ms).map(|(row, _)| row)
    };
    let raw = |table: &Table| {
        let row = newest_of(&table.at_ms)?;
        Some(NearestSnapshot { snapshot: table.snapshot(row), width_ms: 0 })
    };
    let sealed = joined.sealed.slices.iter().filter_map(|slice| match &slice.content {
        Ok(BlockContent::Raw(table)) => raw(table),
        Ok(BlockContent::Buckets(buckets)) => {
            let row = newest_of(&buckets.start_ms)?;
            bucket_row(buckets, buckets.start_ms[row], slice.block.tier)
        }
        Err(_) => None,
    });
    sealed.chain(joined.unsealed.iter().filter_map(raw)).max_by_key(|row| row.snapshot.at_ms)
}
