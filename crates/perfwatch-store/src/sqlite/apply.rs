//! Each write as SQL.

use super::{LOCAL_HUB_ID, SqliteInner, table};
use crate::range_set::RangeSet;
use crate::sql::{SqlStatement, SqlValue};
use crate::store::{HostRecord, Write};
use perfwatch_model::wire;
use perfwatch_tsdb::Tier;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Statement};

/// Pages given back to the file system in one go: a few milliseconds of work.
const VACUUM_PAGES: u32 = 512;

/// Does one write; false if what it builds on changed.
pub(super) fn apply(connection: &Connection, write: Write) -> rusqlite::Result<bool> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values);
    match write {
        Write::HostSeen(host, last_at_ms, interval_ms) => {
            run(
                "UPDATE host SET last_at_ms = max(coalesce(last_at_ms, ?2), ?2), interval_ms = ?3 WHERE id = ?1",
                &[&host.to_bytes(), &last_at_ms, &interval_ms],
            )?;
        }
        Write::PutBlock(tier, host, _, block) => {
            let sql = format!(
                "INSERT INTO {} (host, first_ms, last_ms, shape, head_bytes, bytes, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                table(tier)
            );
            let (head, bytes) = (block.header_len as i64, block.bytes.len() as i64);
            run(
                &sql,
                &[
                    &host.to_bytes(),
                    &block.first_ms,
                    &block.last_ms,
                    &block.shape.0,
                    &head,
                    &bytes,
                    &block.bytes,
                ],
            )?;
        }
        Write::DropBlock(block) => {
            let sql = format!("DELETE FROM {} WHERE id = ?1", table(block.tier));
            return Ok(run(&sql, &[&block.id.0])? == 1);
        }
        Write::AdvanceSeal(sealed) => {
            let sql = "INSERT INTO sealed (hub, host, arrival) VALUES (?1, ?2, ?3) ON CONFLICT (hub, host) DO UPDATE \
                 SET arrival = excluded.arrival WHERE sealed.arrival < excluded.arrival";
            return Ok(run(sql, &[&LOCAL_HUB_ID, &sealed.host.to_bytes(), &sealed.arrival])? == 1);
        }
        Write::RecordSequences(seen) => {
            let there: Option<String> = connection
                .prepare_cached("SELECT seqs FROM seen WHERE host = ?1 AND boot = ?2")?
                .query_row((seen.host.to_bytes(), seen.boot.to_bytes()), |row| row.get(0))
                .optional()?;
            let mut seqs = seen.seqs;
            seqs.extend(&RangeSet::from_text(&there.unwrap_or_default()));
            run(
                "INSERT INTO seen (host, boot, seqs, newest_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (host, boot) DO UPDATE \
                 SET seqs = excluded.seqs, newest_ms = max(seen.newest_ms, excluded.newest_ms)",
                &[&seen.host.to_bytes(), &seen.boot.to_bytes(), &seqs.to_text(), &seen.newest_ms],
            )?;
        }
        Write::MarkDirty(tier, host, window_ms) => {
            run(
                "INSERT INTO dirty (tier, host, window_ms, stamp) VALUES (?1, ?2, ?3, random()) \
                 ON CONFLICT (tier, host, window_ms) DO UPDATE SET stamp = excluded.stamp",
                &[&tier.id(), &host.to_bytes(), &window_ms],
            )?;
        }
        Write::ClearDirty(dirty) => {
            let sql = "DELETE FROM dirty WHERE tier = ?1 AND host = ?2 AND window_ms = ?3 AND stamp = ?4";
            let values: [&dyn rusqlite::ToSql; 4] =
                [&dirty.tier.id(), &dirty.host.to_bytes(), &dirty.window_ms, &dirty.stamp];
            return Ok(run(sql, &values)? == 1);
        }
        Write::ExpectWatermarks(floors) => {
            return Ok(super::read::retention_watermarks(connection)? == floors);
        }
        Write::AdvanceWatermark(tier, ms) => return set_watermark(connection, tier, ms),
        Write::Sql(change) => return sql(connection, &change),
    }
    Ok(true)
}

fn sql(connection: &Connection, change: &SqlStatement) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(change.sql)?;
    bind(&mut statement, &change.values)?;
    match statement.raw_execute() {
        Ok(touched) => Ok(touched > 0 || !change.require_row),
        // There is one already: only this list of writes is undone, not the whole commit.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Values to `$1`, `$2`…, which here are names.
pub(super) fn bind(statement: &mut Statement<'_>, cells: &[SqlValue]) -> rusqlite::Result<()> {
    for (at, cell) in cells.iter().enumerate() {
        if let Some(index) = statement.parameter_index(&format!("${}", at + 1))? {
            statement.raw_bind_parameter(index, cell)?;
        }
    }
    Ok(())
}

fn set_watermark(connection: &Connection, tier: Tier, ms: i64) -> rusqlite::Result<bool> {
    // What nothing is made of may go at any time.
    if tier.coarser().is_some() {
        let waiting: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM dirty WHERE tier = ?1 AND window_ms < ?2)")?
            .query_row((tier.id(), ms), |row| row.get(0))?;
        if waiting {
            return Ok(false);
        }
    }
    connection
        .prepare_cached("UPDATE floor SET ms = max(ms, ?2) WHERE tier = ?1")?
        .execute((tier.id(), ms))?;
    Ok(true)
}

pub(super) fn put_host(connection: &Connection, host: &HostRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO host (id, name, facts, first_seen_ms, last_at_ms, interval_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, facts = coalesce(excluded.facts, host.facts)",
        )?
        .execute((
            host.id.to_bytes(),
            &host.name,
            host.facts.as_deref().map(wire::encode_facts),
            host.first_seen_ms,
            host.last_at_ms,
            host.interval_ms,
        ))?;
    Ok(())
}

/// Lets go of what nothing needs, and gives free pages back while there are many.
pub(super) fn vacuum(connection: &Connection, shared: &SqliteInner, before_ms: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM seen WHERE newest_ms < ?1", [before_ms])?;
    let gone = connection.execute(
        "DELETE FROM shape WHERE used_ms < ?1 AND NOT EXISTS (SELECT 1 FROM block_raw b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_minute b WHERE b.shape = shape.id) \
         AND NOT EXISTS (SELECT 1 FROM block_hour b WHERE b.shape = shape.id)",
        [before_ms.min(shared.clock.wall_ms() - 2 * 86_400_000)],
    )?;
    if gone > 0 {
        tracing::debug!(gone, "deleted unused shapes");
    }
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    // A tenth may stay free: it is used again at once.
    if number("freelist_count")? > number("page_count")? / 10 {
        // Frees a page a step: it must be stepped to its end.
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}
