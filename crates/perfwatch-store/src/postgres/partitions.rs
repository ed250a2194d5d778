//! Partitions of the ticks' blocks by time: dropped whole when all in them is let go, which is
//! the only way that PostgreSQL gives space back without locking anybody out. So one is to be a
//! small part of the budget: a day, an hour or five minutes wide, by how much came in lately.

use super::PostgresInner;
use deadpool_postgres::Object;
use perfwatch_tsdb::rollup::bucket_start;
use std::ops::Range;
use std::sync::PoisonError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// The widest first.
const PARTITION_WIDTHS_MS: [i64; 3] = [24 * HOUR_MS, HOUR_MS, 5 * MINUTE_MS];
/// How many partitions the budget holds at least.
const MIN_PARTITIONS: i64 = 16;
/// Who waits for the lock of a partition's coming or going makes all others wait: not for long.
const LOCK_TIMEOUT_MS: u32 = 500;

fn partition_name(range: &Range<i64>) -> String {
    format!("block_raw_{}_{}", range.start / MINUTE_MS, range.end / MINUTE_MS)
}

fn parse_partition_name(name: &str) -> Option<Range<i64>> {
    let (from, to) = name.strip_prefix("block_raw_")?.split_once('_')?;
    Some(from.parse::<i64>().ok()? * MINUTE_MS..to.parse::<i64>().ok()? * MINUTE_MS)
}

/// The widths that may do where so many bytes are of so much time, the best first.
pub(super) fn widths_for(shared: &PostgresInner, bytes: i64, span_ms: i64) -> &'static [i64] {
    let most = i64::try_from(shared.budget_bytes).unwrap_or(i64::MAX) / MIN_PARTITIONS;
    let span_ms = span_ms.max(MINUTE_MS);
    let fits = |width: &i64| i128::from(bytes) * i128::from(*width) <= i128::from(most) * i128::from(span_ms);
    let best = PARTITION_WIDTHS_MS.iter().position(fits).unwrap_or(PARTITION_WIDTHS_MS.len() - 1);
    &PARTITION_WIDTHS_MS[best..]
}

/// What came in during the hour before tells how much is to be expected. Where nothing did,
/// little is risked.
async fn widths(shared: &PostgresInner, client: &Object, at_ms: i64) -> Result<&'static [i64], Error> {
    let sql = "SELECT coalesce(sum(bytes), 0)::bigint, min(first_ms), max(last_ms) FROM block_raw \
         WHERE first_ms >= $1 AND first_ms < $2";
    let row = client.query_one(sql, &[&(at_ms - HOUR_MS), &at_ms]).await?;
    let (bytes, first, last): (i64, Option<i64>, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(&PARTITION_WIDTHS_MS[2..]);
    };
    Ok(widths_for(shared, bytes, last - first))
}

/// Makes sure that there is a partition for a time, of the widths that are known to fit or of
/// those that seem to; another hub may do the same just now.
pub(super) async fn ensure_partition(
    shared: &PostgresInner,
    client: &Object,
    at_ms: i64,
    fitting: Option<&[i64]>,
) -> Result<(), Error> {
    let known = |shared: &PostgresInner| {
        let there = shared.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        there.iter().any(|range| range.contains(&at_ms))
    };
    if known(shared) {
        return Ok(());
    }
    let there = list_partitions(client).await?;
    *shared.partitions.lock().unwrap_or_else(PoisonError::into_inner) = there.clone();
    if known(shared) {
        return Ok(());
    }
    let widths = match fitting {
        Some(widths) => widths,
        None => widths(shared, client, at_ms).await?,
    };
    for width in widths {
        let from_ms = bucket_start(at_ms, *width);
        let range = from_ms..from_ms + width;
        if there.iter().any(|other| other.start < range.end && range.start < other.end) {
            continue;
        }
        let sql = format!(
            "SET lock_timeout = '{LOCK_TIMEOUT_MS}ms'; \
             CREATE TABLE IF NOT EXISTS {} PARTITION OF block_raw FOR VALUES FROM ({}) TO ({})",
            partition_name(&range),
            range.start,
            range.end
        );
        let made = client.batch_execute(&sql).await;
        client.batch_execute("RESET lock_timeout").await?;
        match made {
            Ok(()) => {
                shared.partitions.lock().unwrap_or_else(PoisonError::into_inner).push(range);
                return Ok(());
            }
            // Another hub was faster: with this one, or with one that overlaps.
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

/// What there is.
async fn list_partitions(client: &Object) -> Result<Vec<Range<i64>>, Error> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'block_raw'::regclass";
    Ok(client.query(sql, &[]).await?.iter().filter_map(|row| parse_partition_name(row.get(0))).collect())
}

/// Drops those before a time that are empty.
pub(super) async fn drop_empty(shared: &PostgresInner, client: &Object, before_ms: i64) -> Result<(), Error> {
    let there = list_partitions(client).await?;
    for range in there.iter().filter(|range| range.end <= before_ms) {
        let name = partition_name(range);
        let empty: bool =
            client.query_one(&format!("SELECT NOT EXISTS (SELECT 1 FROM {name})"), &[]).await?.get(0);
        if empty {
            let sql = format!("SET lock_timeout = '{LOCK_TIMEOUT_MS}ms'; DROP TABLE {name}");
            let dropped = client.batch_execute(&sql).await;
            client.batch_execute("RESET lock_timeout").await?;
            if let Err(error) = dropped {
                // Somebody reads for long, a backup for one: next time.
                tracing::debug!(%error, name, "failed to drop an empty partition; retrying later");
                break;
            }
        }
    }
    *shared.partitions.lock().unwrap_or_else(PoisonError::into_inner) = list_partitions(client).await?;
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
