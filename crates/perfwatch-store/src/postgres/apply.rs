//! Statements of each write in PostgreSQL.

use super::inner::PostgresInner;
use super::statements::{Parameter, Statements as _, begin};
use super::{leases, partitions, read, shapes};
use crate::error::{CommitError, StoreError};
use crate::hosts::HostRecord;
use crate::schema::block_table;
use crate::transaction::Change;
use crate::write::{SequenceRanges, Write};
use perfwatch_model::{HostId, RangeSet, wire};
use perfwatch_tsdb::{Block, Tier};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};

/// Minimum time between two vacuums.
const VACUUM_INTERVAL: Duration = Duration::from_secs(10);

type Values<'a> = &'a [&'a dyn Parameter];

fn id_bytes(host: HostId) -> Vec<u8> {
    host.to_bytes().to_vec()
}

pub(super) async fn upsert_host(client: &Client, host: &HostRecord) -> Result<(), Error> {
    let sql = "INSERT INTO host (id, name, facts, first_seen_ms, last_snapshot_ms, interval_ms, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, facts = coalesce(excluded.facts, host.facts)";
    let facts = host.facts.as_deref().map(wire::encode_facts);
    let values: [&dyn Parameter; 7] = [
        &id_bytes(host.id),
        &host.name,
        &facts,
        &host.first_seen_ms,
        &host.last_snapshot_ms,
        &i64::from(host.interval_ms),
        &host.created_by.as_deref(),
    ];
    client.run(sql, &values).await.map(|_| ())
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
            Err(CommitError::Store(error.into()))
        }
    }
}

async fn try_commit(inner: &PostgresInner, client: &mut Client, changes: &[Change]) -> Result<bool, Error> {
    let mut shapes = Vec::new();
    for change in changes {
        if let Change::History(Write::PutBlock(tier, _, shape, block)) = change {
            shapes.push(shape.clone());
            if *tier == Tier::Raw {
                partitions::ensure_partition(inner, client, block.first_ms, None).await?;
            }
        }
    }
    let transaction = begin(client).await?;
    shapes::add_shapes(inner, &transaction, &shapes).await?;
    // Leases are checked last, so that their rows are locked for a short time.
    let is_lease = |change: &&Change| matches!(change, Change::Lease(_));
    let writes = changes.iter().filter(|change| !is_lease(change));
    for change in writes.chain(changes.iter().filter(is_lease)) {
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
        Change::Lease(lease) => leases::is_held(inner, tx, *lease).await,
        Change::Entity(statement) => {
            let values: Vec<&dyn Parameter> = statement.values.iter().map(|value| value as _).collect();
            Ok(tx.run(statement.sql, &values).await? > 0 || !statement.requires_row)
        }
    }
}

