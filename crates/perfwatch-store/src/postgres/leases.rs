//! Leases of background tasks, [`crate::LeasedTask`], and the presence of hubs, which is a lease, too.

use super::inner::PostgresInner;
use super::statements::{Parameter, Statements as _};
use crate::error::StoreError;
use crate::task_lease::{LEASE_TTL, LeasedTask, TaskLease};
use tokio_postgres::{Client, Error, Transaction};

/// Time for which the end of a hub is recorded.
const MAX_ENDED_HUB_AGE_MS: i64 = 86_400_000;

pub(super) async fn renew(inner: &PostgresInner) -> Result<(), StoreError> {
    // Before the request: the lease of this hub ends before that of the database.
    let until = inner.clock.monotonic() + LEASE_TTL;
    let client = inner.client().await?;
    let names = LeasedTask::ALL.map(LeasedTask::name);
    let ttl_ms = i64::try_from(LEASE_TTL.as_millis()).unwrap_or(i64::MAX);
    // Times are from the server's clock, which all hubs share.
    let sql = "WITH now AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) \
         INSERT INTO lease (name, holder, until_ms, token) \
         SELECT task.name, $2, now.ms + $3, 1 FROM unnest($1::text[]) AS task (name), now \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms, \
         token = lease.token + CASE WHEN lease.holder = excluded.holder THEN 0 ELSE 1 END \
         WHERE lease.holder = excluded.holder OR lease.until_ms < excluded.until_ms - $3 \
         RETURNING name, token";
    let rows = client.fetch_all(sql, &[&names.as_slice(), &inner.lease_holder, &ttl_ms]).await?;
    let leases = rows.iter().filter_map(|row| {
        let name: &str = row.get(0);
        let task = LeasedTask::ALL.into_iter().find(|task| task.name() == name)?;
        Some(TaskLease { task, token: row.get(1) })
    });
    inner.leases.replace(leases, until);
    // The next renewal repeats it. Its failure does not mean that the database rejects writes.
    if let Err(error) = release_jobs_of_ended_hubs(inner, &client, ttl_ms).await {
        tracing::debug!(%error, "failed to release the collection jobs of ended hubs");
    }
    Ok(())
}

/// Renews the presence of this hub, and returns the collection jobs of hubs that did not renew theirs to the queue.
/// Jobs of earlier versions, which have no presence, wait for the end of their own lease.
async fn release_jobs_of_ended_hubs(
    inner: &PostgresInner,
    client: &Client,
    ttl_ms: i64,
) -> Result<(), Error> {
    let sql = "WITH now AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms), \
         present AS (INSERT INTO lease (name, holder, until_ms) \
         SELECT 'hub ' || $1, $2, now.ms + $3 FROM now \
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms), \
         ended AS (SELECT name FROM lease, now \
         WHERE name LIKE 'hub %' AND name <> 'hub ' || $1 AND until_ms < now.ms), \
         forgotten AS (DELETE FROM lease WHERE name IN (SELECT lease.name FROM lease, now \
         WHERE lease.name LIKE 'hub %' AND lease.until_ms < now.ms - $4 FOR UPDATE OF lease SKIP LOCKED)) \
         UPDATE collection_job SET state = 'waiting', lease_id = NULL, leased_until_ms = NULL \
         WHERE id IN (SELECT id FROM collection_job WHERE state = 'active' \
         AND 'hub ' || hub IN (SELECT name FROM ended) FOR UPDATE SKIP LOCKED)";
    let values: [&dyn Parameter; 4] = [&inner.hub, &inner.lease_holder, &ttl_ms, &MAX_ENDED_HUB_AGE_MS];
    client.run(sql, &values).await.map(|_| ())
}

pub(super) async fn release(inner: &PostgresInner) -> Result<(), StoreError> {
    inner.leases.replace([], inner.clock.monotonic());
    let client = inner.client().await?;
    // In the order in which renewals lock the rows. The presence of the hub expires.
    let sql = "UPDATE lease SET until_ms = 0 WHERE name IN (SELECT name FROM lease \
         WHERE holder = $1 AND name NOT LIKE 'hub %' ORDER BY name FOR UPDATE)";
    client.run(sql, &[&inner.lease_holder]).await?;
    Ok(())
}

/// Returns whether this hub still holds a lease. If so, the lease is locked until the transaction ends. The server ends
/// the transaction of a hub that is suspended before its commit: renewals of other hubs wait for the row.
pub(super) async fn is_held(
    inner: &PostgresInner,
    tx: &Transaction<'_>,
    lease: TaskLease,
) -> Result<bool, Error> {
    let sql = "SELECT set_config('idle_in_transaction_session_timeout', '5s', true) FROM lease \
         WHERE name = $1 AND holder = $2 AND token = $3 FOR SHARE";
    let row = tx.fetch_opt(sql, &[&lease.task.name(), &inner.lease_holder, &lease.token]).await?;
    Ok(row.is_some())
}
