//! Statements of each write in SQLite.

use super::bind::bind;
use super::inner::{LOCAL_HUB_ID, SqliteInner};
use super::read;
use crate::hosts::HostRecord;
use crate::schema::block_table;
use crate::shape_use::{DELETE_UNUSED_SQL, LIST_UNUSED_SQL};
use crate::sql::SqlStatement;
use crate::transaction::Change;
use crate::write::{DirtyWindow, SequenceRanges, Write};
use perfwatch_model::{HostId, RangeSet, ShapeId, wire};
use perfwatch_tsdb::{Block, Tier};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, ToSql};

/// Maximum number of pages returned to the file system per call of [`vacuum`]: some milliseconds of work.
const MAX_VACUUM_PAGES: u32 = 512;

fn execute(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(values)
}

/// Applies one change; false if it conflicts with the stored state.
pub(super) fn apply(connection: &Connection, inner: &SqliteInner, change: Change) -> rusqlite::Result<bool> {
    match change {
        Change::History(write) => apply_write(connection, inner, write),
        Change::Entity(statement) => execute_statement(connection, &statement),
        // The only hub of an embedded database.
        Change::Lease(_) => Ok(true),
    }
}

fn apply_write(connection: &Connection, inner: &SqliteInner, write: Write) -> rusqlite::Result<bool> {
    match write {
        Write::HostSeen(host, last_snapshot_ms, interval_ms) => {
            let sql = "UPDATE host SET last_snapshot_ms = max(coalesce(last_snapshot_ms, ?2), ?2), \
                 interval_ms = ?3 WHERE id = ?1";
            execute(connection, sql, &[&host.to_bytes(), &last_snapshot_ms, &interval_ms])?;
        }
        Write::PutBlock(tier, host, _, block) => put_block(connection, tier, host, &block)?,
        Write::DropBlock(block) => {
            let sql = format!(
                "DELETE FROM {} WHERE host = ?1 AND first_ms = ?2 AND id = ?3 RETURNING shape",
                block_table(block.tier)
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let key = (block.host.to_bytes(), block.first_ms, block.id.0);
            let shape: Option<[u8; 16]> = statement.query_row(key, |row| row.get(0)).optional()?;
            shape.iter().for_each(|shape| inner.shape_use.record_dropped_block(ShapeId(*shape)));
            return Ok(shape.is_some());
        }
        Write::AdvanceSeal(watermark) => {
            let sql = "INSERT INTO seal_watermark (hub, host, arrival) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (hub, host) DO UPDATE SET arrival = excluded.arrival \
                 WHERE seal_watermark.arrival < excluded.arrival";
            let values: [&dyn ToSql; 3] = [&LOCAL_HUB_ID, &watermark.host.to_bytes(), &watermark.arrival];
            return Ok(execute(connection, sql, &values)? == 1);
        }
        Write::RecordSequences(ranges) => record_sequences(connection, ranges)?,
        Write::MarkDirty(tier, host, window_ms) => {
            let sql = "INSERT INTO dirty_window (tier, host, window_ms, stamp) VALUES (?1, ?2, ?3, random()) \
                 ON CONFLICT (tier, host, window_ms) DO UPDATE SET stamp = excluded.stamp";
            execute(connection, sql, &[&tier.id(), &host.to_bytes(), &window_ms])?;
        }
        Write::ClearDirty(window) => return clear_dirty(connection, &window),
        Write::ExpectWatermarks(watermarks) => {
            return Ok(read::retention_watermarks(connection)? == watermarks);
        }
        Write::AdvanceWatermark(tier, ms) => return advance_watermark(connection, tier, ms),
        Write::AdvanceHostWatermark(tier, host, ms) => {
            return advance_host_watermark(connection, tier, host, ms);
        }
    }
    Ok(true)
}

fn put_block(connection: &Connection, tier: Tier, host: HostId, block: &Block) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO {} (host, first_ms, last_ms, shape, header_bytes, bytes, data) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        block_table(tier)
    );
    let (header_bytes, bytes) = (block.header_len as i64, block.bytes.len() as i64);
    let values: [&dyn ToSql; 7] = [
        &host.to_bytes(),
        &block.first_ms,
        &block.last_ms,
        &block.shape.0,
        &header_bytes,
        &bytes,
        &block.bytes,
    ];
    execute(connection, &sql, &values).map(drop)
}

fn record_sequences(connection: &Connection, ranges: SequenceRanges) -> rusqlite::Result<()> {
    let (host, boot) = (ranges.host.to_bytes(), ranges.boot.to_bytes());
    let stored: Option<String> = connection
        .prepare_cached("SELECT seqs FROM sequence_range WHERE host = ?1 AND boot = ?2")?
        .query_row((host, boot), |row| row.get(0))
        .optional()?;
    let mut seqs = ranges.seqs;
    seqs.extend(&RangeSet::from_text(&stored.unwrap_or_default()));
    let sql = "INSERT INTO sequence_range (host, boot, seqs, newest_ms) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (host, boot) DO UPDATE \
         SET seqs = excluded.seqs, newest_ms = max(sequence_range.newest_ms, excluded.newest_ms)";
    execute(connection, sql, &[&host, &boot, &seqs.to_text(), &ranges.newest_ms]).map(drop)
}

fn clear_dirty(connection: &Connection, window: &DirtyWindow) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM dirty_window WHERE tier = ?1 AND host = ?2 AND window_ms = ?3 AND stamp = ?4";
    let values: [&dyn ToSql; 4] =
        [&window.tier.id(), &window.host.to_bytes(), &window.window_ms, &window.stamp];
    Ok(execute(connection, sql, &values)? == 1)
}

