//! Reads of history on a streaming replica, which have the rows that the primary has.
//!
//! A hub removes rows from its memory when they are in blocks, and knows from the primary which rows other hubs have
//! sealed. Before each read, the primary therefore returns its position in the WAL, and the replica must have replayed
//! it. If it does not in time, or cannot be used for another reason, the primary is read.

use super::inner::PostgresInner;
use super::read;
use super::statements::{Statements as _, begin_read};
use crate::error::StoreError;
use crate::store::{Query, QueryResult};
use deadpool_postgres::Pool;
use perfwatch_postgres::{connection_error, connection_pool};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_postgres::Client;

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time in which the replica replays what the primary has written.
const REPLAY_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two checks of the replay.
const REPLAY_POLL_DELAY: Duration = Duration::from_millis(5);
/// Time for which the primary is read after a failure of the replica.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Identity of a database, the same at all replicas.
const DATABASE: &str = "(SELECT concat_ws(' ', system_identifier, current_database(), 'head'::regclass::oid) FROM pg_control_system())";

/// Streaming replica of the database.
pub(super) struct Replica {
    pool: Pool,
    /// Monotonic time of the next attempt, after a failure.
    retry_at: Mutex<Option<Duration>>,
}

impl Replica {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let pool = connection_pool(url, CONNECT_TIMEOUT)
            .map_err(|error| StoreError::Rejected(format!("hub.store_replica: {error}")))?;
        Ok(Self { pool, retry_at: Mutex::default() })
    }

    /// Reads on the replica, or on the primary if the replica cannot be used.
    pub(super) async fn read_range(
        &self,
        inner: &PostgresInner,
        query: &Query,
    ) -> Result<QueryResult, StoreError> {
        if !self.begin_attempt(inner.clock.monotonic()) {
            return read::read_range(inner, query).await;
        }
        let position = Position::of_primary(inner).await?;
        let result = self.try_read(inner, query, &position).await;
        match &result {
            // Not a failure of the replica.
            _ if query.bounds.cancelled.load(Ordering::Relaxed) => result,
            Err(StoreError::Unavailable(error)) => {
                self.record(Some(error), inner.clock.monotonic());
                read::read_range(inner, query).await
            }
            _ => {
                self.record(None, inner.clock.monotonic());
                result
            }
        }
    }

    async fn try_read(
        &self,
        inner: &PostgresInner,
        query: &Query,
        position: &Position,
    ) -> Result<QueryResult, StoreError> {
        let unavailable = |text: &str| StoreError::Unavailable(text.to_owned());
        let mut client = self.pool.get().await.map_err(|error| unavailable(&connection_error(&error)))?;
        let replayed = tokio::time::timeout(REPLAY_TIMEOUT, position.wait_for_replay(&client)).await;
        let server = replayed.map_err(|_| unavailable("it is behind the primary"))??;
        // The snapshot of the transaction is later than the check. A pooler could start it at another replica.
        let tx = begin_read(&mut client).await?;
        let sql = "SELECT pg_postmaster_start_time()::text = $1";
        if !tx.fetch_one(sql, &[&server]).await?.get::<_, bool>(0) {
            return Err(unavailable("its address leads to several servers"));
        }
        read::read_range_in(inner, tx, query).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.retry_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether to try the replica: always, or after a failure one read per delay until it succeeds.
    fn begin_attempt(&self, now: Duration) -> bool {
        let mut retry_at = self.lock();
        let is_due = retry_at.is_none_or(|at| now >= at);
        if is_due && retry_at.is_some() {
            *retry_at = Some(now + RETRY_DELAY);
        }
        is_due
    }

    /// Records the result of an attempt. Logs changes only, not every failed retry.
    fn record(&self, failure: Option<&str>, now: Duration) {
        let mut retry_at = self.lock();
        match failure {
            Some(error) if retry_at.is_none() => {
                tracing::warn!(error, "replica cannot be used; reading history from the primary");
            }
            None if retry_at.is_some() => tracing::info!("reading history from the replica again"),
            _ => {}
        }
        *retry_at = failure.map(|_| now + RETRY_DELAY);
    }
}

/// Position of the primary in the WAL, after all transactions that reads on the primary see.
struct Position {
    bytes: i64,
    database: String,
}

impl Position {
    async fn of_primary(inner: &PostgresInner) -> Result<Self, StoreError> {
        // A transaction is visible after its WAL is flushed, unless commits are asynchronous.
        let sql = format!(
            "SELECT pg_wal_lsn_diff(CASE current_setting('synchronous_commit') \
             WHEN 'off' THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0')::bigint, \
             {DATABASE}"
        );
        let row = inner.client().await?.fetch_one(&sql, &[]).await?;
        Ok(Self { bytes: row.get(0), database: row.get(1) })
    }

    /// Waits until a replica has replayed this position; returns the start time of the server, which identifies it.
    async fn wait_for_replay(&self, client: &Client) -> Result<String, StoreError> {
        let sql = format!(
            "SELECT pg_is_in_recovery() AND {DATABASE} = $2, \
             coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') >= $1, false), \
             pg_postmaster_start_time()::text"
        );
        loop {
            let row = client.fetch_one(&sql, &[&self.bytes, &self.database]).await?;
            if !row.get::<_, bool>(0) {
                return Err(StoreError::Unavailable("it is no replica of this database".to_owned()));
            }
            if row.get(1) {
                return Ok(row.get(2));
            }
            tokio::time::sleep(REPLAY_POLL_DELAY).await;
        }
    }
}
