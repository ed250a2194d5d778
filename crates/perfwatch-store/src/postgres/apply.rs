//! Statements of each write in PostgreSQL.

use super::error::unavailable;
use super::inner::PostgresInner;
use super::{partitions, read};
use crate::error::{CommitError, StoreError};
use crate::hosts::HostRecord;
use crate::range_set::RangeSet;
use crate::schema::block_table;
use crate::transaction::Change;
use crate::write::{SequenceRanges, Write};
use deadpool_postgres::{GenericClient, Object, Transaction};
use perfwatch_model::{HostId, Shape, wire};
use perfwatch_tsdb::{Block, Tier};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// Minimum age of an unused shape before it is deleted.
const UNUSED_SHAPE_TTL_MS: i64 = 2 * 86_400_000;
/// Interval at which the last use of a shape is written.
const SHAPE_TOUCH_INTERVAL: Duration = Duration::from_secs(3_600);
/// Minimum time between two vacuums.
const VACUUM_INTERVAL: Duration = Duration::from_secs(10);

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

fn id_bytes(host: HostId) -> Vec<u8> {
    host.to_bytes().to_vec()
}

pub(super) async fn upsert_host(client: &Object, host: &HostRecord) -> Result<(), Error> {
    let sql = "INSERT INTO host (id, name, facts, first_seen_ms, last_snapshot_ms, interval_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, facts = coalesce(excluded.facts, host.facts)";
    let facts = host.facts.as_deref().map(wire::encode_facts);
    let values: [&(dyn ToSql + Sync); 6] = [
        &id_bytes(host.id),
        &host.name,
        &facts,
        &host.first_seen_ms,
        &host.last_snapshot_ms,
        &i64::from(host.interval_ms),
    ];
    client.execute(sql, &values).await.map(|_| ())
}

/// Writes new shapes, and the last use of shapes whose interval elapsed.
pub(super) async fn touch_shapes(
    inner: &PostgresInner,
    client: &impl GenericClient,
    shapes: &[Arc<Shape>],
) -> Result<(), Error> {
    let now = inner.clock.monotonic();
    for shape in shapes {
        let touched =
            inner.touched_shapes.lock().unwrap_or_else(PoisonError::into_inner).get(&shape.id()).copied();
        if touched.is_some_and(|at| now.saturating_sub(at) < SHAPE_TOUCH_INTERVAL) {
            continue;
        }
        let sql = "INSERT INTO shape (id, columns, last_used_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (id) DO UPDATE SET last_used_ms = excluded.last_used_ms";
        let columns = wire::encode_shape(shape).to_vec();
        client.execute(sql, &[&shape.id().0.to_vec(), &columns, &inner.clock.wall_ms()]).await?;
        inner.shapes.insert(shape.clone());
        inner.touched_shapes.lock().unwrap_or_else(PoisonError::into_inner).insert(shape.id(), now);
    }
    Ok(())
}

pub(super) async fn commit(inner: &PostgresInner, changes: Vec<Change>) -> Result<(), CommitError> {
    let mut client = inner.client().await?;
    match try_commit(inner, &mut client, &changes).await {
        Ok(true) => {
            let dead_bytes = inner.block_dead_bytes.load(Ordering::Relaxed);
            if dead_bytes > inner.max_dead_bytes() {
                inner.block_dead_bytes.store(0, Ordering::Relaxed);
                // After a failure the next vacuum frees the space.
                let _ = client.batch_execute("VACUUM block_minute").await;
                let _ = client.batch_execute("VACUUM block_hour").await;
            }
            Ok(())
        }
        Ok(false) => Err(CommitError::Conflict),
        // Two hubs changed the same rows and PostgreSQL aborted this transaction, or a unique key is taken.
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
            // Another hub may have dropped a partition: the next commit lists them again.
            inner.partitions.lock().unwrap_or_else(PoisonError::into_inner).clear();
            Err(CommitError::Store(unavailable(&error)))
        }
    }
}

async fn try_commit(inner: &PostgresInner, client: &mut Object, changes: &[Change]) -> Result<bool, Error> {
    let mut shapes = Vec::new();
    for change in changes {
        if let Change::History(Write::PutBlock(tier, _, shape, block)) = change {
            shapes.push(shape.clone());
            if *tier == Tier::Raw {
                partitions::ensure_partition(inner, client, block.first_ms, None).await?;
            }
        }
    }
    touch_shapes(inner, client, &shapes).await?;
    let transaction = client.transaction().await?;
    for change in changes {
        if !apply(inner, &transaction, change).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
    }
    transaction.commit().await?;
    Ok(true)
}