fn execute_statement(connection: &Connection, statement: &SqlStatement) -> rusqlite::Result<bool> {
    let mut prepared = connection.prepare_cached(statement.sql)?;
    bind(&mut prepared, &statement.values)?;
    match prepared.raw_execute() {
        Ok(affected) => Ok(affected > 0 || !statement.requires_row),
        // A unique key is taken. Only this list of writes is rolled back, not the whole commit.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
        Err(error) => Err(error),
    }
}

fn advance_watermark(connection: &Connection, tier: Tier, ms: i64) -> rusqlite::Result<bool> {
    // Rows of the last tier are rolled up into no other tier and may be deleted at any time.
    if tier.coarser().is_some() {
        let has_dirty_window: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dirty_window WHERE tier = ?1 AND window_ms < ?2)")?
            .query_row((tier.id(), ms), |row| row.get(0))?;
        if has_dirty_window {
            return Ok(false);
        }
    }
    execute(
        connection,
        "UPDATE retention_watermark SET ms = max(ms, ?2) WHERE tier = ?1",
        &[&tier.id(), &ms],
    )?;
    Ok(true)
}

fn advance_host_watermark(
    connection: &Connection,
    tier: Tier,
    host: HostId,
    ms: i64,
) -> rusqlite::Result<bool> {
    if tier.coarser().is_some() {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM dirty_window WHERE tier = ?1 AND host = ?2 AND window_ms < ?3)";
        let values = (tier.id(), host.to_bytes(), ms);
        if connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))? {
            return Ok(false);
        }
    }
    let sql = "INSERT INTO host_watermark (tier, host, ms) VALUES (?1, ?2, ?3) \
         ON CONFLICT (tier, host) DO UPDATE SET ms = max(host_watermark.ms, excluded.ms)";
    execute(connection, sql, &[&tier.id(), &host.to_bytes(), &ms])?;
    Ok(true)
}

/// Loads the shapes that the head uses. Their newest commit is not stored; it is at most that of the head.
pub(super) fn load_head_shapes(connection: &Connection, inner: &SqliteInner) -> rusqlite::Result<()> {
    let newest = connection.query_row("SELECT coalesce(max(arrival), 0) FROM head", [], |row| row.get(0))?;
    let mut statement = connection.prepare("SELECT shape FROM head_shape WHERE hub = ?1")?;
    let shapes = statement.query_map([LOCAL_HUB_ID], |row| Ok(ShapeId(row.get(0)?)))?;
    inner.shape_use.record_append(shapes.collect::<rusqlite::Result<Vec<_>>>()?, newest);
    Ok(())
}

/// Deletes the shapes that only head rows before an arrival number used from `head_shape`.
pub(super) fn release_head_shapes(
    connection: &Connection,
    inner: &SqliteInner,
    before: i64,
) -> rusqlite::Result<()> {
    let unused = inner.shape_use.unused_in_head(before);
    for shape in &unused {
        let sql = "DELETE FROM head_shape WHERE hub = ?1 AND shape = ?2";
        execute(connection, sql, &[&LOCAL_HUB_ID, &shape.0])?;
    }
    inner.shape_use.release(&unused);
    Ok(())
}

/// Deletes the shapes that neither a block nor a head row uses. Returns their number.
fn delete_unused_shapes(connection: &Connection, inner: &SqliteInner) -> rusqlite::Result<usize> {
    let mut candidates = inner.shape_use.take_candidates();
    if inner.shape_use.is_sweep_due(inner.clock.monotonic()) {
        let mut statement = connection.prepare(LIST_UNUSED_SQL)?;
        let unused = statement.query_map([], |row| Ok(ShapeId(row.get(0)?)))?;
        candidates.extend(unused.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    let mut count = 0;
    for shape in candidates {
        count += execute(connection, DELETE_UNUSED_SQL, &[&shape.0])?;
    }
    Ok(count)
}

pub(super) fn upsert_host(connection: &Connection, host: &HostRecord) -> rusqlite::Result<()> {
    let sql = "INSERT INTO host (id, name, facts, first_seen_ms, last_snapshot_ms, interval_ms, created_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, facts = coalesce(excluded.facts, host.facts)";
    let values: [&dyn ToSql; 7] = [
        &host.id.to_bytes(),
        &host.name,
        &host.facts.as_deref().map(wire::encode_facts),
        &host.first_seen_ms,
        &host.last_snapshot_ms,
        &host.interval_ms,
        &host.created_by.as_deref(),
    ];
    execute(connection, sql, &values).map(drop)
}

/// Deletes unused shapes and sequence numbers, and returns free pages to the file system while there are
/// many.
pub(super) fn vacuum(connection: &Connection, inner: &SqliteInner, before_ms: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM sequence_range WHERE newest_ms < ?1", [before_ms])?;
    connection.execute(
        "DELETE FROM host_watermark \
         WHERE ms <= (SELECT w.ms FROM retention_watermark w WHERE w.tier = host_watermark.tier)",
        [],
    )?;
    let count = delete_unused_shapes(connection, inner)?;
    if count > 0 {
        tracing::debug!(count, "deleted unused shapes");
    }
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // A tenth of the pages may stay free, because it is reused soon.
    if pragma("freelist_count")? > pragma("page_count")? / 10 {
        // Each step frees one page, so the statement must be stepped to its end.
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({MAX_VACUUM_PAGES})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}
