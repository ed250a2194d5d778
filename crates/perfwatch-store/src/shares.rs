//! Use of the storage by host, and the history of a host that is above its share of the disk budget.

use crate::error::StoreError;
use crate::metadata::{HOST_WATERMARKS_SQL, limit_value, query_rows, watermarks_from_rows};
use crate::store::Store;
use crate::write::{BlockId, BlockInfo, DirtyWindow, RetentionWatermarks};
use perfwatch_model::{HostId, limits};
use perfwatch_tsdb::Tier;
use std::collections::HashMap;
use std::sync::Arc;

/// Storage that a host uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostUsage {
    /// Size of its blocks by tier, in bytes.
    pub tier_bytes: [u64; 3],
    /// Size of the shapes that its blocks name, in bytes; equal shapes of several hosts count for each.
    pub shape_bytes: u64,
    /// Number of these shapes.
    pub shapes: u64,
}

impl HostUsage {
    /// Size of blocks and shapes, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.tier_bytes.iter().sum::<u64>() + self.shape_bytes
    }
}

/// Storage that each host with blocks uses.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn list_host_usage(store: &dyn Store) -> Result<HashMap<HostId, HostUsage>, StoreError> {
    let mut usage: HashMap<HostId, HostUsage> = HashMap::new();
    for (tier, sql) in [
        "SELECT host, CAST(sum(bytes) AS BIGINT) FROM block_raw GROUP BY host",
        "SELECT host, CAST(sum(bytes) AS BIGINT) FROM block_minute GROUP BY host",
        "SELECT host, CAST(sum(bytes) AS BIGINT) FROM block_hour GROUP BY host",
    ]
    .into_iter()
    .enumerate()
    {
        for (host, bytes) in
            query_rows(store, sql, Vec::new(), |row| Ok((HostId(row.id()?), row.int()?))).await?
        {
            usage.entry(host).or_default().tier_bytes[tier] = bytes.cast_unsigned();
        }
    }
    let sql = "SELECT u.host, CAST(sum(length(s.columns)) AS BIGINT), count(*) FROM \
         (SELECT host, shape FROM block_raw UNION SELECT host, shape FROM block_minute \
         UNION SELECT host, shape FROM block_hour) u JOIN shape s ON s.id = u.shape GROUP BY u.host";
    let shapes =
        query_rows(store, sql, Vec::new(), |row| Ok((HostId(row.id()?), row.int()?, row.int()?))).await?;
    for (host, bytes, count) in shapes {
        let usage = usage.entry(host).or_default();
        (usage.shape_bytes, usage.shapes) = (bytes.cast_unsigned(), count.cast_unsigned());
    }
    Ok(usage)
}

/// Accounts and tokens by the new hosts that they created; see [`SharePrincipal`](crate::SharePrincipal).
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn list_new_hosts(store: &dyn Store, now_ms: i64) -> Result<HashMap<HostId, Arc<str>>, StoreError> {
    let sql = "SELECT id, created_by FROM host WHERE created_by IS NOT NULL AND first_seen_ms > $1";
    let values = vec![now_ms.saturating_sub(limits::NEW_HOST_PERIOD_MS).into()];
    let hosts = query_rows(store, sql, values, |row| Ok((HostId(row.id()?), row.text()?.into())));
    Ok(hosts.await?.into_iter().collect())
}

/// Blocks of a tier that were written in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierVolume {
    /// Size of the blocks in bytes.
    pub bytes: u64,
    /// Number of hosts with a block.
    pub hosts: u64,
    /// Time of the first row, Unix milliseconds.
    pub first_ms: i64,
    /// Time of the last row, Unix milliseconds.
    pub last_ms: i64,
}

/// Volume of the blocks of a tier that end after a time.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn tier_volume(store: &dyn Store, tier: Tier, since_ms: i64) -> Result<TierVolume, StoreError> {
    macro_rules! select {
        ($table:literal) => {
            concat!(
                "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT), \
                 count(DISTINCT CASE WHEN host <> $2 THEN host END), \
                 CAST(coalesce(min(first_ms), 0) AS BIGINT), CAST(coalesce(max(last_ms), 0) AS BIGINT) FROM ",
                $table,
                " WHERE last_ms >= $1"
            )
        };
    }
    let sql = match tier {
        Tier::Raw => select!("block_raw"),
        Tier::Minute => select!("block_minute"),
        Tier::Hour => select!("block_hour"),
    };
    // The bytes of the hubs' own metrics count, but they are no host.
    let rows = query_rows(store, sql, vec![since_ms.into(), HostId::HUBS.0.into()], |row| {
        Ok(TierVolume {
            bytes: row.int()?.cast_unsigned(),
            hosts: row.int()?.cast_unsigned(),
            first_ms: row.int()?,
            last_ms: row.int()?,
        })
    });
    Ok(rows.await?.first().copied().unwrap_or_default())
}

