//! Time partitions of the raw blocks. A partition is dropped once all its blocks are deleted, because only
//! dropping a table returns space without blocking other statements. A partition must therefore be a small
//! part of the disk budget: it is a day, an hour or five minutes wide, depending on the recent volume.

use super::inner::PostgresInner;
use super::statements::Statements as _;
use perfwatch_tsdb::rollup::bucket_start;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Widths of partitions, widest first.
const PARTITION_WIDTHS_MS: [i64; 3] = [24 * HOUR_MS, HOUR_MS, 5 * MINUTE_MS];
/// Minimum number of partitions that fit into the budget.
const MIN_PARTITIONS: i64 = 16;
/// Maximum time to wait for the lock that creating or dropping a partition needs. All other statements wait
/// behind it.
const LOCK_TIMEOUT_MS: u32 = 500;
/// Minimum size of a partition that is rewritten.
const MIN_COMPACTED_BYTES: i64 = 4 << 20;

fn partition_name(range: &Range<i64>) -> String {
    format!("block_raw_{}_{}", range.start / MINUTE_MS, range.end / MINUTE_MS)
}

fn parse_partition_name(name: &str) -> Option<Range<i64>> {
    let (from, to) = name.strip_prefix("block_raw_")?.split_once('_')?;
    Some(from.parse::<i64>().ok()? * MINUTE_MS..to.parse::<i64>().ok()? * MINUTE_MS)
}

/// Suitable widths for a volume in bytes per time span, preferred width first.
pub(super) fn widths_for(inner: &PostgresInner, bytes: i64, span_ms: i64) -> &'static [i64] {
    let max_bytes = i64::try_from(inner.budget_bytes()).unwrap_or(i64::MAX) / MIN_PARTITIONS;
    let span_ms = span_ms.max(MINUTE_MS);
    let is_suitable =
        |width: &i64| i128::from(bytes) * i128::from(*width) <= i128::from(max_bytes) * i128::from(span_ms);
    let preferred = PARTITION_WIDTHS_MS.iter().position(is_suitable).unwrap_or(PARTITION_WIDTHS_MS.len() - 1);
    &PARTITION_WIDTHS_MS[preferred..]
}

/// Suitable widths for the volume of the preceding hour. Without any data, the narrowest width.
async fn recent_widths(inner: &PostgresInner, client: &Client, at_ms: i64) -> Result<&'static [i64], Error> {
    let sql = "SELECT coalesce(sum(bytes), 0)::bigint, min(first_ms), max(last_ms) FROM block_raw \
         WHERE first_ms >= $1 AND first_ms < $2";
    let row = client.fetch_one(sql, &[&(at_ms - HOUR_MS), &at_ms]).await?;
    let (bytes, first, last): (i64, Option<i64>, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(&PARTITION_WIDTHS_MS[2..]);
    };
    Ok(widths_for(inner, bytes, last - first))
}

