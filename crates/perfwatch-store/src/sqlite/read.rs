//! Statements of each read in SQLite. Of a block, only the directory and the requested parts are read.

use super::bind::bind;
use super::inner::{LOCAL_HUB_ID, SqliteInner, unavailable};
use crate::block_reader::{BlockFetch, decode_within};
use crate::error::StoreError;
use crate::head_payload;
use crate::metadata::{
    BlockRange, DIRTY_SQL, HOST_WATERMARKS_SQL, WATERMARKS_SQL, plan_query, select_blocks, tier_state,
    watermarks_from_rows,
};
use crate::read_bounds::{CellBudget, ReadBounds, SizeCounter, rows_in_range};
use crate::read_size::ReadSize;
use crate::schema::block_table;
use crate::sql::SqlValue;
use crate::store::*;
use crate::write::*;
use perfwatch_model::{HostId, ShapeId, StringInterner};
use perfwatch_tsdb::block::FIXED_HEADER_BYTES;
use perfwatch_tsdb::plan::{PlanSegment, TierState};
use perfwatch_tsdb::{BlockHeader, FormatError, Projection, Projector, Tier};
use rusqlite::{Connection, Params, Row as SqlRow};
use std::sync::atomic::Ordering;

pub(super) fn head(
    connection: &Connection,
    inner: &SqliteInner,
    after: i64,
    limit: usize,
) -> Result<Vec<HeadSnapshot>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT arrival, payload FROM head WHERE hub = ?1 AND arrival > ?2 ORDER BY arrival")
        .map_err(unavailable)?;
    let mut commits = statement.query((LOCAL_HUB_ID, after)).map_err(unavailable)?;
    let texts = StringInterner::default();
    let mut rows = Vec::new();
    while rows.len() < limit
        && let Some(commit) = commits.next().map_err(unavailable)?
    {
        let arrival = commit.get(0).map_err(unavailable)?;
        let payload: Vec<u8> = commit.get(1).map_err(unavailable)?;
        let shapes = |id| inner.shape(connection, id).ok().flatten();
        let (decoded, unknown) = head_payload::decode_payload(arrival, &payload, &shapes, &texts)?;
        head_payload::log_unknown_shapes(arrival, &unknown);
        rows.extend(decoded);
    }
    Ok(rows)
}

pub(super) fn rows(
    connection: &Connection,
    sql: &str,
    values: &[SqlValue],
) -> rusqlite::Result<Vec<Vec<SqlValue>>> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, values)?;
    let columns = statement.column_count();
    let mut cursor = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        rows.push((0..columns).map(|at| row.get_ref(at).map(SqlValue::from)).collect::<Result<_, _>>()?);
    }
    Ok(rows)
}