/// Blocks of a host in one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierStorage {
    /// Size of the blocks in bytes.
    pub bytes: u64,
    /// Time of the first row, Unix milliseconds; `None` without blocks.
    pub first_ms: Option<i64>,
    /// Time of the last row, Unix milliseconds; `None` without blocks.
    pub last_ms: Option<i64>,
}

/// Blocks of a host by tier: raw, minutes, hours. Rows that are not in a block yet do not count.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn host_storage(store: &dyn Store, host: HostId) -> Result<[TierStorage; 3], StoreError> {
    macro_rules! select {
        ($table:literal) => {
            concat!(
                "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT), min(first_ms), max(last_ms) FROM ",
                $table,
                " WHERE host = $1"
            )
        };
    }
    let mut tiers = [TierStorage::default(); 3];
    let statements = [select!("block_raw"), select!("block_minute"), select!("block_hour")];
    for (tier, sql) in tiers.iter_mut().zip(statements) {
        let rows = query_rows(store, sql, vec![host.0.into()], |row| {
            let bytes = row.int()?.cast_unsigned();
            Ok(TierStorage { bytes, first_ms: row.opt_int()?, last_ms: row.opt_int()? })
        });
        *tier = rows.await?.first().copied().unwrap_or_default();
    }
    Ok(tiers)
}

/// Number of shapes that the blocks of a host name.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn count_shapes(store: &dyn Store, host: HostId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM (SELECT shape FROM block_raw WHERE host = $1 \
         UNION SELECT shape FROM block_minute WHERE host = $1 \
         UNION SELECT shape FROM block_hour WHERE host = $1) u";
    let counts = query_rows(store, sql, vec![host.0.into()], |row| row.int()).await?;
    Ok(counts.first().copied().unwrap_or_default().cast_unsigned())
}

/// Lists blocks of a host that end before a time, oldest first.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn oldest_blocks_of_host(
    store: &dyn Store,
    tier: Tier,
    host: HostId,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<BlockInfo>, StoreError> {
    macro_rules! select {
        ($table:literal) => {
            concat!(
                "SELECT id, first_ms, last_ms, bytes FROM ",
                $table,
                " WHERE host = $1 AND last_ms < $2 ORDER BY first_ms LIMIT $3"
            )
        };
    }
    let sql = match tier {
        Tier::Raw => select!("block_raw"),
        Tier::Minute => select!("block_minute"),
        Tier::Hour => select!("block_hour"),
    };
    query_rows(store, sql, vec![host.0.into(), before_ms.into(), limit_value(limit)], |row| {
        Ok(BlockInfo {
            id: BlockId(row.int()?),
            tier,
            host,
            first_ms: row.int()?,
            last_ms: row.int()?,
            bytes: row.int()?.cast_unsigned(),
        })
    })
    .await
}

/// Lists windows of a host to roll up that begin before a time, oldest first.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn dirty_windows_of_host(
    store: &dyn Store,
    tier: Tier,
    host: HostId,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<DirtyWindow>, StoreError> {
    let sql = "SELECT window_ms, stamp FROM dirty_window WHERE tier = $1 AND host = $2 AND window_ms < $3 \
         ORDER BY window_ms LIMIT $4";
    let values = vec![tier.id().into(), host.0.into(), before_ms.into(), limit_value(limit)];
    query_rows(store, sql, values, |row| {
        Ok(DirtyWindow { tier, host, window_ms: row.int()?, stamp: row.int()? })
    })
    .await
}

/// Reads the watermarks of a host: those of all hosts, or later ones if it was above its share.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be read.
pub async fn host_watermarks(store: &dyn Store, host: HostId) -> Result<RetentionWatermarks, StoreError> {
    let of_host =
        query_rows(store, HOST_WATERMARKS_SQL, vec![host.0.into()], |row| Ok((row.int()?, row.int()?)));
    let of_host = watermarks_from_rows(of_host.await?);
    Ok(store.retention_watermarks().await?.max(of_host))
}
