//! Statements of each read in PostgreSQL. A segment takes two round trips: the directories of all its blocks,
//! then the requested parts.

use super::inner::{PostgresInner, REJECT_ABOVE_PERCENT, TARGET_USE_PERCENT};
use super::statements::{Statements as _, begin_read};
use crate::block_reader::{BlockFetch, decode_within};
use crate::error::StoreError;
use crate::head_payload;
use crate::metadata::{
    BlockRange, DIRTY_SQL, HOST_WATERMARKS_SQL, WATERMARKS_SQL, plan_query, select_blocks, tier_state,
    watermarks_from_rows,
};
use crate::read_bounds::{CellBudget, ReadBounds, SizeCounter, rows_in_range};
use crate::read_size::ReadSize;
use crate::schema::{TABLES, block_table};
use crate::store::*;
use crate::write::*;
use perfwatch_model::{HostId, Shape, ShapeId, StringInterner};
use perfwatch_tsdb::plan::{PlanSegment, TierState};
use perfwatch_tsdb::{BlockHeader, FormatError, Projection, Projector, Tier};
use std::ops::Range;
use std::sync::Arc;
use tokio_postgres::{Client, Error, Row as SqlRow, Transaction};

pub(super) async fn head(
    inner: &PostgresInner,
    after: i64,
    limit: usize,
) -> Result<Vec<HeadSnapshot>, StoreError> {
    let client = inner.client().await?;
    let mut rows = Vec::new();
    let texts = StringInterner::default();
    let mut after = after;
    while rows.len() < limit {
        let sql =
            "SELECT arrival, payload FROM head WHERE hub = $1 AND arrival > $2 ORDER BY arrival LIMIT 1";
        let row = client.fetch_opt(sql, &[&inner.hub, &after]).await?;
        let Some(row) = row else {
            break;
        };
        after = row.get(0);
        let payload: &[u8] = row.get(1);
        let decode = || head_payload::decode_payload(after, payload, &|id| inner.shapes.get(id), &texts);
        let (mut decoded, mut unknown) = decode()?;
        if !unknown.is_empty() {
            // Not cached yet.
            inner.load_shapes(&client, unknown.into_iter()).await?;
            (decoded, unknown) = decode()?;
            head_payload::log_unknown_shapes(after, &unknown);
        }
        rows.extend(decoded);
    }
    Ok(rows)
}

/// Reads the watermarks; a lock clause holds them until the transaction ends.
pub(super) async fn retention_watermarks(client: &Client, lock: &str) -> Result<RetentionWatermarks, Error> {
    let rows = client.fetch_all(&format!("{WATERMARKS_SQL} {lock}"), &[]).await?;
    Ok(watermarks_from_rows(rows.iter().map(|row| (row.get(0), row.get(1)))))
}

async fn state(client: &Client, host: HostId) -> Result<TierState, Error> {
    let watermarks = retention_watermarks(client, "").await?;
    let host = host.to_bytes().to_vec();
    let dirty = client.fetch_all(DIRTY_SQL, &[&host]).await?;
    let of_host = client.fetch_all(HOST_WATERMARKS_SQL, &[&host]).await?;
    let of_host = watermarks_from_rows(of_host.iter().map(|row| (row.get(0), row.get(1))));
    Ok(tier_state(watermarks.max(of_host), dirty.iter().map(|row| (row.get(0), row.get(1)))))
}

/// A block with its directory.
struct BlockLocation {
    info: BlockInfo,
    shape: ShapeId,
    header: Vec<u8>,
}

/// Column with the header of a block and its directory.
const WHOLE_HEADER: &str = "substring(data FROM 1 FOR header_bytes::int)";
/// Column with the fixed header of a block.
const FIXED_HEADER: &str = "substring(data FROM 1 FOR 44)";

async fn block_locations(
    client: &Client,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
    header: &str,
) -> Result<Vec<BlockLocation>, Error> {
    let sql = select_blocks(tier, header);
    let range = BlockRange::new(tier, from_ms, to_ms);
    let host_bytes = host.to_bytes().to_vec();
    let rows =
        client.fetch_all(&sql, &[&host_bytes, &range.min_first_ms, &range.to_ms, &range.min_last_ms]).await?;
    let location = |row: &SqlRow| BlockLocation {
        info: BlockInfo {
            id: BlockId(row.get(0)),
            tier,
            host,
            first_ms: row.get(1),
            last_ms: row.get(2),
            bytes: row.get::<_, i64>(3).cast_unsigned(),
        },
        shape: ShapeId(row.get::<_, &[u8]>(4).try_into().unwrap_or_default()),
        header: row.get(5),
    };
    Ok(rows.iter().map(location).collect())
}

