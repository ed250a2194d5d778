//! Each question as SQL. Two round trips a stretch: the directories of all its blocks, then
//! the parts asked for.

use super::{Shared, table, unavailable};
use crate::decode::Fetch;
use crate::head as payload;
use crate::ranges::Ranges;
use crate::store::*;
use deadpool_postgres::GenericClient;
use perfwatch_model::{BootId, HostId, ShapeId, Texts, wire};
use perfwatch_series::plan::State;
use perfwatch_series::{FormatError, Picker, Tier, Wanted};
use std::cell::RefCell;
use std::sync::Arc;
use tokio_postgres::{Error, IsolationLevel, Row as SqlRow};

/// Fewer parts than this are read one by one, more by one read of the whole block.
const FEW_PARTS: usize = 40;

fn host_id(row: &SqlRow, at: usize) -> HostId {
    HostId::from_bytes(row.get(at)).unwrap_or(HostId(uuid::Uuid::nil()))
}

async fn all<T>(
    shared: &Shared,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    row: impl Fn(&SqlRow) -> T,
) -> Result<Vec<T>, StoreError> {
    let client = shared.client().await?;
    let rows = client.query(sql, values).await.map_err(|error| unavailable(&error))?;
    Ok(rows.iter().map(row).collect())
}

pub(super) async fn head(shared: &Shared, after: i64, most: usize) -> Result<Vec<HeadRow>, StoreError> {
    let client = shared.client().await?;
    let mut found = Vec::new();
    let texts = Texts::default();
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
        found.extend(payload::unpack(after, bytes, &|id| shared.shapes.known(id), &texts)?);
    }
    Ok(found)
}

/// Rows, and the shapes that are not in memory.
fn unpack(
    shared: &Shared,
    arrival: i64,
    bytes: &[u8],
    texts: &Texts,
) -> Result<(Vec<HeadRow>, Vec<ShapeId>), StoreError> {
    let needed = RefCell::new(Vec::new());
    let shapes = |id| {
        let known = shared.shapes.known(id);
        if known.is_none() {
            needed.borrow_mut().push(id);
        }
        known
    };
    let rows = payload::unpack(arrival, bytes, &shapes, texts)?;
    Ok((rows, needed.into_inner()))
}

