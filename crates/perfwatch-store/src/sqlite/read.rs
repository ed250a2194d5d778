//! Each question as SQL. Of a block only the directory and the parts asked for are read.

use super::{LOCAL_HUB_ID, SqliteInner, table, unavailable};
use crate::block_reader::BlockFetch;
use crate::head_payload as payload;
use crate::range_set::RangeSet;
use crate::sql::SqlValue;
use crate::store::*;
use perfwatch_model::{BootId, HostId, ShapeId, StringInterner, wire};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{FormatError, Projection, Projector, Tier};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row as SqlRow};
use std::path::Path;
use std::sync::Arc;

/// Fewer parts than this are read one by one, more by one read of the whole block.
const MAX_PART_READS: usize = 40;

fn host_id(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<HostId> {
    let bytes: [u8; 16] = row.get(at)?;
    HostId::from_bytes(&bytes).ok_or_else(|| FromSqlError::InvalidType.into())
}

fn boot_id(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<BootId> {
    let bytes: [u8; 16] = row.get(at)?;
    BootId::from_bytes(&bytes).ok_or_else(|| FromSqlError::InvalidType.into())
}

fn tier_of(number: i64) -> Tier {
    Tier::ALL.into_iter().find(|tier| tier.id() == number).unwrap_or(Tier::Hour)
}

pub(super) fn head(
    connection: &Connection,
    shared: &SqliteInner,
    after: i64,
    most: usize,
) -> Result<Vec<HeadRow>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT arrival, payload FROM head WHERE hub = ?1 AND arrival > ?2 ORDER BY arrival")
        .map_err(unavailable)?;
    let mut rows = statement.query((LOCAL_HUB_ID, after)).map_err(unavailable)?;
    let texts = StringInterner::default();
    let mut all = Vec::new();
    while all.len() < most
        && let Some(row) = rows.next().map_err(unavailable)?
    {
        let arrival = row.get(0).map_err(unavailable)?;
        let bytes: Vec<u8> = row.get(1).map_err(unavailable)?;
        let shapes = |id| shared.shape(connection, id).ok().flatten();
        all.extend(payload::decompress_rows(arrival, &bytes, &shapes, &texts)?);
    }
    Ok(all)
}

pub(super) fn rows(
    connection: &Connection,
    sql: &str,
    cells: &[SqlValue],
) -> rusqlite::Result<Vec<Vec<SqlValue>>> {
    let mut statement = connection.prepare_cached(sql)?;
    super::apply::bind(&mut statement, cells)?;
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push((0..columns).map(|at| row.get_ref(at).map(SqlValue::from)).collect::<Result<_, _>>()?);
    }
    Ok(all)
}

pub(super) fn hosts(connection: &Connection) -> rusqlite::Result<Vec<HostRecord>> {
    let sql = "SELECT id, name, facts, first_seen_ms, last_at_ms, interval_ms FROM host ORDER BY id";
    let host = |row: &SqlRow<'_>| {
        let facts: Option<Vec<u8>> = row.get(2)?;
        Ok(HostRecord {
            id: host_id(row, 0)?,
            name: row.get(1)?,
            facts: facts.and_then(|facts| wire::decode_facts(&facts).ok()).map(Arc::new),
            first_seen_ms: row.get(3)?,
            last_at_ms: row.get(4)?,
            interval_ms: row.get(5)?,
        })
    };
    connection.prepare_cached(sql)?.query_map([], host)?.collect()
}

pub(super) fn retention_watermarks(connection: &Connection) -> rusqlite::Result<RetentionWatermarks> {
    let mut floors = RetentionWatermarks::default();
    let mut statement = connection.prepare_cached("SELECT tier, ms FROM floor")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let tier: usize = row.get::<_, i64>(0)?.try_into().unwrap_or(usize::MAX);
        if let Some(floor) = floors.ms.get_mut(tier) {
            *floor = row.get(1)?;
        }
    }
    Ok(floors)
}

pub(super) fn dirty_windows(
    connection: &Connection,
    tier: Tier,
    before_ms: i64,
    most: usize,
) -> rusqlite::Result<Vec<DirtyWindow>> {
    let sql = "SELECT host, window_ms, stamp FROM dirty WHERE tier = ?1 AND window_ms < ?2 ORDER BY window_ms, host LIMIT ?3";
    let dirty = |row: &SqlRow<'_>| {
        Ok(DirtyWindow { tier, host: host_id(row, 0)?, window_ms: row.get(1)?, stamp: row.get(2)? })
    };
    connection.prepare_cached(sql)?.query_map((tier.id(), before_ms, most as i64), dirty)?.collect()
}