/// Creates the partition for a time unless it exists, with a given width or with a width for the recent
/// volume. Another hub may create the same partition concurrently.
pub(super) async fn ensure_partition(
    inner: &PostgresInner,
    client: &Client,
    at_ms: i64,
    widths: Option<&[i64]>,
) -> Result<(), Error> {
    let is_cached = |inner: &PostgresInner| {
        let partitions = inner.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().any(|range| range.contains(&at_ms))
    };
    if is_cached(inner) {
        return Ok(());
    }
    let existing = list_partitions(client).await?;
    *inner.partitions.lock().unwrap_or_else(PoisonError::into_inner) = existing.clone();
    if is_cached(inner) {
        return Ok(());
    }
    let widths = match widths {
        Some(widths) => widths,
        None => recent_widths(inner, client, at_ms).await?,
    };
    for width in widths {
        let from_ms = bucket_start(at_ms, *width);
        let range = from_ms..from_ms + width;
        if existing.iter().any(|other| other.start < range.end && range.start < other.end) {
            continue;
        }
        let sql = format!(
            "SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'; \
             CREATE TABLE IF NOT EXISTS {} PARTITION OF block_raw FOR VALUES FROM ({}) TO ({})",
            partition_name(&range),
            range.start,
            range.end
        );
        match client.batch_execute(&sql).await {
            Ok(()) => {
                inner.partitions.lock().unwrap_or_else(PoisonError::into_inner).push(range);
                return Ok(());
            }
            // Another hub created this partition, or an overlapping partition.
            Err(error)
                if matches!(
                    error.code(),
                    Some(
                        &SqlState::DUPLICATE_TABLE
                            | &SqlState::UNIQUE_VIOLATION
                            | &SqlState::DUPLICATE_OBJECT
                            | &SqlState::INVALID_OBJECT_DEFINITION
                    )
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Time ranges of all partitions.
async fn list_partitions(client: &Client) -> Result<Vec<Range<i64>>, Error> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'block_raw'::regclass";
    Ok(client.fetch_all(sql, &[]).await?.iter().filter_map(|row| parse_partition_name(row.get(0))).collect())
}

/// Drops empty partitions that end before a time.
pub(super) async fn drop_empty(inner: &PostgresInner, client: &Client, before_ms: i64) -> Result<(), Error> {
    let existing = list_partitions(client).await?;
    for range in existing.iter().filter(|range| range.end <= before_ms) {
        let name = partition_name(range);
        let is_empty: bool =
            client.fetch_one(&format!("SELECT NOT EXISTS (SELECT 1 FROM {name})"), &[]).await?.get(0);
        if is_empty {
            let sql = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'; DROP TABLE {name}");
            if let Err(error) = client.batch_execute(&sql).await {
                // A long read, for example a backup, holds the lock. The next vacuum retries.
                tracing::debug!(%error, name, "failed to drop an empty partition; retrying later");
                break;
            }
        }
    }
    *inner.partitions.lock().unwrap_or_else(PoisonError::into_inner) = list_partitions(client).await?;
    Ok(())
}

/// Rewrites partitions that consist mostly of the space of deleted blocks: they have blocks of other hosts and
/// cannot be dropped. A partition that still receives blocks reuses its space, unless it is too large.
pub(super) async fn compact(inner: &PostgresInner, client: &Client) -> Result<(), Error> {
    let now_ms = inner.clock.wall_ms();
    let max_bytes = i64::try_from(inner.budget_bytes()).unwrap_or(i64::MAX) / MIN_PARTITIONS;
    for range in list_partitions(client).await?.iter() {
        let name = partition_name(range);
        let sql =
            format!("SELECT pg_total_relation_size('{name}'), coalesce(sum(bytes), 0)::bigint FROM {name}");
        let row = client.fetch_one(&sql, &[]).await?;
        let (size, live): (i64, i64) = (row.get(0), row.get(1));
        let min_bytes = if range.end <= now_ms { MIN_COMPACTED_BYTES } else { max_bytes };
        if size < min_bytes || live > size / 2 {
            continue;
        }
        // A separate statement, which cannot have a timeout for its lock: a partition that a read has locked is skipped.
        let file_sql = format!("SELECT pg_relation_filenode('{name}')");
        let file_before: Option<u32> = client.fetch_one(&file_sql, &[]).await?.get(0);
        if let Err(error) = client.batch_execute(&format!("VACUUM (FULL, SKIP_LOCKED) {name}")).await {
            tracing::debug!(%error, name, "failed to compact a partition; retrying later");
            inner.compaction_due.store(true, Ordering::Relaxed);
            break;
        }
        if client.fetch_one(&file_sql, &[]).await?.get::<_, Option<u32>>(0) == file_before {
            tracing::debug!(name, "skipped the compaction of a partition that is read; retrying later");
            inner.compaction_due.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_name_round_trips() {
        let range = 29_379_540 * MINUTE_MS..29_379_600 * MINUTE_MS;
        assert_eq!(partition_name(&range), "block_raw_29379540_29379600");
        assert_eq!(parse_partition_name(&partition_name(&range)), Some(range));
        for name in ["block_raw", "block_raw_20402", "block_raw_x_y"] {
            assert_eq!(parse_partition_name(name), None, "{name}");
        }
    }
}
