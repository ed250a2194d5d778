//! Reads of hosts, watermarks and block metadata, the same in both engines; and the plan of a range read.

use crate::error::StoreError;
use crate::hosts::HostRecord;
use crate::schema::block_table;
use crate::sql::{RowReader, SqlValue};
use crate::store::{Query, QueryResult, Store};
use crate::write::{BlockId, BlockInfo, DirtyWindow, RetentionWatermarks, SealWatermark, SequenceRanges};
use perfwatch_model::{BootId, HostId, RangeSet, wire};
use perfwatch_tsdb::Tier;
use perfwatch_tsdb::plan::TierState;
use std::sync::Arc;

/// Reads the watermarks of all tiers, with a `FOR` clause appended in PostgreSQL.
pub(crate) const WATERMARKS_SQL: &str = "SELECT tier, ms FROM retention_watermark ORDER BY tier";

/// Reads the dirty windows of a host in the tiers that are rolled up.
pub(crate) const DIRTY_SQL: &str =
    "SELECT tier, window_ms FROM dirty_window WHERE host = $1 AND tier IN (0, 1)";

/// Reads the watermarks of a host that is above its share of the disk budget.
pub(crate) const HOST_WATERMARKS_SQL: &str = "SELECT tier, ms FROM host_watermark WHERE host = $1";

/// Statement that reads the metadata of a host's blocks in a range, and further columns. `$1` is the host,
/// see [`BlockRange`] for the other parameters.
pub(crate) fn select_blocks(tier: Tier, columns: &str) -> String {
    format!(
        "SELECT id, first_ms, last_ms, bytes, shape, {columns} FROM {} \
         WHERE host = $1 AND first_ms >= $2 AND first_ms < $3 AND last_ms > $4 ORDER BY first_ms",
        block_table(tier)
    )
}

/// Parameters `$2` to `$4` of [`select_blocks`].
pub(crate) struct BlockRange {
    /// A block is at most as long as its window. Blocks that begin before this time end before the range.
    pub(crate) min_first_ms: i64,
    pub(crate) to_ms: i64,
    /// Exclusive; a bucket that begins earlier ends before the range.
    pub(crate) min_last_ms: i64,
}

impl BlockRange {
    pub(crate) fn new(tier: Tier, from_ms: i64, to_ms: i64) -> Self {
        Self {
            min_first_ms: from_ms.saturating_sub(tier.window_ms()),
            to_ms,
            min_last_ms: from_ms.saturating_sub(tier.width_ms()),
        }
    }
}

/// Watermarks from rows of [`WATERMARKS_SQL`].
pub(crate) fn watermarks_from_rows(rows: impl IntoIterator<Item = (i64, i64)>) -> RetentionWatermarks {
    let mut watermarks = RetentionWatermarks::default();
    for (tier, ms) in rows {
        if let Some(watermark) = usize::try_from(tier).ok().and_then(|tier| watermarks.ms.get_mut(tier)) {
            *watermark = ms;
        }
    }
    watermarks
}

/// State from which a read is planned; `dirty` are rows of [`DIRTY_SQL`].
pub(crate) fn tier_state(
    watermarks: RetentionWatermarks,
    dirty: impl IntoIterator<Item = (i64, i64)>,
) -> TierState {
    let mut state = TierState {
        raw_watermark_ms: watermarks.ms[0],
        minute_watermark_ms: watermarks.ms[1],
        ..TierState::default()
    };
    for (tier, window_ms) in dirty {
        if tier == Tier::Raw.id() {
            state.dirty_hours.insert(window_ms);
        } else {
            state.dirty_days.insert(window_ms);
        }
    }
    state
}

/// Result of a query without slices: the state, and the tier to read for each segment.
pub(crate) fn plan_query(query: &Query, state: TierState) -> QueryResult {
    let plan = state.plan(query.tier, query.from_ms, query.to_ms);
    QueryResult { plan, state, ..QueryResult::default() }
}

pub(crate) async fn query_rows<T>(
    store: &dyn Store,
    sql: &'static str,
    values: Vec<SqlValue>,
    read: impl Fn(&mut RowReader) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let rows = store.query(sql, values).await?;
    rows.into_iter().map(|row| read(&mut RowReader::new(row))).collect()
}

