//! Each question as SQL. Two round trips a stretch: the directories of all its blocks, then
//! the parts asked for.

use super::{PostgresInner, table, unavailable};
use crate::block_reader::BlockFetch;
use crate::head_payload as payload;
use crate::range_set::RangeSet;
use crate::store::*;
use deadpool_postgres::GenericClient;
use perfwatch_model::{BootId, HostId, ShapeId, StringInterner, wire};
use perfwatch_tsdb::plan::TierState;
use perfwatch_tsdb::{FormatError, Projection, Projector, Tier};
use std::cell::RefCell;
use std::sync::Arc;
use tokio_postgres::{Error, IsolationLevel, Row as SqlRow};

/// Fewer parts than this are read one by one, more by one read of the whole block.
const MAX_PART_READS: usize = 40;

fn host_id(row: &SqlRow, at: usize) -> HostId {
    HostId::from_bytes(row.get(at)).unwrap_or(HostId(uuid::Uuid::nil()))
}

async fn query_all<T>(
    shared: &PostgresInner,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    row: impl Fn(&SqlRow) -> T,
) -> Result<Vec<T>, StoreError> {
    let client = shared.client().await?;
    let rows = client.query(sql, values).await.map_err(|error| unavailable(&error))?;
    Ok(rows.iter().map(row).collect())
}

pub(super) async fn head(
    shared: &PostgresInner,
    after: i64,
    most: usize,
) -> Result<Vec<HeadRow>, StoreError> {
    let client = shared.client().await?;
    let mut found = Vec::new();
    let texts = StringInterner::default();
    let mut after = after;
    while found.len() < most {
        let sql =
            "SELECT arrival, payload FROM head WHERE hub = $1 AND arrival > $2 ORDER BY arrival LIMIT 1";
        let row = client.query_opt(sql, &[&shared.hub, &after]).await.map_err(|error| unavailable(&error))?;
        let Some(row) = row else {
            break;
        };
        after = row.get(0);
        let bytes: &[u8] = row.get(1);
        let (rows, needed) = unpack(shared, after, bytes, &texts)?;
        if needed.is_empty() {
            found.extend(rows);
            continue;
        }
        shared.learn_all(&client, needed.into_iter()).await.map_err(|error| unavailable(&error))?;
        found.extend(payload::decompress_rows(after, bytes, &|id| shared.shapes.get(id), &texts)?);
    }
    Ok(found)
}

/// Rows, and the shapes that are not in memory.
fn unpack(
    shared: &PostgresInner,
    arrival: i64,
    bytes: &[u8],
    texts: &StringInterner,
) -> Result<(Vec<HeadRow>, Vec<ShapeId>), StoreError> {
    let needed = RefCell::new(Vec::new());
    let shapes = |id| {
        let known = shared.shapes.get(id);
        if known.is_none() {
            needed.borrow_mut().push(id);
        }
        known
    };
    let rows = payload::decompress_rows(arrival, bytes, &shapes, texts)?;
    Ok((rows, needed.into_inner()))
}

pub(super) async fn hosts(shared: &PostgresInner) -> Result<Vec<HostRecord>, StoreError> {
    let sql = "SELECT id, name, facts, first_seen_ms, last_at_ms, interval_ms FROM host ORDER BY id";
    query_all(shared, sql, &[], |row| {
        let facts: Option<&[u8]> = row.get(2);
        HostRecord {
            id: host_id(row, 0),
            name: row.get(1),
            facts: facts.and_then(|facts| wire::decode_facts(facts).ok()).map(Arc::new),
            first_seen_ms: row.get(3),
            last_at_ms: row.get(4),
            interval_ms: u32::try_from(row.get::<_, i64>(5)).unwrap_or_default(),
        }
    })
    .await
}

/// With a lock clause, held until the transaction ends.
pub(super) async fn retention_watermarks(
    client: &impl GenericClient,
    lock: &str,
) -> Result<RetentionWatermarks, Error> {
    let mut floors = RetentionWatermarks::default();
    for row in client.query(&format!("SELECT tier, ms FROM floor ORDER BY tier {lock}"), &[]).await? {
        let tier = usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX);
        if let Some(floor) = floors.ms.get_mut(tier) {
            *floor = row.get(1);
        }
    }
    Ok(floors)
}

pub(super) async fn dirty_windows(
    shared: &PostgresInner,
    tier: Tier,
    before_ms: i64,
    most: usize,
) -> Result<Vec<DirtyWindow>, StoreError> {
    let sql = "SELECT host, window_ms, stamp FROM dirty WHERE tier = $1 AND window_ms < $2 ORDER BY window_ms, host LIMIT $3";
    let dirty =
        |row: &SqlRow| DirtyWindow { tier, host: host_id(row, 0), window_ms: row.get(1), stamp: row.get(2) };
    query_all(shared, sql, &[&tier.id(), &before_ms, &(most as i64)], dirty).await
}