pub(super) async fn hosts(shared: &Shared) -> Result<Vec<HostRecord>, StoreError> {
    let sql = "SELECT id, name, facts, first_seen_ms, last_at_ms, interval_ms FROM host ORDER BY id";
    all(shared, sql, &[], |row| {
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
pub(super) async fn floors(client: &impl GenericClient, lock: &str) -> Result<Floors, Error> {
    let mut floors = Floors::default();
    for row in client.query(&format!("SELECT tier, ms FROM floor ORDER BY tier {lock}"), &[]).await? {
        let tier = usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX);
        if let Some(floor) = floors.ms.get_mut(tier) {
            *floor = row.get(1);
        }
    }
    Ok(floors)
}

pub(super) async fn dirty(
    shared: &Shared,
    tier: Tier,
    before_ms: i64,
    most: usize,
) -> Result<Vec<Dirty>, StoreError> {
    let sql = "SELECT host, window_ms, stamp FROM dirty WHERE tier = $1 AND window_ms < $2 ORDER BY window_ms, host LIMIT $3";
    let dirty =
        |row: &SqlRow| Dirty { tier, host: host_id(row, 0), window_ms: row.get(1), stamp: row.get(2) };
    all(shared, sql, &[&tier.number(), &before_ms, &(most as i64)], dirty).await
}

pub(super) async fn sealed(shared: &Shared) -> Result<Vec<Sealed>, StoreError> {
    let sealed = |row: &SqlRow| Sealed { host: host_id(row, 0), arrival: row.get(1) };
    all(shared, "SELECT host, arrival FROM sealed WHERE hub = $1", &[&shared.hub], sealed).await
}

pub(super) async fn seen(shared: &Shared) -> Result<Vec<Seen>, StoreError> {
    all(shared, "SELECT host, boot, seqs, newest_ms FROM seen", &[], |row| Seen {
        host: host_id(row, 0),
        boot: BootId::from_bytes(row.get(1)).unwrap_or_default(),
        seqs: Ranges::from_text(row.get(2)),
        newest_ms: row.get(3),
    })
    .await
}

async fn state(client: &impl GenericClient, host: HostId) -> Result<State, Error> {
    let floors = floors(client, "").await?;
    let mut state = State { raw_floor_ms: floors.ms[0], minute_floor_ms: floors.ms[1], ..State::default() };
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
struct Place {
    info: BlockInfo,
    shape: ShapeId,
    head: Vec<u8>,
}

async fn places(
    client: &impl GenericClient,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Place>, Error> {
    // Blocks are no longer than their window: what begins earlier than one before can't reach in.
    let sql = format!(
        "SELECT id, first_ms, last_ms, bytes, shape, substring(data FROM 1 FOR head_bytes::int) FROM {} \
         WHERE host = $1 AND first_ms >= $2 AND first_ms < $3 AND last_ms > $4 ORDER BY first_ms",
        table(tier)
    );
    let reach = from_ms.saturating_sub(tier.width_ms());
    let earliest = from_ms.saturating_sub(tier.window_ms());
    let rows = client.query(&sql, &[&host.to_bytes().to_vec(), &earliest, &to_ms, &reach]).await?;
    let place = |row: &SqlRow| Place {
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
fn ranges(fetch: &Fetch) -> Vec<(i32, i32)> {
    let int = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    if fetch.parts.len() > FEW_PARTS {
        return vec![(1, i32::MAX)];
    }
    fetch.parts.iter().map(|(_, range)| (int(range.start + 1), int(range.len()))).collect()
}

async fn pieces(
    shared: &Shared,
    client: &impl GenericClient,
    tier: Tier,
    places: Vec<Place>,
    wanted: &Wanted,
    (from_ms, to_ms): (i64, i64),
) -> Result<Vec<Piece>, Error> {
    shared.learn_all(client, places.iter().map(|place| place.shape)).await?;
    let mut picker = Picker::new(wanted);
    let fetches: Vec<Result<Fetch, FormatError>> = places
        .iter()
        .map(|place| Fetch::new(&place.head, shared.shapes.known(place.shape).as_ref(), wanted, &mut picker))
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
            if fetch.parts.len() <= FEW_PARTS {
                return fetch.content(&bytes);
            }
            let whole = bytes.first().copied().unwrap_or_default();
            let part = |range: &std::ops::Range<usize>| whole.get(range.clone()).ok_or(FormatError::Short);
            let parts: Vec<&[u8]> =
                fetch.parts.iter().map(|(_, range)| part(range)).collect::<Result<_, _>>()?;
            fetch.content(&parts)
        });
        found.push(Piece { block: place.info, from_ms, to_ms, content });
    }
    Ok(found)
}

pub(super) async fn reading(shared: &Shared, query: Query) -> Result<Reading, StoreError> {
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
        let mut reading = Reading { plan, state, pieces: Vec::new() };
        for stretch in reading.plan.clone() {
            let range = (stretch.from_ms, stretch.to_ms);
            let places = places(&tx, stretch.tier, query.host, range.0, range.1).await?;
            reading.pieces.extend(pieces(shared, &tx, stretch.tier, places, &query.wanted, range).await?);
        }
        tx.commit().await?;
        Ok(reading)
    };
    read.await.map_err(|error: Error| unavailable(&error))
}

pub(super) async fn blocks(
    shared: &Shared,
    tier: Tier,
    host: HostId,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Piece>, StoreError> {
    let mut client = shared.client().await?;
    let read = async {
        let tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let places = places(&tx, tier, host, from_ms, to_ms).await?;
        let found = pieces(shared, &tx, tier, places, &Wanted::everything(), (from_ms, to_ms)).await?;
        tx.commit().await?;
        Ok(found)
    };
    read.await.map_err(|error: Error| unavailable(&error))
}

pub(super) async fn oldest(
    shared: &Shared,
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
    all(shared, &sql, &[&before_ms, &(most as i64)], block).await
}

pub(super) async fn usage(shared: &Shared) -> Result<Usage, StoreError> {
    let sql = "SELECT \
         (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
          WHERE n.nspname = current_schema() AND c.relkind = 'r' AND (c.relname IN ('host', 'shape', 'head', 'sealed', 'seen', 'dirty', \
          'floor', 'lease', 'block_minute', 'block_hour', 'account', 'session', 'token', 'enrolment', 'agent', \
          'host_tag', 'audit', 'setting') OR c.relname LIKE 'block\\_raw\\_%')), \
         (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = 'block_raw'::regclass), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_raw), (SELECT coalesce(sum(bytes), 0)::bigint FROM block_minute), \
         (SELECT coalesce(sum(bytes), 0)::bigint FROM block_hour), (SELECT coalesce(sum(length(payload)), 0)::bigint FROM head)";
    let usage = all(shared, sql, &[], |row| {
        let bytes = |at: usize| row.get::<_, i64>(at).cast_unsigned();
        let tier_bytes = [bytes(2), bytes(3), bytes(4)];
        let used = tier_bytes[1] + tier_bytes[2] + bytes(5);
        // Chunks of large values and indices take about a tenth more. Of a partition, nothing is
        // used again before it goes.
        let used = used + used / 10 + bytes(1);
        let (room, wall) = (shared.budget_bytes / 100 * super::ROOM, shared.budget_bytes / 100 * super::WALL);
        // What is free is where it does not help: something must go all the same.
        let over = bytes(0).saturating_sub(wall);
        Usage {
            disk_bytes: bytes(0),
            used_bytes: if over > 0 { used.max(room / 10 * 9 + over) } else { used },
            room_bytes: room,
            tier_bytes,
            head_bytes: bytes(5),
        }
    })
    .await?;
    Ok(usage.into_iter().next().unwrap_or_default())
}