/// Applies one change; false if it conflicts with the stored state.
async fn apply(inner: &PostgresInner, tx: &Transaction<'_>, change: &Change) -> Result<bool, Error> {
    match change {
        Change::History(write) => apply_write(inner, tx, write).await,
        Change::Entity(statement) => {
            let values: Vec<&(dyn ToSql + Sync)> = statement.values.iter().map(|value| value as _).collect();
            Ok(tx.execute(statement.sql, &values).await? > 0 || !statement.requires_row)
        }
    }
}

async fn apply_write(inner: &PostgresInner, tx: &Transaction<'_>, write: &Write) -> Result<bool, Error> {
    match write {
        Write::HostSeen(host, last_snapshot_ms, interval_ms) => {
            let sql = "UPDATE host SET last_snapshot_ms = greatest(coalesce(last_snapshot_ms, $2), $2), \
                 interval_ms = $3 WHERE id = $1";
            tx.execute(sql, &[&id_bytes(*host), last_snapshot_ms, &i64::from(*interval_ms)]).await?;
        }
        Write::PutBlock(tier, host, _, block) => put_block(inner, tx, *tier, *host, block).await?,
        Write::DropBlock(block) => {
            let sql = format!(
                "DELETE FROM {} WHERE host = $1 AND first_ms = $2 AND id = $3",
                block_table(block.tier)
            );
            inner.has_dead_rows.store(true, Ordering::Relaxed);
            if block.tier != Tier::Raw {
                inner.block_dead_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            }
            return Ok(tx.execute(&sql, &[&id_bytes(block.host), &block.first_ms, &block.id.0]).await? == 1);
        }
        Write::AdvanceSeal(watermark) => {
            let sql = "INSERT INTO seal_watermark (hub, host, arrival) VALUES ($1, $2, $3) \
                 ON CONFLICT (hub, host) DO UPDATE SET arrival = excluded.arrival \
                 WHERE seal_watermark.arrival < excluded.arrival";
            let values: Values<'_> = &[&inner.hub, &id_bytes(watermark.host), &watermark.arrival];
            return Ok(tx.execute(sql, values).await? == 1);
        }
        Write::RecordSequences(ranges) => record_sequences(tx, ranges).await?,
        Write::MarkDirty(tier, host, window_ms) => {
            let sql = "INSERT INTO dirty_window (tier, host, window_ms, stamp) \
                 VALUES ($1, $2, $3, (random() * 9e15)::bigint) \
                 ON CONFLICT (tier, host, window_ms) DO UPDATE SET stamp = excluded.stamp";
            tx.execute(sql, &[&tier.id(), &id_bytes(*host), window_ms]).await?;
        }
        Write::ClearDirty(window) => {
            let sql =
                "DELETE FROM dirty_window WHERE tier = $1 AND host = $2 AND window_ms = $3 AND stamp = $4";
            let values: Values<'_> =
                &[&window.tier.id(), &id_bytes(window.host), &window.window_ms, &window.stamp];
            return Ok(tx.execute(sql, values).await? == 1);
        }
        // Locked until the end of the transaction: watermarks do not advance before the writes that expect
        // them.
        Write::ExpectWatermarks(watermarks) => {
            return Ok(read::retention_watermarks(tx, "FOR SHARE").await? == *watermarks);
        }
        Write::AdvanceWatermark(tier, ms) => return advance_watermark(tx, *tier, *ms).await,
    }
    Ok(true)
}

async fn put_block(
    inner: &PostgresInner,
    tx: &Transaction<'_>,
    tier: Tier,
    host: HostId,
    block: &Block,
) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO {} (host, first_ms, last_ms, shape, header_bytes, bytes, data) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        block_table(tier)
    );
    let (header_bytes, bytes) = (block.header_len as i64, block.bytes.len() as i64);
    let shape = block.shape.0.to_vec();
    inner.disk_bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
    let values: Values<'_> =
        &[&id_bytes(host), &block.first_ms, &block.last_ms, &shape, &header_bytes, &bytes, &block.bytes];
    tx.execute(&sql, values).await.map(drop)
}