pub(super) async fn seal_watermarks(shared: &PostgresInner) -> Result<Vec<SealWatermark>, StoreError> {
    let sealed = |row: &SqlRow| SealWatermark { host: host_id(row, 0), arrival: row.get(1) };
    query_all(shared, "SELECT host, arrival FROM sealed WHERE hub = $1", &[&shared.hub], sealed).await
}

pub(super) async fn sequence_ranges(shared: &PostgresInner) -> Result<Vec<SequenceRanges>, StoreError> {
    query_all(shared, "SELECT host, boot, seqs, newest_ms FROM seen", &[], |row| SequenceRanges {
        host: host_id(row, 0),
        boot: BootId::from_bytes(row.get(1)).unwrap_or_default(),
        seqs: RangeSet::from_text(row.get(2)),
        newest_ms: row.get(3),
    })
    .await
}

async fn state(client: &impl GenericClient, host: HostId) -> Result<TierState, Error> {
    let floors = retention_watermarks(client, "").await?;
    let mut state = TierState {
        raw_watermark_ms: floors.ms[0],
        minute_watermark_ms: floors.ms[1],
        ..TierState::default()
    };
    let sql = "SELECT tier, window_ms FROM dirty WHERE host = $1 AND tier IN (0, 1)";
    for row in client.query(sql, &[&host.to_bytes().to_vec()]).await? {
        match row.get::<_, i64>(0) {
            0 => state.dirty_hours.insert(row.get(1)),
            _ => state.dirty_days.insert(row.get(1)),
        };
    }
    Ok(state)
}

/// A block and its directory.
struct BlockLocation {
    info: BlockInfo,
    shape: ShapeId,
    head: Vec<u8>,
}