pub(crate) fn limit_value(limit: usize) -> SqlValue {
    i64::try_from(limit).unwrap_or(i64::MAX).into()
}

impl dyn Store + '_ {
    /// Lists all hosts by id.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list_hosts(&self) -> Result<Vec<HostRecord>, StoreError> {
        let sql = "SELECT id, name, facts, first_seen_ms, last_snapshot_ms, interval_ms, created_by FROM host \
                   ORDER BY id";
        query_rows(self, sql, Vec::new(), |row| {
            Ok(HostRecord {
                id: HostId(row.id()?),
                name: row.text()?,
                facts: row.opt_bytes()?.and_then(|facts| wire::decode_facts(&facts).ok()).map(Arc::new),
                first_seen_ms: row.int()?,
                last_snapshot_ms: row.opt_int()?,
                interval_ms: u32::try_from(row.int()?).unwrap_or_default(),
                created_by: row.opt_text()?.map(Arc::from),
            })
        })
        .await
    }

    /// Reads the retention watermarks of all tiers.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn retention_watermarks(&self) -> Result<RetentionWatermarks, StoreError> {
        let rows = query_rows(self, WATERMARKS_SQL, Vec::new(), |row| Ok((row.int()?, row.int()?))).await?;
        Ok(watermarks_from_rows(rows))
    }

    /// Lists windows to roll up that begin before a time, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn dirty_windows(
        &self,
        tier: Tier,
        before_ms: i64,
        limit: usize,
    ) -> Result<Vec<DirtyWindow>, StoreError> {
        let sql = "SELECT host, window_ms, stamp FROM dirty_window WHERE tier = $1 AND window_ms < $2 \
             ORDER BY window_ms, host LIMIT $3";
        query_rows(self, sql, vec![tier.id().into(), before_ms.into(), limit_value(limit)], |row| {
            Ok(DirtyWindow { tier, host: HostId(row.id()?), window_ms: row.int()?, stamp: row.int()? })
        })
        .await
    }

    /// Lists the seal watermarks of this hub's head.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn seal_watermarks(&self) -> Result<Vec<SealWatermark>, StoreError> {
        let sql = "SELECT host, arrival FROM seal_watermark WHERE hub = $1";
        query_rows(self, sql, vec![self.hub_id().into()], |row| {
            Ok(SealWatermark { host: HostId(row.id()?), arrival: row.int()? })
        })
        .await
    }

    /// Lists the accepted and sealed sequence numbers of a host, or of all hosts. They are of the snapshots of all
    /// hubs.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn sequence_ranges(&self, host: Option<HostId>) -> Result<Vec<SequenceRanges>, StoreError> {
        let (sql, values) = match host {
            Some(host) => (
                "SELECT host, boot, seqs, newest_ms FROM sequence_range WHERE host = $1",
                vec![host.0.into()],
            ),
            None => ("SELECT host, boot, seqs, newest_ms FROM sequence_range", Vec::new()),
        };
        query_rows(self, sql, values, |row| {
            Ok(SequenceRanges {
                host: HostId(row.id()?),
                boot: BootId::from_bytes(&row.array::<16>()?).unwrap_or_default(),
                seqs: RangeSet::from_text(&row.text()?),
                newest_ms: row.int()?,
            })
        })
        .await
    }

    /// Lists blocks that end before a time, oldest first.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn oldest_blocks(
        &self,
        tier: Tier,
        before_ms: i64,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        macro_rules! select {
            ($table:literal) => {
                concat!(
                    "SELECT id, host, first_ms, last_ms, bytes FROM ",
                    $table,
                    " WHERE last_ms < $1 ORDER BY last_ms LIMIT $2"
                )
            };
        }
        let sql = match tier {
            Tier::Raw => select!("block_raw"),
            Tier::Minute => select!("block_minute"),
            Tier::Hour => select!("block_hour"),
        };
        query_rows(self, sql, vec![before_ms.into(), limit_value(limit)], |row| {
            Ok(BlockInfo {
                id: BlockId(row.int()?),
                tier,
                host: HostId(row.id()?),
                first_ms: row.int()?,
                last_ms: row.int()?,
                bytes: row.int()?.cast_unsigned(),
            })
        })
        .await
    }
}
