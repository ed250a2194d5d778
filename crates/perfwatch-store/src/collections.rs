//! Collection history of agentless hosts, connection tests included.

use crate::error::StoreError;
use crate::sql::{RowReader, SqlStatement, text_enum};
use crate::store::Store;
use crate::transaction::Transaction;
use uuid::Uuid;

text_enum! {
    /// Trigger of a collection.
    pub enum CollectTrigger {
        /// The interval of the server elapsed.
        Scheduled = "scheduled",
        /// A user requested the collection.
        Manual = "manual",
        /// The page of the host is open.
        OnDemand = "on_demand",
        /// A user tests the connection.
        Test = "test",
    }
}

/// Result of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionRow {
    /// Number of the collection, assigned by the database.
    pub id: i64,
    /// Server this collection belongs to.
    pub server: Uuid,
    /// Time at which the collection ended, Unix milliseconds.
    pub finished_ms: i64,
    /// Trigger of the collection.
    pub trigger: CollectTrigger,
    /// Number of the attempt, from 1.
    pub attempt: i64,
    /// Duration of the collection in milliseconds.
    pub duration_ms: i64,
    /// Failure cause; `None` after a success.
    pub cause: Option<String>,
    /// Failure message; `None` after a success.
    pub error: Option<String>,
    /// Stages with their durations, as JSON.
    pub steps: String,
}

impl CollectionRow {
    /// Lists collections of a server, newest first, optionally only those with a trigger, or with a lower
    /// number than `before_id`.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn list(
        store: &dyn Store,
        server: Uuid,
        trigger: Option<CollectTrigger>,
        before_id: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Self>, StoreError> {
        let sql = "SELECT id, server, finished_ms, trigger, attempt, duration_ms, cause, error, steps \
             FROM collection WHERE server = $1 AND id < $2 AND trigger = COALESCE($4, trigger) \
             ORDER BY id DESC LIMIT $3";
        let before_id = before_id.unwrap_or(i64::MAX);
        let trigger = trigger.map(CollectTrigger::name);
        let values = vec![server.into(), before_id.into(), limit.into(), trigger.into()];
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(Self {
                id: row.int()?,
                server: row.id()?,
                finished_ms: row.int()?,
                trigger: row.parsed(CollectTrigger::parse)?,
                attempt: row.int()?,
                duration_ms: row.int()?,
                cause: row.opt_text()?,
                error: row.opt_text()?,
                steps: row.text()?,
            })
        };
        store.query(sql, values).await?.into_iter().map(read).collect()
    }
}

/// Collections that ended within one step of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionCount {
    /// Number of the step: its start divided by its width.
    pub step: i64,
    /// Server, if the counts were read by server.
    pub server: Option<Uuid>,
    /// Number of successful collections.
    pub succeeded: i64,
    /// Number of failed collections.
    pub failed: i64,
    /// Sum of the durations in milliseconds.
    pub duration_ms: i64,
}

impl CollectionRow {
    /// Counts the collections that ended in a range, by steps of time, and by server if requested.
    /// Connection tests are left out.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn counts(
        store: &dyn Store,
        (from_ms, to_ms): (i64, i64),
        step_ms: i64,
        by_server: bool,
    ) -> Result<Vec<CollectionCount>, StoreError> {
        macro_rules! count_collections {
            ($server:literal, $group:literal) => {
                concat!(
                    "SELECT finished_ms / CAST($3 AS BIGINT), ",
                    $server,
                    "sum(CASE WHEN cause IS NULL THEN 1 ELSE 0 END), \
                     sum(CASE WHEN cause IS NULL THEN 0 ELSE 1 END), CAST(sum(duration_ms) AS BIGINT) \
                     FROM collection WHERE finished_ms >= $1 AND finished_ms < $2 AND trigger <> 'test' \
                     GROUP BY finished_ms / CAST($3 AS BIGINT)",
                    $group
                )
            };
        }
        let sql = match by_server {
            true => count_collections!("server, ", ", server"),
            false => count_collections!("", ""),
        };
        let read = |row| {
            let mut row = RowReader::new(row);
            Ok(CollectionCount {
                step: row.int()?,
                server: if by_server { Some(row.id()?) } else { None },
                succeeded: row.int()?,
                failed: row.int()?,
                duration_ms: row.int()?,
            })
        };
        let values = vec![from_ms.into(), to_ms.into(), step_ms.into()];
        store.query(sql, values).await?.into_iter().map(read).collect()
    }
}

/// Writes of collections, added to a [`Transaction`].
#[derive(Debug)]
pub struct CollectionRepository<'a>(&'a mut Transaction);

impl CollectionRepository<'_> {
    /// Adds the result to the collection history.
    pub fn insert(&mut self, collection: &CollectionRow) {
        let sql = "INSERT INTO collection \
             (server, finished_ms, trigger, attempt, duration_ms, cause, error, steps) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            collection.server.into(),
            collection.finished_ms.into(),
            collection.trigger.into(),
            collection.attempt.into(),
            collection.duration_ms.into(),
            collection.cause.as_deref().into(),
            collection.error.as_deref().into(),
            collection.steps.as_str().into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Stores the result as the server's last one, with the counter state after a success.
    ///
    /// No effect if the server was changed after the collection started, that is, if it has another version.
    pub fn update_server(&mut self, collection: &CollectionRow, version: i64, counter_state: Option<&[u8]>) {
        let sql = "UPDATE server SET last_run_ms = $2, last_duration_ms = $3, last_cause = $4, \
             last_error = $5, last_success_ms = COALESCE($6, last_success_ms), \
             counter_state = COALESCE($7, counter_state) WHERE id = $1 AND version = $8";
        let success_ms = collection.cause.is_none().then_some(collection.finished_ms);
        let values = [
            collection.server.into(),
            collection.finished_ms.into(),
            collection.duration_ms.into(),
            collection.cause.as_deref().into(),
            collection.error.as_deref().into(),
            success_ms.into(),
            counter_state.into(),
            version.into(),
        ];
        self.0.push(SqlStatement::new(sql, values));
    }

    /// Deletes successful collections that ended before `success_before_ms`, and all that ended before
    /// `before_ms`.
    pub fn purge(&mut self, success_before_ms: i64, before_ms: i64) {
        let sql = "DELETE FROM collection WHERE finished_ms < $2 OR (finished_ms < $1 AND cause IS NULL)";
        self.0.push(SqlStatement::new(sql, [success_before_ms.into(), before_ms.into()]));
    }
}

impl Transaction {
    /// Repository of collections.
    pub fn collections(&mut self) -> CollectionRepository<'_> {
        CollectionRepository(self)
    }
}