async fn record_sequences(tx: &Transaction<'_>, ranges: &SequenceRanges) -> Result<(), Error> {
    let (host, boot) = (id_bytes(ranges.host), ranges.boot.to_bytes().to_vec());
    let select = "SELECT seqs FROM sequence_range WHERE host = $1 AND boot = $2 FOR UPDATE";
    let stored: Option<String> = tx.query_opt(select, &[&host, &boot]).await?.map(|row| row.get(0));
    let mut seqs = ranges.seqs.clone();
    seqs.extend(&RangeSet::from_text(&stored.unwrap_or_default()));
    let sql = "INSERT INTO sequence_range (host, boot, seqs, newest_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (host, boot) DO UPDATE \
         SET seqs = excluded.seqs, newest_ms = greatest(sequence_range.newest_ms, excluded.newest_ms)";
    tx.execute(sql, &[&host, &boot, &seqs.to_text(), &ranges.newest_ms]).await.map(drop)
}

async fn advance_watermark(tx: &Transaction<'_>, tier: Tier, ms: i64) -> Result<bool, Error> {
    read::retention_watermarks(tx, "FOR UPDATE").await?;
    // Rows of the last tier are rolled up into no other tier and may be deleted at any time.
    if tier.coarser().is_some() {
        let sql = "SELECT EXISTS (SELECT 1 FROM dirty_window WHERE tier = $1 AND window_ms < $2)";
        if tx.query_one(sql, &[&tier.id(), &ms]).await?.get(0) {
            return Ok(false);
        }
    }
    let sql = "UPDATE retention_watermark SET ms = greatest(ms, $2) WHERE tier = $1";
    tx.execute(sql, &[&tier.id(), &ms]).await?;
    Ok(true)
}

/// Deletes this hub's head rows with a lower arrival number. Head rows are many, so their space is vacuumed
/// often.
pub(super) async fn truncate_head(inner: &PostgresInner, client: &Object, before: i64) -> Result<(), Error> {
    let sql = "WITH deleted AS (DELETE FROM head WHERE hub = $1 AND arrival < $2 \
         RETURNING length(payload) AS bytes) \
         SELECT coalesce(sum(bytes), 0)::bigint FROM deleted";
    let deleted: i64 = client.query_one(sql, &[&inner.hub, &before]).await?.get(0);
    let deleted = deleted.cast_unsigned();
    let live = inner.head_live_bytes.load(Ordering::Relaxed);
    inner.head_live_bytes.fetch_sub(deleted.min(live), Ordering::Relaxed);
    let dead = inner.head_dead_bytes.fetch_add(deleted, Ordering::Relaxed) + deleted;
    if dead > inner.max_dead_bytes() {
        client.batch_execute("VACUUM head").await?;
        inner.head_dead_bytes.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// Drops empty partitions, deletes unused shapes and sequence numbers, and makes the space of deleted rows
/// reusable with a plain VACUUM, which blocks no other statement.
pub(super) async fn vacuum(inner: &PostgresInner, before_ms: i64) -> Result<(), StoreError> {
    let now = inner.clock.monotonic();
    {
        let client = inner.client().await?;
        drop_partitions(inner, &client).await.map_err(|error| unavailable(&error))?;
        let mut last_vacuum = inner.last_vacuum.lock().unwrap_or_else(PoisonError::into_inner);
        if *last_vacuum > Duration::ZERO && now.saturating_sub(*last_vacuum) < VACUUM_INTERVAL {
            return Ok(());
        }
        *last_vacuum = now.max(Duration::from_nanos(1));
    }
    let client = inner.client().await?;
    vacuum_with(inner, &client, before_ms).await.map_err(|error| unavailable(&error))
}

async fn drop_partitions(inner: &PostgresInner, client: &Object) -> Result<(), Error> {
    let watermark_ms = read::retention_watermarks(client, "").await?.ms[0];
    partitions::drop_empty(inner, client, watermark_ms).await
}

async fn vacuum_with(inner: &PostgresInner, client: &Object, before_ms: i64) -> Result<(), Error> {
    client.execute("DELETE FROM sequence_range WHERE newest_ms < $1", &[&before_ms]).await?;
    let unused_since_ms = before_ms.min(inner.clock.wall_ms() - UNUSED_SHAPE_TTL_MS);
    let sql = "DELETE FROM shape WHERE last_used_ms < $1 \
         AND NOT EXISTS (SELECT 1 FROM block_raw b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_minute b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_hour b WHERE b.shape = shape.id)";
    client.execute(sql, &[&unused_since_ms]).await?;
    if !inner.has_dead_rows.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    for table in
        ["block_raw", "block_minute", "block_hour", "dirty_window", "seal_watermark", "sequence_range"]
    {
        client.batch_execute(&format!("VACUUM {table}")).await?;
    }
    Ok(())
}