pub(super) fn seal_watermarks(connection: &Connection) -> rusqlite::Result<Vec<SealWatermark>> {
    let sealed = |row: &SqlRow<'_>| Ok(SealWatermark { host: host_id(row, 0)?, arrival: row.get(1)? });
    connection
        .prepare_cached("SELECT host, arrival FROM sealed WHERE hub = ?1")?
        .query_map([LOCAL_HUB_ID], sealed)?
        .collect()
}

pub(super) fn sequence_ranges(connection: &Connection) -> rusqlite::Result<Vec<SequenceRanges>> {
    let seen = |row: &SqlRow<'_>| {
        let seqs: String = row.get(2)?;
        Ok(SequenceRanges {
            host: host_id(row, 0)?,
            boot: boot_id(row, 1)?,
            seqs: RangeSet::from_text(&seqs),
            newest_ms: row.get(3)?,
        })
    };
    connection.prepare_cached("SELECT host, boot, seqs, newest_ms FROM seen")?.query_map([], seen)?.collect()
}

fn state(connection: &Connection, host: HostId) -> rusqlite::Result<TierState> {
    let floors = retention_watermarks(connection)?;
    let mut state = TierState {
        raw_watermark_ms: floors.ms[0],
        minute_watermark_ms: floors.ms[1],
        ..TierState::default()
    };
    let mut statement =
        connection.prepare_cached("SELECT tier, window_ms FROM dirty WHERE host = ?1 AND tier IN (0, 1)")?;
    let mut rows = statement.query([host.to_bytes()])?;
    while let Some(row) = rows.next()? {
        match tier_of(row.get(0)?) {
            Tier::Raw => state.dirty_hours.insert(row.get(1)?),
            _ => state.dirty_days.insert(row.get(1)?),
        };
    }
    Ok(state)
}

/// A block in the table, before any of its data is read.
struct BlockLocation {
    info: BlockInfo,
    shape: ShapeId,
    head: usize,
}

fn block_locations(
    connection: &Connection,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> rusqlite::Result<Vec<BlockLocation>> {
    // Blocks are no longer than their window: what begins earlier than one before can't reach in.
    let sql = format!(
        "SELECT id, first_ms, last_ms, bytes, shape, head_bytes FROM {} \
         WHERE host = ?1 AND first_ms >= ?2 AND first_ms < ?3 AND last_ms > ?4 ORDER BY first_ms",
        table(tier)
    );
    let place = |row: &SqlRow<'_>| {
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
            head: row.get::<_, i64>(5)?.try_into().unwrap_or_default(),
        })
    };
    let reach = from_ms.saturating_sub(tier.width_ms());
    connection
        .prepare_cached(&sql)?
        .query_map((host.to_bytes(), from_ms.saturating_sub(tier.window_ms()), to_ms, reach), place)?
        .collect()
}

fn read_slice(
    connection: &Connection,
    shared: &SqliteInner,
    place: &BlockLocation,
    wanted: &Projection,
    picker: &mut Projector<'_>,
) -> Result<Result<BlockContent, FormatError>, StoreError> {
    let blob = connection
        .blob_open("main", table(place.info.tier), "data", place.info.id.0, true)
        .map_err(unavailable)?;
    let mut head = vec![0; place.head.min(blob.len())];
    blob.read_at_exact(&mut head, 0).map_err(unavailable)?;
    let shape = shared.shape(connection, place.shape)?;
    let fetch = match BlockFetch::new(&head, shape.as_ref(), wanted, picker) {
        Ok(fetch) => fetch,
        Err(error) => return Ok(Err(error)),
    };
    let length = blob.len();
    if fetch.parts.iter().any(|(_, range)| range.end > length) {
        return Ok(Err(FormatError::Truncated));
    }
    if fetch.parts.len() > MAX_PART_READS {
        let mut whole = vec![0; length];
        blob.read_at_exact(&mut whole, 0).map_err(unavailable)?;
        let bytes: Vec<&[u8]> = fetch.parts.iter().map(|(_, range)| &whole[range.clone()]).collect();
        return Ok(fetch.decode(&bytes));
    }
    let mut parts = Vec::with_capacity(fetch.parts.len());
    for (_, range) in &fetch.parts {
        let mut bytes = vec![0; range.len()];
        blob.read_at_exact(&mut bytes, range.start).map_err(unavailable)?;
        parts.push(bytes);
    }
    let bytes: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(fetch.decode(&bytes))
}

