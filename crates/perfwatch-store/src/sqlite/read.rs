//! Statements of each read in SQLite. Of a block, only the directory and the requested parts are read.

use super::bind::bind;
use super::inner::{LOCAL_HUB_ID, SqliteInner, unavailable};
use crate::block_reader::BlockFetch;
use crate::error::StoreError;
use crate::head_payload;
use crate::metadata::{
    BlockRange, DIRTY_SQL, WATERMARKS_SQL, plan_query, select_blocks, tier_state, watermarks_from_rows,
};
use crate::schema::block_table;
use crate::sql::SqlValue;
use crate::store::*;
use crate::write::*;
use perfwatch_model::{HostId, ShapeId, StringInterner};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{FormatError, Projection, Projector, Tier};
use rusqlite::{Connection, Params, Row as SqlRow};

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
        rows.extend(head_payload::decode_payload(arrival, &payload, &shapes, &texts)?);
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
    Ok(tier_state(retention_watermarks(connection)?, dirty))
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
    projection: &Projection,
    projector: &mut Projector<'_>,
) -> Result<Result<BlockContent, FormatError>, StoreError> {
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
    Ok(fetch.decode(&reads))
}

fn read_slices(
    connection: &Connection,
    inner: &SqliteInner,
    (tier, host): (Tier, HostId),
    (from_ms, to_ms): (i64, i64),
    projection: &Projection,
    projector: &mut Projector<'_>,
) -> Result<Vec<BlockSlice>, StoreError> {
    let mut slices = Vec::new();
    for location in block_locations(connection, tier, host, from_ms, to_ms).map_err(unavailable)? {
        let content = read_content(connection, inner, &location, projection, projector)?;
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
    let mut projector = Projector::new(&query.projection);
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
        )?);
    }
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
    let mut projector = Projector::new(&projection);
    read_slices(&transaction, inner, (tier, host), (from_ms, to_ms), &projection, &mut projector)
}

pub(super) fn usage(connection: &Connection, inner: &SqliteInner) -> rusqlite::Result<DiskUsage> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let page_bytes = pragma("page_size")?;
    let sum = |sql: &str| {
        let sum: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok::<u64, rusqlite::Error>(sum.cast_unsigned())
    };
    let mut usage = DiskUsage {
        disk_bytes: inner.file_bytes(),
        used_bytes: ((pragma("page_count")? - pragma("freelist_count")?) * page_bytes).cast_unsigned(),
        target_bytes: inner.append_limit_pages * page_bytes.cast_unsigned(),
        head_bytes: sum("SELECT coalesce(sum(length(payload)), 0) FROM head")?,
        tier_bytes: [0; 3],
    };
    for tier in Tier::ALL {
        let sql = format!("SELECT coalesce(sum(bytes), 0) FROM {}", block_table(tier));
        usage.tier_bytes[usize::try_from(tier.id()).unwrap_or_default()] = sum(&sql)?;
    }
    Ok(usage)
}
