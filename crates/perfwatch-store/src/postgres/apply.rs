//! Each write as SQL.

use super::{DEAD_ROWS_BUDGET_FRACTION, PostgresInner, partitions, read, table, unavailable};
use crate::range_set::RangeSet;
use crate::store::*;
use deadpool_postgres::{GenericClient, Object, Transaction};
use perfwatch_model::{HostId, Shape, wire};
use perfwatch_tsdb::Tier;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

const DAY_MS: i64 = 86_400_000;
/// A shape is noted as used this often.
const SHAPE_TOUCH_INTERVAL: Duration = Duration::from_secs(3_600);
/// Between two vacuums at least.
const VACUUM_INTERVAL: Duration = Duration::from_secs(10);

fn id_bytes(host: HostId) -> Vec<u8> {
    host.to_bytes().to_vec()
}

pub(super) async fn put_host(client: &Object, host: &HostRecord) -> Result<(), Error> {
    let sql = "INSERT INTO host (id, name, facts, first_seen_ms, last_at_ms, interval_ms) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, facts = coalesce(excluded.facts, host.facts)";
    let facts = host.facts.as_deref().map(wire::encode_facts);
    let values: [&(dyn ToSql + Sync); 6] = [
        &id_bytes(host.id),
        &host.name,
        &facts,
        &host.first_seen_ms,
        &host.last_at_ms,
        &i64::from(host.interval_ms),
    ];
    client.execute(sql, &values).await.map(|_| ())
}

/// Makes sure that shapes are in the database, and that they are known to be in use.
pub(super) async fn touch_shapes(
    shared: &PostgresInner,
    client: &impl GenericClient,
    shapes: &[Arc<Shape>],
) -> Result<(), Error> {
    let now = shared.clock.monotonic();
    for shape in shapes {
        let noted =
            shared.touched_shapes.lock().unwrap_or_else(PoisonError::into_inner).get(&shape.id()).copied();
        if noted.is_some_and(|at| now.saturating_sub(at) < SHAPE_TOUCH_INTERVAL) {
            continue;
        }
        let sql = "INSERT INTO shape (id, columns, used_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (id) DO UPDATE SET used_ms = excluded.used_ms";
        let columns = wire::encode_shape(shape).to_vec();
        client.execute(sql, &[&shape.id().0.to_vec(), &columns, &shared.clock.wall_ms()]).await?;
        shared.shapes.insert(shape.clone());
        shared.touched_shapes.lock().unwrap_or_else(PoisonError::into_inner).insert(shape.id(), now);
    }
    Ok(())
}

pub(super) async fn commit(shared: &PostgresInner, writes: Vec<Write>) -> Result<(), CommitError> {
    let mut client = shared.client().await?;
    match try_commit(shared, &mut client, &writes).await {
        Ok(true) => {
            if shared.block_dead_bytes.load(Ordering::Relaxed)
                > shared.budget_bytes / DEAD_ROWS_BUDGET_FRACTION
            {
                shared.block_dead_bytes.store(0, Ordering::Relaxed);
                // It is done again where it fails.
                let _ = client.batch_execute("VACUUM block_minute").await;
                let _ = client.batch_execute("VACUUM block_hour").await;
            }
            Ok(())
        }
        Ok(false) => Err(CommitError::Conflict),
        // Two hubs at the same rows: one of them gives way. Or a row is there already.
        Err(error)
            if matches!(
                error.code(),
                Some(
                    &SqlState::T_R_DEADLOCK_DETECTED
                        | &SqlState::T_R_SERIALIZATION_FAILURE
                        | &SqlState::UNIQUE_VIOLATION
                )
            ) =>
        {
            Err(CommitError::Conflict)
        }
        Err(error) => {
            // A partition may have been dropped by another hub: looked for again next time.
            shared.partitions.lock().unwrap_or_else(PoisonError::into_inner).clear();
            Err(CommitError::Store(unavailable(&error)))
        }
    }
}