/// Offset (from 1) and length of a `substring`.
fn substring_range(range: &Range<usize>) -> (i32, i32) {
    let int = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    (int(range.start.saturating_add(1)), int(range.len()))
}

/// Runs work that takes processor time on the blocking thread pool.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// Blocks of a host and tier that have rows in a range.
struct SliceQuery {
    tier: Tier,
    host: HostId,
    range: (i64, i64),
    projection: Arc<Projection>,
}

type Fetches = Vec<Result<BlockFetch, FormatError>>;

/// Reads slices within the budget, and returns them with the remaining budget.
async fn read_slices(
    inner: &PostgresInner,
    client: &Client,
    query: SliceQuery,
    mut budget: CellBudget,
) -> Result<(Vec<BlockSlice>, CellBudget), StoreError> {
    let SliceQuery { tier, host, range, projection } = query;
    let locations = block_locations(client, tier, host, range.0, range.1, WHOLE_HEADER).await?;
    inner.load_shapes(client, locations.iter().map(|location| location.shape)).await?;
    let shapes: Vec<_> = locations.iter().map(|location| inner.shapes.get(location.shape)).collect();
    let project = move || {
        let mut projector = Projector::new(&projection);
        let mut fetch = |(location, shape): (&BlockLocation, &Option<Arc<Shape>>)| {
            BlockFetch::new(&location.header, shape.as_ref(), &projection, &mut projector)
        };
        let fetches: Fetches = locations.iter().zip(&shapes).map(&mut fetch).collect();
        (locations, fetches)
    };
    let (locations, fetches) = run_blocking(project).await?;
    let rows = read_parts(client, (tier, host), &locations, &fetches).await?;
    let decode = move || {
        let slices = decode_slices(locations, fetches, &rows, range, &mut budget);
        slices.map(|slices| (slices, budget))
    };
    run_blocking(decode).await?
}