fn pairs(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<Vec<(i64, i64)>> {
    let pair = |row: &SqlRow<'_>| Ok((row.get(0)?, row.get(1)?));
    connection.prepare_cached(sql)?.query_map(params, pair)?.collect()
}

pub(super) fn retention_watermarks(connection: &Connection) -> rusqlite::Result<RetentionWatermarks> {
    Ok(watermarks_from_rows(pairs(connection, WATERMARKS_SQL, [])?))
}

fn state(connection: &Connection, host: HostId) -> rusqlite::Result<TierState> {
    let dirty = pairs(connection, DIRTY_SQL, [host.to_bytes()])?;
    let of_host = watermarks_from_rows(pairs(connection, HOST_WATERMARKS_SQL, [host.to_bytes()])?);
    Ok(tier_state(retention_watermarks(connection)?.max(of_host), dirty))
}

/// A block, and the row that contains its data.
struct BlockLocation {
    info: BlockInfo,
    shape: ShapeId,
    header_bytes: usize,
    /// Valid within a transaction.
    rowid: i64,
}

fn block_locations(
    connection: &Connection,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> rusqlite::Result<Vec<BlockLocation>> {
    let location = |row: &SqlRow<'_>| {
        let info = BlockInfo {
            id: BlockId(row.get(0)?),
            tier,
            host,
            first_ms: row.get(1)?,
            last_ms: row.get(2)?,
            bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        };
        Ok(BlockLocation {
            info,
            shape: ShapeId(row.get(4)?),
            header_bytes: row.get::<_, i64>(5)?.try_into().unwrap_or_default(),
            rowid: row.get(6)?,
        })
    };
    let range = BlockRange::new(tier, from_ms, to_ms);
    connection
        .prepare_cached(&select_blocks(tier, "header_bytes, rowid"))?
        .query_map((host.to_bytes(), range.min_first_ms, range.to_ms, range.min_last_ms), location)?
        .collect()
}

fn read_content(
    connection: &Connection,
    inner: &SqliteInner,
    location: &BlockLocation,
    query: (&Projection, (i64, i64)),
    projector: &mut Projector<'_>,
    budget: &mut CellBudget,
) -> Result<Result<BlockContent, FormatError>, StoreError> {
    let (projection, range) = query;
    let blob = connection
        .blob_open("main", block_table(location.info.tier), "data", location.rowid, true)
        .map_err(unavailable)?;
    let length = blob.len();
    let mut header = vec![0; location.header_bytes.min(length)];
    blob.read_at_exact(&mut header, 0).map_err(unavailable)?;
    let shape = inner.shape(connection, location.shape)?;
    let fetch = match BlockFetch::new(&header, shape.as_ref(), projection, projector) {
        Ok(fetch) => fetch,
        Err(error) => return Ok(Err(error)),
    };
    let mut reads = Vec::new();
    for range in fetch.reads() {
        // A range that reaches beyond a truncated block yields fewer bytes, which the decoder rejects.
        let (start, end) = (range.start.min(length), range.end.min(length));
        let mut bytes = vec![0; end - start];
        blob.read_at_exact(&mut bytes, start).map_err(unavailable)?;
        reads.push(bytes);
    }
    let reads: Vec<&[u8]> = reads.iter().map(Vec::as_slice).collect();
    decode_within(&fetch, &reads, range, budget)
}

/// Estimates the size of a read from the index of its blocks.
fn measure(
    connection: &Connection,
    inner: &SqliteInner,
    query: &Query,
    plan: &[PlanSegment],
) -> Result<ReadSize, StoreError> {
    let mut counter = SizeCounter::new(&query.projection, &query.bounds);
    for segment in plan {
        let range = (segment.from_ms, segment.to_ms);
        let locations = block_locations(connection, segment.tier, query.host, range.0, range.1);
        for location in locations.map_err(unavailable)? {
            let table = block_table(segment.tier);
            let blob =
                connection.blob_open("main", table, "data", location.rowid, true).map_err(unavailable)?;
            let mut header = vec![0; FIXED_HEADER_BYTES.min(blob.len())];
            blob.read_at_exact(&mut header, 0).map_err(unavailable)?;
            let rows = BlockHeader::peek_rows(&header).unwrap_or_default();
            let rows = rows_in_range(rows, (location.info.first_ms, location.info.last_ms), range);
            let shape = inner.shape(connection, location.shape)?;
            if shape.is_some_and(|shape| !counter.add(&shape, segment.tier, rows)) {
                return Ok(counter.size());
            }
        }
    }
    Ok(counter.size())
}

fn read_slices(
    connection: &Connection,
    inner: &SqliteInner,
    (tier, host): (Tier, HostId),
    (from_ms, to_ms): (i64, i64),
    projection: &Projection,
    projector: &mut Projector<'_>,
    budget: &mut CellBudget,
) -> Result<Vec<BlockSlice>, StoreError> {
    let mut slices = Vec::new();
    for location in block_locations(connection, tier, host, from_ms, to_ms).map_err(unavailable)? {
        let query = (projection, (from_ms, to_ms));
        let content = read_content(connection, inner, &location, query, projector, budget)?;
        slices.push(BlockSlice { block: location.info, from_ms, to_ms, content });
    }
    Ok(slices)
}

pub(super) fn read_range(
    connection: &mut Connection,
    inner: &SqliteInner,
    query: &Query,
) -> Result<QueryResult, StoreError> {
    // State and blocks are read in one transaction, as of the same point in time.
    let transaction = connection.transaction().map_err(unavailable)?;
    let mut result = plan_query(query, state(&transaction, query.host).map_err(unavailable)?);
    if query.bounds.measure {
        result.size = measure(&transaction, inner, query, &result.plan)?;
        return Ok(result);
    }
    let mut projector = Projector::new(&query.projection);
    let mut budget = CellBudget::new(&query.bounds);
    for segment in &result.plan {
        let range = (segment.from_ms, segment.to_ms);
        let blocks = (segment.tier, query.host);
        result.slices.extend(read_slices(
            &transaction,
            inner,
            blocks,
            range,
            &query.projection,
            &mut projector,
            &mut budget,
        )?);
    }
    result.size = budget.size();
    Ok(result)
}

pub(super) fn blocks(
    connection: &mut Connection,
    inner: &SqliteInner,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<BlockSlice>, StoreError> {
    let transaction = connection.transaction().map_err(unavailable)?;
    let projection = Projection::full();
    let (mut projector, bounds) = (Projector::new(&projection), ReadBounds::default());
    let range = (from_ms, to_ms);
    let mut budget = CellBudget::new(&bounds);
    read_slices(&transaction, inner, (tier, host), range, &projection, &mut projector, &mut budget)
}

pub(super) fn usage(
    connection: &Connection,
    inner: &SqliteInner,
    tier_bytes: Option<[u64; 3]>,
) -> rusqlite::Result<DiskUsage> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let page_bytes = pragma("page_size")?;
    let sum = |sql: &str| {
        let sum: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok::<u64, rusqlite::Error>(sum.cast_unsigned())
    };
    let mut usage = DiskUsage {
        disk_bytes: inner.file_bytes(),
        used_bytes: ((pragma("page_count")? - pragma("freelist_count")?) * page_bytes).cast_unsigned(),
        target_bytes: inner.append_limit_pages.load(Ordering::Relaxed) * page_bytes.cast_unsigned(),
        head_bytes: inner.head_bytes.load(Ordering::Relaxed),
        tier_bytes: tier_bytes.unwrap_or_default(),
    };
    for tier in Tier::ALL.into_iter().filter(|_| tier_bytes.is_none()) {
        let sql = format!("SELECT coalesce(sum(bytes), 0) FROM {}", block_table(tier));
        usage.tier_bytes[usize::try_from(tier.id()).unwrap_or_default()] = sum(&sql)?;
    }
    Ok(usage)
}