async fn apply_write(inner: &PostgresInner, tx: &Transaction<'_>, write: &Write) -> Result<bool, Error> {
    match write {
        Write::HostSeen(host, last_snapshot_ms, interval_ms) => {
            let sql = "UPDATE host SET last_snapshot_ms = greatest(coalesce(last_snapshot_ms, $2), $2), \
                 interval_ms = $3 WHERE id = $1";
            tx.run(sql, &[&id_bytes(*host), last_snapshot_ms, &i64::from(*interval_ms)]).await?;
        }
        Write::PutBlock(tier, host, _, block) => put_block(inner, tx, *tier, *host, block).await?,
        Write::DropBlock(block) => {
            let sql = format!(
                "DELETE FROM {} WHERE host = $1 AND first_ms = $2 AND id = $3 RETURNING shape",
                block_table(block.tier)
            );
            inner.has_dead_rows.store(true, Ordering::Relaxed);
            if block.tier != Tier::Raw {
                inner.block_dead_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            }
            let key: Values<'_> = &[&id_bytes(block.host), &block.first_ms, &block.id.0];
            let dropped = tx.fetch_opt(&sql, key).await?;
            if let Some(shape) = dropped.as_ref().and_then(|row| shapes::shape_id(row.get(0))) {
                inner.shape_use.record_dropped_block(shape);
            }
            return Ok(dropped.is_some());
        }
        Write::AdvanceSeal(watermark) => {
            let sql = "INSERT INTO seal_watermark (hub, host, arrival) VALUES ($1, $2, $3) \
                 ON CONFLICT (hub, host) DO UPDATE SET arrival = excluded.arrival \
                 WHERE seal_watermark.arrival < excluded.arrival";
            let values: Values<'_> = &[&inner.hub, &id_bytes(watermark.host), &watermark.arrival];
            return Ok(tx.run(sql, values).await? == 1);
        }
        Write::RecordSequences(ranges) => record_sequences(tx, ranges).await?,
        Write::MarkDirty(tier, host, window_ms) => {
            let sql = "INSERT INTO dirty_window (tier, host, window_ms, stamp) \
                 VALUES ($1, $2, $3, (random() * 9e15)::bigint) \
                 ON CONFLICT (tier, host, window_ms) DO UPDATE SET stamp = excluded.stamp";
            tx.run(sql, &[&tier.id(), &id_bytes(*host), window_ms]).await?;
        }
        Write::ClearDirty(window) => {
            let sql =
                "DELETE FROM dirty_window WHERE tier = $1 AND host = $2 AND window_ms = $3 AND stamp = $4";
            let values: Values<'_> =
                &[&window.tier.id(), &id_bytes(window.host), &window.window_ms, &window.stamp];
            return Ok(tx.run(sql, values).await? == 1);
        }
        // Locked until the end of the transaction: watermarks do not advance before the writes that expect
        // them.
        Write::ExpectWatermarks(watermarks) => {
            return Ok(read::retention_watermarks(tx.client(), "FOR SHARE").await? == *watermarks);
        }
        Write::AdvanceWatermark(tier, ms) => return advance_watermark(tx, *tier, *ms).await,
        Write::AdvanceHostWatermark(tier, host, ms) => {
            inner.compaction_due.store(true, Ordering::Relaxed);
            return advance_host_watermark(tx, *tier, *host, *ms).await;
        }
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
    tx.run(&sql, values).await.map(drop)
}

async fn record_sequences(tx: &Transaction<'_>, ranges: &SequenceRanges) -> Result<(), Error> {
    let (host, boot) = (id_bytes(ranges.host), ranges.boot.to_bytes().to_vec());
    let select = "SELECT seqs FROM sequence_range WHERE host = $1 AND boot = $2 FOR UPDATE";
    let stored: Option<String> = tx.fetch_opt(select, &[&host, &boot]).await?.map(|row| row.get(0));
    let mut seqs = ranges.seqs.clone();
    seqs.extend(&RangeSet::from_text(&stored.unwrap_or_default()));
    let sql = "INSERT INTO sequence_range (host, boot, seqs, newest_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (host, boot) DO UPDATE \
         SET seqs = excluded.seqs, newest_ms = greatest(sequence_range.newest_ms, excluded.newest_ms)";
    tx.run(sql, &[&host, &boot, &seqs.to_text(), &ranges.newest_ms]).await.map(drop)
}

async fn advance_watermark(tx: &Transaction<'_>, tier: Tier, ms: i64) -> Result<bool, Error> {
    read::retention_watermarks(tx.client(), "FOR UPDATE").await?;
    // Rows of the last tier are rolled up into no other tier and may be deleted at any time.
    if tier.coarser().is_some() {
        let sql = "SELECT EXISTS (SELECT 1 FROM dirty_window WHERE tier = $1 AND window_ms < $2)";
        if tx.fetch_one(sql, &[&tier.id(), &ms]).await?.get(0) {
            return Ok(false);
        }
    }
    let sql = "UPDATE retention_watermark SET ms = greatest(ms, $2) WHERE tier = $1";
    tx.run(sql, &[&tier.id(), &ms]).await?;
    Ok(true)
}

async fn advance_host_watermark(
    tx: &Transaction<'_>,
    tier: Tier,
    host: HostId,
    ms: i64,
) -> Result<bool, Error> {
    read::retention_watermarks(tx.client(), "FOR UPDATE").await?;
    let host = id_bytes(host);
    if tier.coarser().is_some() {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM dirty_window WHERE tier = $1 AND host = $2 AND window_ms < $3)";
        if tx.fetch_one(sql, &[&tier.id(), &host, &ms]).await?.get(0) {
            return Ok(false);
        }
    }
    let sql = "INSERT INTO host_watermark (tier, host, ms) VALUES ($1, $2, $3) \
         ON CONFLICT (tier, host) DO UPDATE SET ms = greatest(host_watermark.ms, excluded.ms)";
    tx.run(sql, &[&tier.id(), &host, &ms]).await?;
    Ok(true)
}

/// Deletes this hub's head rows with a lower arrival number. Head rows are many, so their space is vacuumed
/// often.
pub(super) async fn truncate_head(inner: &PostgresInner, client: &Client, before: i64) -> Result<(), Error> {
    let sql = "WITH deleted AS (DELETE FROM head WHERE hub = $1 AND arrival < $2 \
         RETURNING length(payload) AS bytes) \
         SELECT coalesce(sum(bytes), 0)::bigint FROM deleted";
    let deleted: i64 = client.fetch_one(sql, &[&inner.hub, &before]).await?.get(0);
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
        let mut client = inner.client().await?;
        drop_partitions(inner, &client).await?;
        shapes::delete_unused(inner, &mut client).await?;
        let mut last_vacuum = inner.last_vacuum.lock().unwrap_or_else(PoisonError::into_inner);
        if *last_vacuum > Duration::ZERO && now.saturating_sub(*last_vacuum) < VACUUM_INTERVAL {
            return Ok(());
        }
        *last_vacuum = now.max(Duration::from_nanos(1));
    }
    let client = inner.client().await?;
    Ok(vacuum_with(inner, &client, before_ms).await?)
}

async fn drop_partitions(inner: &PostgresInner, client: &Client) -> Result<(), Error> {
    let watermark_ms = read::retention_watermarks(client, "").await?.ms[0];
    partitions::drop_empty(inner, client, watermark_ms).await
}

async fn vacuum_with(inner: &PostgresInner, client: &Client, before_ms: i64) -> Result<(), Error> {
    client.run("DELETE FROM sequence_range WHERE newest_ms < $1", &[&before_ms]).await?;
    let sql =
        "DELETE FROM host_watermark h USING retention_watermark w WHERE w.tier = h.tier AND h.ms <= w.ms";
    client.run(sql, &[]).await?;
    if !inner.has_dead_rows.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    for table in [
        "block_raw",
        "block_minute",
        "block_hour",
        "dirty_window",
        "head_shape",
        "seal_watermark",
        "sequence_range",
        "shape",
    ] {
        client.batch_execute(&format!("VACUUM {table}")).await?;
    }
    if inner.compaction_due.swap(false, Ordering::Relaxed) {
        partitions::compact(inner, client).await?;
    }
    Ok(())
}