async fn block_locations(
    client: &impl GenericClient,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<BlockLocation>, Error> {
    // Blocks are no longer than their window: what begins earlier than one before can't reach in.
    let sql = format!(
        "SELECT id, first_ms, last_ms, bytes, shape, substring(data FROM 1 FOR head_bytes::int) FROM {} \
         WHERE host = $1 AND first_ms >= $2 AND first_ms < $3 AND last_ms > $4 ORDER BY first_ms",
        table(tier)
    );
    let reach = from_ms.saturating_sub(tier.width_ms());
    let earliest = from_ms.saturating_sub(tier.window_ms());
    let rows = client.query(&sql, &[&host.to_bytes().to_vec(), &earliest, &to_ms, &reach]).await?;
    let place = |row: &SqlRow| BlockLocation {
        info: BlockInfo {
            id: BlockId(row.get(0)),
            tier,
            host,
            first_ms: row.get(1),
            last_ms: row.get(2),
            bytes: row.get::<_, i64>(3).cast_unsigned(),
        },
        shape: ShapeId(row.get::<_, &[u8]>(4).try_into().unwrap_or_default()),
        head: row.get(5),
    };
    Ok(rows.iter().map(place).collect())
}

/// What to fetch of one block: one range of all, or one a part.
fn ranges(fetch: &BlockFetch) -> Vec<(i32, i32)> {
    let int = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    if fetch.parts.len() > MAX_PART_READS {
        return vec![(1, i32::MAX)];
    }
    fetch.parts.iter().map(|(_, range)| (int(range.start + 1), int(range.len()))).collect()
}

async fn read_slices(
    shared: &PostgresInner,
    client: &impl GenericClient,
    tier: Tier,
    places: Vec<BlockLocation>,
    wanted: &Projection,
    (from_ms, to_ms): (i64, i64),
) -> Result<Vec<BlockSlice>, Error> {
    shared.learn_all(client, places.iter().map(|place| place.shape)).await?;
    let mut picker = Projector::new(wanted);
    let fetches: Vec<Result<BlockFetch, FormatError>> = places
        .iter()
        .map(|place| {
            BlockFetch::new(&place.head, shared.shapes.get(place.shape).as_ref(), wanted, &mut picker)
        })
        .collect();
    let (mut ids, mut firsts, mut offsets, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (place, fetch) in places.iter().zip(&fetches) {
        for (offset, length) in fetch.as_ref().map(ranges).unwrap_or_default() {
            ids.push(place.info.id.0);
            firsts.push(place.info.first_ms);
            offsets.push(offset);
            lengths.push(length);
        }
    }
    let sql = format!(
        "SELECT substring(b.data FROM u.at FOR u.len) FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[]) \
         WITH ORDINALITY AS u(id, first_ms, at, len, place) JOIN {} b ON b.id = u.id AND b.first_ms = u.first_ms ORDER BY u.place",
        table(tier)
    );
    let rows = if ids.is_empty() {
        Vec::new()
    } else {
        client.query(&sql, &[&ids, &firsts, &offsets, &lengths]).await?
    };
    let mut fetched = rows.iter().map(|row| row.get::<_, &[u8]>(0));
    let mut found = Vec::with_capacity(places.len());
    for (place, fetch) in places.into_iter().zip(fetches) {
        let content = fetch.and_then(|fetch| {
            let bytes: Vec<&[u8]> = fetched.by_ref().take(ranges(&fetch).len()).collect();
            if fetch.parts.len() <= MAX_PART_READS {
                return fetch.decode(&bytes);
            }
            let whole = bytes.first().copied().unwrap_or_default();
            let part =
                |range: &std::ops::Range<usize>| whole.get(range.clone()).ok_or(FormatError::Truncated);
            let parts: Vec<&[u8]> =
                fetch.parts.iter().map(|(_, range)| part(range)).collect::<Result<_, _>>()?;
            fetch.decode(&parts)
        });
        found.push(BlockSlice { block: place.info, from_ms, to_ms, content });
    }
    Ok(found)
}

pub(super) async fn read_range(shared: &PostgresInner, query: Query) -> Result<QueryResult, StoreError> {
    let mut client = shared.client().await?;
    let read = async {
        // One moment for the state and for every block.
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let state = state(&tx, query.host).await?;
        let plan = state.plan(query.tier, query.from_ms, query.to_ms);
        let mut reading = QueryResult { plan, state, slices: Vec::new() };
        for stretch in reading.plan.clone() {
            let range = (stretch.from_ms, stretch.to_ms);
            let places = block_locations(&tx, stretch.tier, query.host, range.0, range.1).await?;
            reading
                .slices
                .extend(read_slices(shared, &tx, stretch.tier, places, &query.projection, range).await?);
        }
        tx.commit().await?;
        Ok(reading)
    };
    read.await.map_err(|error: Error| unavailable(&error))
}

pub(super) async fn blocks(
    shared: &PostgresInner,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<BlockSlice>, StoreError> {
    let mut client = shared.client().await?;
    let read = async {
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let places = block_locations(&tx, tier, host, from_ms, to_ms).await?;
        let found = read_slices(shared, &tx, tier, places, &Projection::full(), (from_ms, to_ms)).await?;
        tx.commit().await?;
        Ok(found)
    };
    read.await.map_err(|error: Error| unavailable(&error))
}

pub(super) async fn oldest_blocks(
    shared: &PostgresInner,
    tier: Tier,
    before_ms: i64,
    most: usize,
) -> Result<Vec<BlockInfo>, StoreError> {
    let sql = format!(
        "SELECT id, host, first_ms, last_ms, bytes FROM {} WHERE last_ms < $1 ORDER BY last_ms LIMIT $2",
        table(tier)
    );
    let block = |row: &SqlRow| BlockInfo {
        id: BlockId(row.get(0)),
        tier,
        host: host_id(row, 1),
        first_ms: row.get(2),
        last_ms: row.get(3),
        bytes: row.get::<_, i64>(4).cast_unsigned(),
    };
    query_all(shared, &sql, &[&before_ms, &(most as i64)], block).await
}

pub(super) async fn usage(shared: &PostgresInner) -> Result<DiskUsage, StoreError> {
    let sql = "SELECT \
         (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
          WHERE n.nspname = current_schema() AND c.relkind = 'r' AND (c.relname IN ('host', 'shape', 'head', 'sealed', 'seen', 'dirty', \
          'floor', 'lease', 'block_minute', 'block_hour', 'account', 'session', 'token', 'enrolment', 'agent', \
          'host_tag', 'audit', 'setting') OR c.relname LIKE 'block\\_raw\\_%')), \
         (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = 'block_raw'::regclass), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_raw), (SELECT coalesce(sum(bytes), 0)::bigint FROM block_minute), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_hour), (SELECT coalesce(sum(length(payload)), 0)::bigint FROM head)";
    let usage = query_all(shared, sql, &[], |row| {
        let bytes = |at: usize| row.get::<_, i64>(at).cast_unsigned();
        let tier_bytes = [bytes(2), bytes(3), bytes(4)];
        let used = tier_bytes[1] + tier_bytes[2] + bytes(5);
        // Chunks of large values and indices take about a tenth more. Of a partition, nothing is
        // used again before it goes.
        let used = used + used / 10 + bytes(1);
        let (room, wall) = (
            shared.budget_bytes / 100 * super::EVICT_ABOVE_PERCENT,
            shared.budget_bytes / 100 * super::REJECT_ABOVE_PERCENT,
        );
        // What is free is where it does not help: something must go all the same.
        let over = bytes(0).saturating_sub(wall);
        DiskUsage {
            disk_bytes: bytes(0),
            used_bytes: if over > 0 { used.max(room / 10 * 9 + over) } else { used },
            append_limit_bytes: room,
            tier_bytes,
            head_bytes: bytes(5),
        }
    })
    .await?;
    Ok(usage.into_iter().next().unwrap_or_default())
}