async fn try_commit(shared: &PostgresInner, client: &mut Object, writes: &[Write]) -> Result<bool, Error> {
    let mut shapes = Vec::new();
    for write in writes {
        if let Write::PutBlock(tier, _, shape, block) = write {
            shapes.push(shape.clone());
            if *tier == Tier::Raw {
                partitions::ensure_partition(shared, client, block.first_ms, None).await?;
            }
        }
    }
    touch_shapes(shared, client, &shapes).await?;
    let transaction = client.transaction().await?;
    for write in writes {
        if !apply(shared, &transaction, write).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
    }
    transaction.commit().await?;
    Ok(true)
}

/// Does one write; false if what it builds on changed.
async fn apply(shared: &PostgresInner, tx: &Transaction<'_>, write: &Write) -> Result<bool, Error> {
    type Values<'a> = &'a [&'a (dyn tokio_postgres::types::ToSql + Sync)];
    let run = async |sql: &str, values: Values<'_>| tx.execute(sql, values).await;
    match write {
        Write::HostSeen(host, last_at_ms, interval_ms) => {
            let sql = "UPDATE host SET last_at_ms = greatest(coalesce(last_at_ms, $2), $2), interval_ms = $3 WHERE id = $1";
            run(sql, &[&id_bytes(*host), last_at_ms, &i64::from(*interval_ms)]).await?;
        }
        Write::PutBlock(tier, host, _, block) => {
            let sql = format!(
                "INSERT INTO {} (host, first_ms, last_ms, shape, head_bytes, bytes, data) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                table(*tier)
            );
            let (head, bytes) = (block.header_len as i64, block.bytes.len() as i64);
            let shape = block.shape.0.to_vec();
            shared.disk_bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
            run(
                &sql,
                &[&id_bytes(*host), &block.first_ms, &block.last_ms, &shape, &head, &bytes, &block.bytes],
            )
            .await?;
        }
        Write::DropBlock(block) => {
            let sql = format!("DELETE FROM {} WHERE id = $1 AND first_ms = $2", table(block.tier));
            shared.has_dead_rows.store(true, Ordering::Relaxed);
            if block.tier != Tier::Raw {
                shared.block_dead_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            }
            return Ok(run(&sql, &[&block.id.0, &block.first_ms]).await? == 1);
        }
        Write::AdvanceSeal(sealed) => {
            let sql = "INSERT INTO sealed (hub, host, arrival) VALUES ($1, $2, $3) \
                 ON CONFLICT (hub, host) DO UPDATE SET arrival = excluded.arrival WHERE sealed.arrival < excluded.arrival";
            return Ok(run(sql, &[&shared.hub, &id_bytes(sealed.host), &sealed.arrival]).await? == 1);
        }
        Write::RecordSequences(seen) => {
            let boot = seen.boot.to_bytes().to_vec();
            let lock = "SELECT seqs FROM seen WHERE host = $1 AND boot = $2 FOR UPDATE";
            let there = tx.query_opt(lock, &[&id_bytes(seen.host), &boot]).await?;
            let mut seqs = seen.seqs.clone();
            seqs.extend(&RangeSet::from_text(&there.map(|row| row.get::<_, String>(0)).unwrap_or_default()));
            let sql = "INSERT INTO seen (host, boot, seqs, newest_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (host, boot) DO UPDATE \
                 SET seqs = excluded.seqs, newest_ms = greatest(seen.newest_ms, excluded.newest_ms)";
            run(sql, &[&id_bytes(seen.host), &boot, &seqs.to_text(), &seen.newest_ms]).await?;
        }
        Write::MarkDirty(tier, host, window_ms) => {
            let sql = "INSERT INTO dirty (tier, host, window_ms, stamp) VALUES ($1, $2, $3, (random() * 9e15)::bigint) \
                 ON CONFLICT (tier, host, window_ms) DO UPDATE SET stamp = excluded.stamp";
            run(sql, &[&tier.id(), &id_bytes(*host), window_ms]).await?;
        }
        Write::ClearDirty(dirty) => {
            let sql = "DELETE FROM dirty WHERE tier = $1 AND host = $2 AND window_ms = $3 AND stamp = $4";
            let values: Values<'_> =
                &[&dirty.tier.id(), &id_bytes(dirty.host), &dirty.window_ms, &dirty.stamp];
            return Ok(run(sql, values).await? == 1);
        }
        // Held until the end: floors don't rise under what builds on them.
        Write::ExpectWatermarks(floors) => {
            return Ok(read::retention_watermarks(tx, "FOR SHARE").await? == *floors);
        }
        Write::AdvanceWatermark(tier, ms) => {
            read::retention_watermarks(tx, "FOR UPDATE").await?;
            // What nothing is made of may go at any time.
            if tier.coarser().is_some() {
                let sql = "SELECT EXISTS (SELECT 1 FROM dirty WHERE tier = $1 AND window_ms < $2)";
                if tx.query_one(sql, &[&tier.id(), ms]).await?.get(0) {
                    return Ok(false);
                }
            }
            run("UPDATE floor SET ms = greatest(ms, $2) WHERE tier = $1", &[&tier.id(), ms]).await?;
        }
        Write::Sql(change) => {
            let values: Vec<&(dyn ToSql + Sync)> = change.values.iter().map(|cell| cell as _).collect();
            return Ok(run(change.sql, &values).await? > 0 || !change.require_row);
        }
    }
    Ok(true)
}

/// Lets go of this hub's head rows that arrived before this number. What they leave is made
/// usable again often: there are many of them.
pub(super) async fn truncate_head(shared: &PostgresInner, client: &Object, before: i64) -> Result<(), Error> {
    let sql = "WITH gone AS (DELETE FROM head WHERE hub = $1 AND arrival < $2 RETURNING length(payload) AS bytes) \
         SELECT coalesce(sum(bytes), 0)::bigint FROM gone";
    let gone: i64 = client.query_one(sql, &[&shared.hub, &before]).await?.get(0);
    let gone = gone.cast_unsigned();
    let live = shared.head_live_bytes.load(Ordering::Relaxed);
    shared.head_live_bytes.fetch_sub(gone.min(live), Ordering::Relaxed);
    let loose = shared.head_dead_bytes.fetch_add(gone, Ordering::Relaxed) + gone;
    if loose > shared.budget_bytes / DEAD_ROWS_BUDGET_FRACTION {
        client.batch_execute("VACUUM head").await?;
        shared.head_dead_bytes.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// Drops partitions that are empty, lets go of what nothing needs, and makes the space of deleted
/// rows usable again: a plain VACUUM, which blocks nobody.
pub(super) async fn vacuum(shared: &PostgresInner, before_ms: i64) -> Result<(), StoreError> {
    let now = shared.clock.monotonic();
    {
        let client = shared.client().await?;
        drop_partitions(shared, &client).await.map_err(|error| unavailable(&error))?;
        let mut tidied = shared.last_vacuum.lock().unwrap_or_else(PoisonError::into_inner);
        if *tidied > Duration::ZERO && now.saturating_sub(*tidied) < VACUUM_INTERVAL {
            return Ok(());
        }
        *tidied = now.max(Duration::from_nanos(1));
    }
    let client = shared.client().await?;
    vacuum_with(shared, &client, before_ms).await.map_err(|error| unavailable(&error))
}

async fn drop_partitions(shared: &PostgresInner, client: &Object) -> Result<(), Error> {
    let floor_ms = read::retention_watermarks(client, "").await?.ms[0];
    partitions::drop_empty(shared, client, floor_ms).await
}

async fn vacuum_with(shared: &PostgresInner, client: &Object, before_ms: i64) -> Result<(), Error> {
    client.execute("DELETE FROM seen WHERE newest_ms < $1", &[&before_ms]).await?;
    let unused_ms = before_ms.min(shared.clock.wall_ms() - 2 * DAY_MS);
    let sql = "DELETE FROM shape WHERE used_ms < $1 AND NOT EXISTS (SELECT 1 FROM block_raw b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_minute b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_hour b WHERE b.shape = shape.id)";
    client.execute(sql, &[&unused_ms]).await?;
    if !shared.has_dead_rows.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    for name in ["block_raw", "block_minute", "block_hour", "dirty", "sealed", "seen"] {
        client.batch_execute(&format!("VACUUM {name}")).await?;
    }
    Ok(())
}