pub(super) fn read_range(
    connection: &mut Connection,
    shared: &SqliteInner,
    query: &Query,
) -> Result<QueryResult, StoreError> {
    // One moment for the state and for every block.
    let transaction = connection.transaction().map_err(unavailable)?;
    let state = state(&transaction, query.host).map_err(unavailable)?;
    let mut reading =
        QueryResult { plan: state.plan(query.tier, query.from_ms, query.to_ms), state, slices: Vec::new() };
    let mut picker = Projector::new(&query.projection);
    for stretch in &reading.plan {
        let places = block_locations(&transaction, stretch.tier, query.host, stretch.from_ms, stretch.to_ms)
            .map_err(unavailable)?;
        for place in places {
            let content = read_slice(&transaction, shared, &place, &query.projection, &mut picker)?;
            reading.slices.push(BlockSlice {
                block: place.info,
                from_ms: stretch.from_ms,
                to_ms: stretch.to_ms,
                content,
            });
        }
    }
    Ok(reading)
}

pub(super) fn blocks(
    connection: &mut Connection,
    shared: &SqliteInner,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<BlockSlice>, StoreError> {
    let transaction = connection.transaction().map_err(unavailable)?;
    let wanted = Projection::full();
    let mut picker = Projector::new(&wanted);
    let mut pieces = Vec::new();
    for place in block_locations(&transaction, tier, host, from_ms, to_ms).map_err(unavailable)? {
        let content = read_slice(&transaction, shared, &place, &wanted, &mut picker)?;
        pieces.push(BlockSlice { block: place.info, from_ms, to_ms, content });
    }
    Ok(pieces)
}

pub(super) fn oldest_blocks(
    connection: &Connection,
    tier: Tier,
    before_ms: i64,
    most: usize,
) -> rusqlite::Result<Vec<BlockInfo>> {
    let sql = format!(
        "SELECT id, host, first_ms, last_ms, bytes FROM {} WHERE last_ms < ?1 ORDER BY last_ms LIMIT ?2",
        table(tier)
    );
    let block = |row: &SqlRow<'_>| {
        Ok(BlockInfo {
            id: BlockId(row.get(0)?),
            tier,
            host: host_id(row, 1)?,
            first_ms: row.get(2)?,
            last_ms: row.get(3)?,
            bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    };
    connection.prepare_cached(&sql)?.query_map((before_ms, most as i64), block)?.collect()
}

pub(super) fn usage(connection: &Connection, shared: &SqliteInner) -> rusqlite::Result<DiskUsage> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let page = number("page_size")?;
    let bytes = |sql: &str| {
        let sum: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok::<u64, rusqlite::Error>(sum.cast_unsigned())
    };
    let mut usage = DiskUsage {
        disk_bytes: shared.file_bytes(),
        used_bytes: ((number("page_count")? - number("freelist_count")?) * page).cast_unsigned(),
        append_limit_bytes: shared.append_limit_pages * page.cast_unsigned(),
        head_bytes: bytes("SELECT coalesce(sum(length(payload)), 0) FROM head")?,
        tier_bytes: [0; 3],
    };
    for tier in Tier::ALL {
        let sql = format!("SELECT coalesce(sum(bytes), 0) FROM {}", table(tier));
        usage.tier_bytes[usize::try_from(tier.id()).unwrap_or_default()] = bytes(&sql)?;
    }
    Ok(usage)
}

/// A copy by SQLite's own online backup, page by page beside the writer.
pub(super) fn backup(connection: &Connection, to: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Rejected(format!("{}: {error}", to.display()));
    if to.exists() {
        return Err(StoreError::Rejected(format!("{} is there already", to.display())));
    }
    super::file::create_private(to, true)
        .map_err(|error| StoreError::Rejected(format!("{}: {error}", to.display())))?;
    let mut copy = Connection::open(to).map_err(failed)?;
    {
        let backup = rusqlite::backup::Backup::new(connection, &mut copy).map_err(failed)?;
        // In one go: a copy that starts over at each commit would never end under load.
        backup.run_to_completion(i32::MAX, std::time::Duration::from_millis(5), None).map_err(failed)?;
    }
    copy.execute_batch("PRAGMA journal_mode=DELETE").map_err(failed)?;
    super::file::strip_secrets(&copy).map_err(failed)
}