/// Reads the parts of all blocks, in the order of the blocks.
async fn read_parts(
    client: &Client,
    (tier, host): (Tier, HostId),
    locations: &[BlockLocation],
    fetches: &Fetches,
) -> Result<Vec<SqlRow>, Error> {
    let (mut firsts, mut ids, mut offsets, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (location, fetch) in locations.iter().zip(fetches) {
        for range in fetch.as_ref().map(BlockFetch::reads).unwrap_or_default() {
            let (offset, length) = substring_range(&range);
            firsts.push(location.info.first_ms);
            ids.push(location.info.id.0);
            offsets.push(offset);
            lengths.push(length);
        }
    }
    let (Some(first), Some(last)) = (firsts.first(), firsts.last()) else {
        return Ok(Vec::new());
    };
    // The range of first_ms repeats what the join implies, so that the planner excludes partitions.
    let sql = format!(
        "SELECT substring(b.data FROM r.start FOR r.len) \
         FROM unnest($2::bigint[], $3::bigint[], $4::int[], $5::int[]) \
         WITH ORDINALITY AS r(first_ms, id, start, len, position) \
         JOIN {} b ON b.host = $1 AND b.first_ms = r.first_ms AND b.id = r.id \
         WHERE b.first_ms BETWEEN $6 AND $7 ORDER BY r.position",
        block_table(tier)
    );
    let host = host.to_bytes().to_vec();
    client.fetch_all(&sql, &[&host, &firsts, &ids, &offsets, &lengths, first, last]).await
}

fn decode_slices(
    locations: Vec<BlockLocation>,
    fetches: Fetches,
    rows: &[SqlRow],
    range: (i64, i64),
    budget: &mut CellBudget,
) -> Result<Vec<BlockSlice>, StoreError> {
    let mut parts = rows.iter().map(|row| row.get::<_, &[u8]>(0));
    let mut slices = Vec::with_capacity(locations.len());
    for (location, fetch) in locations.into_iter().zip(fetches) {
        let content = match fetch {
            Ok(fetch) => {
                let reads: Vec<&[u8]> = parts.by_ref().take(fetch.reads().len()).collect();
                decode_within(&fetch, &reads, range, budget)?
            }
            Err(error) => Err(error),
        };
        slices.push(BlockSlice { block: location.info, from_ms: range.0, to_ms: range.1, content });
    }
    Ok(slices)
}

/// Estimates the size of a read from the index of its blocks.
async fn measure(
    inner: &PostgresInner,
    client: &Client,
    query: &Query,
    plan: &[PlanSegment],
) -> Result<ReadSize, StoreError> {
    let mut blocks = Vec::new();
    for segment in plan {
        let range = (segment.from_ms, segment.to_ms);
        let locations =
            block_locations(client, segment.tier, query.host, range.0, range.1, FIXED_HEADER).await?;
        inner.load_shapes(client, locations.iter().map(|location| location.shape)).await?;
        blocks.extend(locations.into_iter().filter_map(|location| {
            let rows = BlockHeader::peek_rows(&location.header).unwrap_or_default();
            let rows = rows_in_range(rows, (location.info.first_ms, location.info.last_ms), range);
            Some((inner.shapes.get(location.shape)?, segment.tier, rows))
        }));
    }
    let (projection, bounds) = (query.projection.clone(), query.bounds.clone());
    let count = move || {
        let mut counter = SizeCounter::new(&projection, &bounds);
        let _ = blocks.iter().all(|(shape, tier, rows)| counter.add(shape, *tier, *rows));
        counter.size()
    };
    run_blocking(count).await
}

pub(super) async fn read_range(inner: &PostgresInner, query: &Query) -> Result<QueryResult, StoreError> {
    let mut client = inner.client().await?;
    read_range_in(inner, begin_read(&mut client).await?, query).await
}

/// Reads state and blocks in one transaction, as of the same point in time.
pub(super) async fn read_range_in(
    inner: &PostgresInner,
    tx: Transaction<'_>,
    query: &Query,
) -> Result<QueryResult, StoreError> {
    let mut result = plan_query(query, state(tx.client(), query.host).await?);
    if query.bounds.measure {
        result.size = measure(inner, tx.client(), query, &result.plan).await?;
        return Ok(result);
    }
    let mut budget = CellBudget::new(&query.bounds);
    for segment in &result.plan {
        let (range, projection) = ((segment.from_ms, segment.to_ms), query.projection.clone());
        let blocks = SliceQuery { tier: segment.tier, host: query.host, range, projection };
        let (slices, remaining) = read_slices(inner, tx.client(), blocks, budget).await?;
        result.slices.extend(slices);
        budget = remaining;
    }
    result.size = budget.size();
    tx.commit().await?;
    Ok(result)
}

pub(super) async fn blocks(
    inner: &PostgresInner,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<BlockSlice>, StoreError> {
    let mut client = inner.client().await?;
    let tx = begin_read(&mut client).await?;
    let (projection, range) = (Arc::new(Projection::full()), (from_ms, to_ms));
    let budget = CellBudget::new(&ReadBounds::default());
    let query = SliceQuery { tier, host, range, projection };
    let (slices, _) = read_slices(inner, tx.client(), query, budget).await?;
    tx.commit().await?;
    Ok(slices)
}

/// Sizes in the first three columns of a row.
fn sizes(row: &SqlRow) -> [u64; 3] {
    [0, 1, 2].map(|column| row.get::<_, i64>(column).cast_unsigned())
}

pub(super) async fn usage(
    inner: &PostgresInner,
    tier_bytes: Option<[u64; 3]>,
) -> Result<DiskUsage, StoreError> {
    let sql = "SELECT \
         (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c \
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() \
          AND c.relkind = 'r' AND (c.relname = ANY($1) OR c.relname LIKE 'block\\_raw\\_%')), \
         (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits \
          WHERE inhparent = 'block_raw'::regclass), \
         (SELECT coalesce(sum(length(payload)), 0)::bigint FROM head)";
    let tiers_sql = "SELECT (SELECT coalesce(sum(bytes), 0)::bigint FROM block_raw), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_minute), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_hour)";
    let tables = TABLES.map(|table| table.name);
    let client = inner.client().await?;
    let row = client.fetch_one(sql, &[&tables.as_slice()]).await?;
    let [disk_bytes, partition_bytes, head_bytes] = sizes(&row);
    let tier_bytes = match tier_bytes {
        Some(tier_bytes) => tier_bytes,
        None => sizes(&client.fetch_one(tiers_sql, &[]).await?),
    };
    // TOAST chunks and indexes add about a tenth. The space within a partition is not reused before the
    // partition is dropped, so a partition counts in full.
    let live_bytes = tier_bytes[1] + tier_bytes[2] + head_bytes;
    let mut used_bytes = live_bytes + live_bytes / 10 + partition_bytes;
    let append_limit_bytes = inner.budget_bytes() / 100 * TARGET_USE_PERCENT;
    // Above this size, free space is fragmented: data must be deleted even if its use is below the limit.
    let excess_bytes = disk_bytes.saturating_sub(inner.budget_bytes() / 100 * REJECT_ABOVE_PERCENT);
    if excess_bytes > 0 {
        used_bytes = used_bytes.max(append_limit_bytes / 10 * 9 + excess_bytes);
    }
    Ok(DiskUsage { disk_bytes, used_bytes, target_bytes: append_limit_bytes, tier_bytes, head_bytes })
}
